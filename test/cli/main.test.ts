import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { main } from '#src/cli/main.js';
import { defaultOutFolder } from '#src/cli/run.js';
import { offbeat } from './offbeat.js';
import { TINY, writeTinyModel } from './tiny-model.js';

let folder: string;
let model: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-cli-'));
  model = await writeTinyModel(join(folder, 'tiny'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the command line in this process, which is quicker than a process of its own. */
async function inProcess(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((chunk) => {
      written[name] += String(chunk);
      return true;
    }),
  );
  try {
    return { code: await main(args), ...written };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

/** The one line that a wrong command leaves: nothing on stdout, exit code 2. */
async function refused(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await inProcess(...args);
  expect({ code, stdout }, stderr).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(/^offbeat: [^\n]+\n$/);
  return stderr.slice('offbeat: '.length, -1);
}

test('a process says what this test sees in its own', async () => {
  const args = ['run', '--set', 'lanes.count=17'];
  const { code, stdout, stderr } = await inProcess(...args);
  expect(code).toBe(2);
  expect(await offbeat(...args)).toEqual({ code, signal: null, stdout, stderr });
});

describe('help and version', () => {
  test('--version', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    expect(await inProcess('--version')).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  test('no command is a cry for help', async () => {
    const bare = await inProcess();
    expect(bare).toMatchObject({ code: 0, stderr: '' });
    expect(bare.stdout).toBe((await inProcess('--help')).stdout);
    for (const word of ['run', 'generate', 'pretrain', 'doctor', 'Examples:'])
      expect(bare.stdout).toContain(word);
  });

  test.each([
    ['run', ['--set <key=value>', '--out <dir>', 'Examples:']],
    [
      'generate',
      [
        '--model <dir>',
        '--max-tokens <count>',
        '--min-p <p>',
        '--stop <text>',
        'SamplingParams',
        'Examples:',
      ],
    ],
    ['pretrain', ['<config>', '--out <dir>', 'Examples:']],
    ['doctor', ['--json']],
  ])('%s --help', async (command, parts) => {
    const { code, stdout, stderr } = await inProcess(command, '--help');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const part of parts) expect(stdout).toContain(part);
  });
});

describe('a wrong command line is refused in one line that says where help is', () => {
  test.each([
    [['fly'], "unknown command 'fly'; see `offbeat --help`"],
    [['--fly'], "unknown option '--fly'; see `offbeat --help`"],
    [['run', '--zet', 'x=1'], "unknown option '--zet' (Did you mean --set?); see `offbeat run --help`"],
    [['run', 'a.toml', 'b.toml'], 'too many arguments'],
    [['run', '--set'], "option '--set <key=value>' argument missing; see `offbeat run --help`"],
    [
      ['generate', '--prompt', 'x'],
      "required option '--model <dir>' not specified; see `offbeat generate --help`",
    ],
    [['pretrain', '--out', 'x'], "missing required argument 'config'; see `offbeat pretrain --help`"],
    [['pretrain', 'a.toml'], "required option '--out <dir>' not specified; see `offbeat pretrain --help`"],
  ])('%j', async (args, expected) => {
    expect(await refused(...args)).toContain(expected);
  });
});

describe('run and pretrain refuse what is wrong with the configuration', () => {
  test('before anything is written', async () => {
    const out = join(folder, 'never');
    expect(await refused('run', '--set', 'lanes.count=17', '--out', out)).toBe(
      '--set lanes.count=17: must be a whole number from 1 to 16',
    );
    const file = join(folder, 'wrong.toml');
    writeFileSync(file, '[rollout]\ntemprature = 1\n');
    expect(await refused('run', file, '--out', out)).toBe(
      `${file}: rollout.temprature is not a known key: did you mean rollout.temperature?`,
    );
    expect(await refused('run', `${file}x`, '--out', out)).toBe(
      `${file}x: not found: name a TOML file that exists`,
    );
    expect(await refused('pretrain', file, '--out', out)).toContain(`${file}: rollout is not a known key`);
    expect(existsSync(out)).toBe(false);
  });

  test('a model that is not there', async () => {
    const nowhere = join(folder, 'nowhere');
    expect(await refused('run', '--set', `model.path=${nowhere}`)).toContain(join(nowhere, 'config.json'));
  });
});

describe('generate refuses', () => {
  const generate = (...args: string[]) => refused('generate', '--model', model, ...args);

  test.each([
    [['--temperature', '-1'], '--temperature is -1, must be a number from 0 to 100'],
    [['--temperature', 'warm'], '--temperature is "warm", must be a number from 0 to 100'],
    [['--top-p', '0'], '--top-p is 0, must be a number above 0 and at most 1'],
    [['--top-p', '1.01'], '--top-p is 1.01, must be'],
    [['--top-k', '-2'], '--top-k is -2, must be a whole number from -1'],
    [['--top-k', '1.5'], '--top-k is 1.5, must be'],
    [['--min-p', '2'], '--min-p is 2, must be a number from 0 to 1'],
    [['--n', '0'], '--n is 0, must be a whole number from 1'],
    [['--max-tokens', 'inf'], '--max-tokens is "inf", must be a whole number from 1'],
    [['--max-tokens', 'Infinity'], '--max-tokens is Infinity, must be'],
    [['--seed', ''], '--seed is "", must be a whole number from 0'],
    [['--stop', 'a', '--stop', ''], '--stop[2] is "", must be a text that is not empty'],
    [['--logprobs'], '--logprobs shows in JSON only: add --json'],
  ])('%j', async (args, expected) => {
    expect(await generate('--prompt', '1+1=', ...args)).toContain(expected);
  });

  test('a command without a prompt', async () => {
    expect(await generate()).toBe(
      'no prompt: give one with --prompt TEXT, or many with --prompts FILE.jsonl',
    );
  });

  test('a prompt the model has no room or no tokens for', async () => {
    const { contextTokensMax: context } = TINY;
    // With the token that begins every text it fills the context and leaves no room for an answer.
    expect(await generate('--prompt', '1'.repeat(context - 1))).toContain(
      `prompt 1 has ${context} tokens, the model's context is ${context} `,
    );
    expect(await generate('--prompt', 'one')).toContain('has no id for');
  });

  test('a file of prompts, with the line', async () => {
    const file = join(folder, 'prompts.jsonl');
    for (const [line, shown] of [
      ['{"prompt": 3}', '{\\"prompt\\": 3}'],
      ['{"text": "1+1="}', 'text'],
      ['1+1=', '1+1='],
      ['["1+1="]', '1+1='],
    ] as const) {
      writeFileSync(file, `"1+2="\n\n${line}\n`);
      const message = await generate('--prompts', file);
      expect(message).toContain(`${file}:3: `);
      expect(message).toContain(shown);
      expect(message).toContain('write {"prompt": "some text"} or "some text"');
    }
    writeFileSync(file, '\n \n');
    expect(await generate('--prompts', file)).toContain(`${file}: has no prompts`);
    expect(await generate('--prompts', `${file}x`)).toContain(`${file}x: not found`);
    expect(await generate('--prompts', folder)).toContain(`${folder}: cannot be read (EISDIR)`);
  });

  test('a checkpoint that is missing or damaged, in one line, before a device is opened', async () => {
    const nowhere = join(folder, 'nowhere');
    expect(await refused('generate', '--model', nowhere, '--prompt', '1')).toContain(
      join(nowhere, 'config.json'),
    );
    const broken = await writeTinyModel(join(folder, 'broken'));
    truncateSync(join(broken, 'model.safetensors'), 5000);
    expect(await refused('generate', '--model', broken, '--prompt', '1')).toContain(
      join(broken, 'model.safetensors'),
    );
    rmSync(join(broken, 'model.safetensors'));
    expect(await refused('generate', '--model', broken, '--prompt', '1')).toContain(broken);
  });

  test('an adapter that is not there', async () => {
    const { code, stdout, stderr } = await offbeat(
      'generate',
      '--model',
      model,
      '--prompt',
      '1',
      '--adapter',
      'no such card',
    );
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    // The driver may have its own say on stderr; ours is one line.
    const ours = stderr.split('\n').filter((line) => line.startsWith('offbeat: '));
    expect(ours).toEqual([expect.stringContaining('no adapter named "no such card"')]);
  });
});

test('a run folder is named after the time and the seed', () => {
  expect(defaultOutFolder(7, new Date(2026, 0, 5, 3, 4, 9))).toBe(join('runs', '20260105-030409-seed7'));
});

test('doctor --json', async () => {
  const { code, stdout } = await offbeat('doctor', '--json');
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ works: true, problems: [] });
});
