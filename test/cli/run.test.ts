import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { resolveConfig } from '#src/run/config.js';
import { ended, offbeat, start, type Running } from './offbeat.js';
import { writeTinyModel } from './tiny-model.js';

const PRETRAIN = `
seed = 3
steps = 3
[model]
hidden_size = 16
intermediate_size = 24
layers = 1
heads = 2
kv_heads = 1
head_dim = 8
context_tokens = 48
[optimizer]
learning_rate = 1e-3
[batch]
sequences = 8
`;

let folder: string;
let small: string[];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-run-'));
  const model = await writeTinyModel(join(folder, 'tiny'));
  const keys = {
    'model.path': model,
    steps: 2,
    'rollout.prompts_per_step': 2,
    'rollout.samples_per_prompt': 4,
    'rollout.max_tokens': 16,
    'evaluation.heldout_prompts': 8,
    'engine.slots': 16,
  };
  small = Object.entries(keys).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
});
afterAll(() => rmSync(folder, { recursive: true }));

function readJson(...path: string[]): unknown {
  return JSON.parse(readFileSync(join(folder, ...path), 'utf8'));
}

/** Prompt and tokens of each rollout of step 1, whose weights no timing can change. */
function firstRollouts(name: string): unknown[] {
  const records = readFileSync(join(folder, name, 'rollouts.jsonl'), 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as { step: number; id: number; prompt: string; token_ids: number[] });
  return records
    .filter(({ step }) => step === 1)
    .sort((a, b) => a.id - b.id)
    .map(({ prompt, token_ids }) => ({ prompt, token_ids }));
}

/** Resolves once stderr has held the text, or the process is over. */
function seen(child: Running, text: string): Promise<void> {
  let stderr = '';
  return new Promise((resolveSeen) => {
    child.once('close', () => resolveSeen());
    child.stderr.on('data', (chunk: string) => {
      stderr += chunk;
      if (stderr.includes(text)) resolveSeen();
    });
  });
}

describe('run', () => {
  test('results go to stdout, all files to the run folder, and its config runs again just as it was', async () => {
    const out = join(folder, 'first');
    const first = await offbeat('run', ...small, '--out', out);
    expect(first.code, first.stderr).toBe(0);
    expect(first.stdout).toMatch(/^reward +\d/);
    expect(first.stdout).toContain(`report        ${join(out, 'report.html')}\n`);
    expect(first.stdout).not.toContain('step 1/2');
    expect(first.stderr).toContain('step 1/2');
    const files = [
      'config.toml',
      'metrics.jsonl',
      'report.html',
      'rollouts.jsonl',
      'summary.json',
      'trace.json',
    ];
    expect(readdirSync(out)).toEqual(expect.arrayContaining([...files, 'model']));
    expect(readJson('first', 'summary.json')).toMatchObject({ seed: 1, steps: 2 });
    const config = join(out, 'config.toml');
    expect(resolveConfig({ file: config })).toMatchObject({ steps: 2, rollout: { maxTokens: 16 } });

    const again = await offbeat('run', config, '--out', join(folder, 'again'));
    expect(again.code, again.stderr).toBe(0);
    expect(readFileSync(join(folder, 'again', 'config.toml'), 'utf8')).toBe(readFileSync(config, 'utf8'));
    expect(firstRollouts('again')).toEqual(firstRollouts('first'));
    expect(firstRollouts('first')).toHaveLength(8);
  });

  test('a run folder that cannot be one is left as it is', async () => {
    const taken = join(folder, 'taken');
    mkdirSync(taken);
    const file = join(taken, 'mine.txt');
    writeFileSync(file, 'mine');
    for (const [out, why] of [
      [taken, 'is not empty'],
      [file, ''],
      [join(file, 'inner'), ''],
    ] as const) {
      const { code, stdout, stderr } = await offbeat('run', ...small, '--out', out);
      expect({ code, stdout }, stderr).toEqual({ code: 2, stdout: '' });
      const last = stderr.trimEnd().split('\n').at(-1) ?? '';
      expect(last).toMatch(/^offbeat: run folder .*--out$/);
      expect(last).toContain(why);
      expect(last).toContain(out);
    }
    expect(readdirSync(taken)).toEqual(['mine.txt']);
    expect(readFileSync(file, 'utf8')).toBe('mine');
  });

  test.skipIf(process.platform === 'win32')('Ctrl-C ends it with all files written and 130', async () => {
    const out = join(folder, 'interrupted');
    const child = start(['run', ...small, '--set', 'steps=5000', '--out', out]);
    const end = ended(child);
    await seen(child, 'step 2/5000');
    child.kill('SIGINT');
    const { code, stdout, stderr } = await end;
    expect(code, stderr).toBe(130);
    expect(stdout).toMatch(/^reward/);
    const { steps } = readJson('interrupted', 'summary.json') as { steps: number };
    expect(steps).toBeGreaterThanOrEqual(2);
    expect(steps).toBeLessThan(5000);
    for (const file of ['trace.json', 'report.html']) expect(existsSync(join(out, file))).toBe(true);
  });
});

describe('pretrain', () => {
  test('makes a checkpoint that generate reads, the same each time', async () => {
    const file = join(folder, 'pretrain.toml');
    writeFileSync(file, PRETRAIN);
    const weights: Buffer[] = [];
    for (const name of ['model-a', 'model-b']) {
      const { code, stdout, stderr } = await offbeat('pretrain', file, '--out', join(folder, name));
      expect(code, stderr).toBe(0);
      expect(stdout).toMatch(/^model .*\nloss +\d+\.\d{4} .*\nran +3 steps .*, seed 3\n$/);
      weights.push(readFileSync(join(folder, name, 'model.safetensors')));
    }
    expect(weights[0]?.equals(weights[1] ?? Buffer.alloc(0))).toBe(true);
    const args = ['--prompt', '12+34=', '--max-tokens', '5', '--ignore-eos', '--json'];
    const { code, stdout } = await offbeat('generate', '--model', join(folder, 'model-a'), ...args);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ prompt: '12+34=', finish_reason: 'length' });
  });

  test.skipIf(process.platform === 'win32')('Ctrl-C says that there is no checkpoint, and 130', async () => {
    const file = join(folder, 'pretrain-long.toml');
    writeFileSync(file, PRETRAIN.replace('steps = 3', 'steps = 100000'));
    const out = join(folder, 'model-c');
    const child = start(['pretrain', file, '--out', out]);
    const end = ended(child);
    await seen(child, 'training');
    child.kill('SIGINT');
    const { code, stdout, stderr } = await end;
    expect({ code, stdout }, stderr).toEqual({ code: 130, stdout: '' });
    expect(stderr).toMatch(/\noffbeat: interrupted after \d+ steps: no checkpoint was written\n$/);
    expect(existsSync(join(out, 'model.safetensors'))).toBe(false);
  });
});
