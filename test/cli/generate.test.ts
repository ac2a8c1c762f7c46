import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadCheckpoint, loadWeights } from '#src/model/checkpoint.js';
import { paramLayout } from '#src/model/layout.js';
import { fromBuckets } from '../oracle/params.js';
import { forward } from '../oracle/transformer.js';
import { ended, offbeat, start, startNode, type Running } from './offbeat.js';
import { TINY, writeTinyModel } from './tiny-model.js';

const STORIES = resolve(import.meta.dirname, '../../../shared/models/stories260K');
const STORY =
  'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.';
const PROMPT = 'Once upon a time';
const EOS = 2;

let folder: string;
let tiny: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-generate-'));
  tiny = await writeTinyModel(join(folder, 'tiny'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** One line of `--json`. */
interface Line {
  readonly prompt: string;
  readonly text: string;
  readonly prompt_token_ids: number[];
  readonly token_ids: number[];
  readonly logprobs: number[] | null;
  readonly finish_reason: string;
}

function parseLines(stdout: string): Line[] {
  return stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}

async function lines(model: string, ...args: string[]): Promise<Line[]> {
  const { code, stdout, stderr } = await offbeat('generate', '--model', model, '--json', ...args);
  expect(code, stderr).toBe(0);
  return parseLines(stdout);
}

async function text(model: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await offbeat('generate', '--model', model, ...args);
  expect(code, stderr).toBe(0);
  return stdout;
}

describe.skipIf(!existsSync(STORIES))('a real checkpoint', () => {
  test('greedy, it tells the story others know it tells', async () => {
    const stdout = await text(STORIES, '--prompt', PROMPT, '--temperature', '0', '--max-tokens', '60');
    expect(stdout.slice(0, STORY.length)).toBe(STORY);
    expect(stdout.endsWith('\n')).toBe(true);
  });

  test('log-probabilities are those of a float64 forward pass, whatever was sampled from', async () => {
    const sampled = ['--temperature', '0.8', '--top-p', '0.9', '--n', '3', '--seed', '11'];
    const greedy = ['--temperature', '0'];
    const common = ['--prompt', PROMPT, '--max-tokens', '64', '--logprobs', '--ignore-eos'];
    const all = [
      ...(await lines(STORIES, ...common, ...sampled)),
      ...(await lines(STORIES, ...common, ...greedy)),
    ];
    expect(all).toHaveLength(4);
    const { config } = await loadCheckpoint(STORIES);
    const layout = paramLayout(config, 2 ** 27);
    const params = fromBuckets(layout, await loadWeights(STORIES, config, layout));
    for (const { prompt_token_ids: prompt, token_ids: tokens, logprobs } of all) {
      expect(logprobs).toHaveLength(tokens.length);
      const { logits } = forward(config, params, [...prompt, ...tokens]);
      tokens.forEach((token, index) => {
        const row = logits
          .subarray((prompt.length - 1 + index) * config.vocabSize)
          .subarray(0, config.vocabSize);
        const largest = Math.max(...row);
        const total = row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
        const expected = (row[token] ?? NaN) - largest - Math.log(total);
        expect(Math.abs((logprobs?.[index] ?? NaN) - expected), `token ${index}`).toBeLessThan(1e-4);
      });
    }
  });

  test('a stop text ends it in the middle of a token, and across tokens', async () => {
    const common = ['--prompt', PROMPT, '--temperature', '0', '--max-tokens', '40'];
    const [whole] = await lines(STORIES, ...common);
    const [cut] = await lines(
      STORIES,
      ...common,
      '--stop',
      'nowhere',
      '--stop',
      'Lily. Sh',
      '--stop',
      'loved',
    );
    expect(cut).toMatchObject({
      text: ', there was a little girl named ',
      finish_reason: 'stop',
      logprobs: null,
    });
    // The tokens end with the one that completed the stop text.
    const kept = cut?.token_ids.length ?? 0;
    expect(cut?.token_ids).toEqual(whole?.token_ids.slice(0, kept));
    expect(kept).toBeLessThan(40);
    expect(await text(STORIES, ...common, '--stop', 'Lily. Sh')).toBe(`${PROMPT}${cut?.text}\n`);
  });

  test('the text on a terminal is the text of the JSON', async () => {
    const args = ['--prompt', PROMPT, '--max-tokens', '50', '--seed', '3'];
    const [line] = await lines(STORIES, ...args);
    expect(await text(STORIES, ...args)).toBe(`${PROMPT}${line?.text}\n`);
  });
});

describe('sampling', () => {
  test('a completion does not depend on how many there are', async () => {
    const args = ['--prompt', '12+34=', '--max-tokens', '20', '--logprobs', '--seed', '9'];
    const many = await lines(tiny, ...args, '--n', '150');
    expect(many).toHaveLength(150);
    expect(await lines(tiny, ...args, '--n', '3')).toEqual(many.slice(0, 3));
    expect(new Set(many.map((line) => line.text)).size).toBeGreaterThan(100);
    const others = await lines(tiny, ...args.slice(0, -1), '10', '--n', '3');
    expect(others.map((line) => line.token_ids)).not.toEqual(many.slice(0, 3).map((line) => line.token_ids));
  });

  test('many prompts come out in their order, whichever ends first', async () => {
    const file = join(folder, 'prompts.jsonl');
    const prompts = Array.from({ length: 20 }, (_, index) => `${index}+${index}=`);
    const written = prompts.map((prompt, index) =>
      JSON.stringify(index % 2 === 0 ? prompt : { prompt, other: 1 }),
    );
    writeFileSync(file, `${written.join('\r\n')}\n\n`);
    const all = await lines(tiny, '--prompts', file, '--prompt', '7=', '--n', '2', '--max-tokens', '30');
    expect(all.map((line) => line.prompt)).toEqual(['7=', ...prompts].flatMap((prompt) => [prompt, prompt]));
    const { stdout, stderr } = await offbeat(
      'generate',
      '--model',
      tiny,
      '--prompts',
      file,
      '--max-tokens',
      '4',
    );
    expect(
      stdout
        .split('\n')
        .slice(0, -1)
        .map((line, index) => line.startsWith(prompts[index] ?? '-')),
    ).toEqual(prompts.map(() => true));
    const headers = stderr.split('\n').filter((line) => line.startsWith('-- '));
    expect(headers).toHaveLength(20);
    expect(headers[19]).toMatch(/^-- prompt 20\/20: \d tokens, (stop|length)$/);
  });

  test('end-of-sequence ends the text and is the last of the tokens; --ignore-eos goes on', async () => {
    const args = ['--prompt', '1+1=', '--max-tokens', '30', '--n', '40', '--logprobs'];
    const stopped = await lines(tiny, ...args);
    const ignored = await lines(tiny, ...args, '--ignore-eos');
    expect(stopped.filter((line) => line.finish_reason === 'stop').length).toBeGreaterThan(10);
    stopped.forEach(({ token_ids: tokens, text: written, finish_reason: reason, logprobs }, index) => {
      expect(reason).toBe(tokens.at(-1) === EOS ? 'stop' : 'length');
      expect(tokens.slice(0, -1)).not.toContain(EOS);
      expect(logprobs).toHaveLength(tokens.length);
      // Special tokens (id below 3) have no text; every other token is one character.
      expect(written).toHaveLength(tokens.filter((token) => token > EOS).length);
      const other = ignored[index];
      expect(other).toMatchObject({ finish_reason: 'length' });
      expect(other?.token_ids).toHaveLength(30);
      expect(other?.token_ids.slice(0, tokens.length)).toEqual(tokens);
    });
  });

  test('the context ends it where max tokens would not', async () => {
    const [line] = await lines(tiny, '--prompt', '1+1=', '--max-tokens', '5000', '--ignore-eos');
    expect(line?.finish_reason).toBe('length');
    expect((line?.prompt_token_ids.length ?? 0) + (line?.token_ids.length ?? 0)).toBe(TINY.contextTokensMax);
  });

  test('top-k 1 is greedy', async () => {
    const args = ['--prompt', '1+1=', '--max-tokens', '20', '--ignore-eos'];
    const [greedy] = await lines(tiny, ...args, '--temperature', '0');
    const [filtered] = await lines(tiny, ...args, '--top-k', '1', '--seed', '4');
    expect(filtered?.token_ids).toEqual(greedy?.token_ids);
  });
});

describe.skipIf(!existsSync(STORIES) || process.platform === 'win32')('ending early', () => {
  const GREEDY = [
    'generate',
    '--model',
    STORIES,
    '--temperature',
    '0',
    '--max-tokens',
    '500',
    '--ignore-eos',
  ];

  /** Resolves once there is something on stdout. */
  function firstOutput(child: Running): Promise<void> {
    return new Promise((resolveFirst) => child.stdout.once('data', () => resolveFirst()));
  }

  test('Ctrl-C hands out what there is and exits with 130', async () => {
    const file = join(folder, 'two.jsonl');
    writeFileSync(file, `"${PROMPT}"\n"A dog"\n`);
    // The first soon comes to a red ball, the second never does.
    const child = start([...GREEDY, '--prompts', file, '--json', '--stop', 'red ball']);
    const end = ended(child);
    await Promise.race([firstOutput(child), end]);
    child.kill('SIGINT');
    const { code, stdout, stderr } = await end;
    expect(code, stderr).toBe(130);
    const [first, second, ...others] = parseLines(stdout);
    expect(first?.finish_reason).toBe('stop');
    expect(second?.finish_reason).toBe('abort');
    expect(second?.text).toMatch(/^ was a little girl/);
    expect(second?.token_ids.length).toBeLessThan(490);
    expect(others).toEqual([]);
  });

  test('a second Ctrl-C ends it at once, whatever the device is doing', async () => {
    const child = startNode([join(import.meta.dirname, 'fixtures/deaf.mjs'), STORIES]);
    const end = ended(child);
    await Promise.race([firstOutput(child), end]);
    child.kill('SIGINT');
    await Promise.race([firstOutput(child), end]);
    child.kill('SIGINT');
    const { signal, stdout, stderr } = await end;
    // Which a shell reports as 130.
    expect(signal, stderr).toBe('SIGINT');
    expect(stdout).toBe('begunaborted');
    expect(stderr).not.toMatch(/Error|abort|stack/i);
  });

  test('a reader that goes away ends it quietly', async () => {
    const child = start([...GREEDY, '--prompt', PROMPT]);
    const end = ended(child);
    await Promise.race([firstOutput(child), end]);
    child.stdout.destroy();
    const { code, stderr } = await end;
    expect(code, stderr).toBe(0);
    expect(stderr).not.toMatch(/EPIPE|Error/);
  });
});
