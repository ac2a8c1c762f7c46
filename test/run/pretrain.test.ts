import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { loadCheckpoint, loadWeights } from '#src/model/checkpoint.js';
import { paramLayout } from '#src/model/layout.js';
import { formatConfig, resolvePretrainConfig } from '#src/run/config.js';
import { pretrain, type PretrainResult } from '#src/run/pretrain.js';
import { offbeat, temporaryFolder } from './runs.js';

const TOML = `
steps = 4
[model]
hidden_size = 24
intermediate_size = 40
layers = 2
heads = 3
kv_heads = 1
head_dim = 8
context_tokens = 48
[optimizer]
learning_rate = 3e-3
warmup_steps = 2
[batch]
sequences = 12
`;
const FILES = [
  'config.json',
  'model.safetensors',
  'pretrain.toml',
  'tokenizer.json',
  'tokenizer_config.json',
];

let root: string;
let toml: string;
beforeAll(() => {
  root = temporaryFolder();
  toml = join(root, 'tiny.toml');
  writeFileSync(toml, TOML);
});

async function make(
  outFolder: string,
  set: readonly string[] = [],
  interrupted = new AbortController().signal,
): Promise<PretrainResult> {
  const silence = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    return await pretrain(resolvePretrainConfig({ file: toml, set }), { outFolder, interrupted });
  } finally {
    silence.mockRestore();
  }
}

async function complaint(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  return error instanceof UserError ? error.message : '';
}

describe('a pre-training', () => {
  let first: string;
  let result: PretrainResult;
  beforeAll(async () => {
    first = join(root, 'first');
    result = await make(first);
  });

  test('makes a checkpoint that loads', async () => {
    expect(readdirSync(first).sort()).toEqual(FILES);
    const { config, tokenizer } = await loadCheckpoint(first);
    expect(config).toMatchObject({ hiddenSize: 24, layers: 2, heads: 3, kvHeads: 1, headDim: 8 });
    expect(tokenizer.vocabSize).toBe(config.vocabSize);
    expect(tokenizer.decode(tokenizer.encode('12+34='))).toBe('12+34=');
    const layout = paramLayout(config, 2 ** 27);
    await expect(loadWeights(first, config, layout)).resolves.toHaveLength(1);
    expect(result.parameters).toBe(
      layout.tensors.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
    );
  });

  test('begins near a uniform guess over the vocabulary', () => {
    expect(result.steps).toBe(4);
    expect(result.loss).toBeGreaterThan(0.8 * Math.log(16));
    expect(result.loss).toBeLessThan(1.2 * Math.log(16));
  });

  test('again is the same, bit for bit', async () => {
    const second = join(root, 'second');
    expect((await make(second)).loss).toBe(result.loss);
    for (const name of FILES) {
      expect(readFileSync(join(second, name)).equals(readFileSync(join(first, name))), name).toBe(true);
    }
  });

  test('is written down beside its model', () => {
    const config = resolvePretrainConfig({ file: toml });
    expect(readFileSync(join(first, 'pretrain.toml'), 'utf8')).toBe(formatConfig(config));
  });

  test('does not overwrite', async () => {
    expect(await complaint(make(first))).toBe(`${first}: not empty: name a new folder with --out`);
    expect(readdirSync(first).sort()).toEqual(FILES);
  });

  test('longer, loses less', async () => {
    const { loss } = await make(join(root, 'longer'), ['steps=60', 'optimizer.warmup_steps=5']);
    expect(loss).toBeLessThan(result.loss - 0.2);
  });
});

describe('nothing is left behind', () => {
  test('by an interrupted one', async () => {
    const folder = join(root, 'interrupted');
    const controller = new AbortController();
    const work = make(folder, ['steps=1000000'], controller.signal);
    setTimeout(() => controller.abort(), 700);
    expect(await complaint(work)).toMatch(/^interrupted after \d+ steps: no checkpoint was written$/);
    expect(existsSync(folder)).toBe(false);
  });

  test('by one interrupted from the keyboard', async () => {
    const run = offbeat(['pretrain', toml, '--out', 'model', '--set', 'steps=1000000'], { cwd: root });
    await run.said(/step 50\//);
    run.kill('SIGINT');
    const { code, stderr } = await run.ended;
    expect(code).toBe(130);
    expect(stderr).toMatch(/^offbeat: interrupted after \d+ steps: no checkpoint was written$/m);
    expect(existsSync(join(root, 'model'))).toBe(false);
  });

  test('in a folder that was there, nor is that taken away', async () => {
    const folder = join(root, 'mine');
    mkdirSync(folder);
    expect(await complaint(make(folder, ['model.context_tokens=8']))).toBe(
      'model.context_tokens is 8, example 1 of the corpus has 29 tokens: raise it',
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  test('where the folder cannot be made', async () => {
    writeFileSync(join(root, 'file'), '');
    expect(await complaint(make(join(root, 'file')))).toMatch(/file: is no folder \(.*\): name a new one/);
    expect(await complaint(make(join(root, 'file', 'below')))).toMatch(
      /below: cannot be made \(.*\): name another/,
    );
    expect(await complaint(make(join(root, 'no', 'such')))).toMatch(
      /such: cannot be made \(.*\): make the folder/,
    );
    expect(existsSync(join(root, 'no'))).toBe(false);
  });

  test('where the task has nothing to imitate', async () => {
    const task = join(import.meta.dirname, 'fixtures/strange-task.mjs');
    expect(await complaint(make(join(root, 'none'), [`task.name=${task}`]))).toContain('has no corpus');
    expect(existsSync(join(root, 'none'))).toBe(false);
  });
});
