import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import { formatConfig, resolveConfig, resolvePretrainConfig } from '#src/run/config.js';
import { editDistance } from '#src/run/config-errors.js';

const PACKAGE = resolve(import.meta.dirname, '../..');
const PRETRAIN = `
steps = 100
[model]
hidden_size = 64
intermediate_size = 128
layers = 2
heads = 4
kv_heads = 2
head_dim = 16
context_tokens = 64
[optimizer]
learning_rate = 2e-3
`;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offbeat-config-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, toml: string): string {
  const file = join(folder, name);
  writeFileSync(file, toml);
  return file;
}

/** The one line a user would read. */
function complaint(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    expect(error.message).not.toContain('\n');
    return error.message;
  }
  throw new Error('nothing was refused');
}

function ofToml(toml: string, set: string[] = []): string {
  const file = write('wrong.toml', toml);
  return complaint(() => resolveConfig({ file, set })).replace(file, 'FILE');
}

function ofSet(...set: string[]): string {
  return complaint(() => resolveConfig({ set }));
}

describe('values', () => {
  test('lanes = 2 is short for lanes.count = 2, in a file and on the command line', () => {
    expect(resolveConfig({ set: ['lanes=2', 'lanes.adapter=llvm'] }).lanes).toMatchObject({
      count: 2,
      adapter: 'llvm',
    });
    const file = join(folder, 'short.toml');
    writeFileSync(file, 'lanes = 3\n');
    expect(resolveConfig({ file }).lanes.count).toBe(3);
    expect(resolveConfig({ file, set: ['lanes.count=4'] }).lanes.count).toBe(4);
    expect(() => resolveConfig({ set: ['lanes=99'] })).toThrow(
      '--set lanes=99: must be a whole number from 1 to 16',
    );
  });

  test('without a file it is the shipped example', () => {
    const config = resolveConfig();
    expect(config.model.path).toBe(join(PACKAGE, 'models/arithmetic-tiny'));
    expect(config).toMatchObject({
      seed: 1,
      steps: 40,
      task: { name: 'arithmetic', options: {} },
      rollout: { promptsPerStep: 16, samplesPerPrompt: 8, topK: 0, topP: 1, minP: 0, stopTokenIds: [] },
      engine: { slots: 128, batchTokens: 512, kvBlocks: 'auto', stepsAhead: 4 },
      algorithm: { clipLow: 0.2, clipHigh: 0.28, klCoefficient: 0, oldLogProbs: 'recorded' },
      lanes: { count: 1, adapter: '', sliceBudgetUs: 4000, inFlightBudgetUs: 8000 },
      scheduler: { policy: 'priority', reserve: [] },
      output: { checkpoint: true },
    });
  });

  test('a file changes what it names, --set changes what the file says, the last one counts', () => {
    const file = write('some.toml', 'steps = 7\n[rollout]\ntemperature = 0.5\nmax_tokens = 9\n');
    const config = resolveConfig({
      file,
      set: ['rollout.max_tokens=11', 'steps=8', 'rollout.max_tokens=12'],
    });
    expect(config.steps).toBe(8);
    expect(config.rollout).toMatchObject({ temperature: 0.5, maxTokens: 12, topP: 1 });
  });

  test('--set reads what TOML can read and takes the rest as a text', () => {
    const set = [
      'rollout.stop_token_ids=[3, 5]',
      'scheduler.reserve=[{lane = 1, from_step = 2, until_step = 4}]',
      'lanes.count=2',
      'lanes.adapter=llvmpipe (LLVM 19)',
      'output.checkpoint=false',
      'task.options.deep_key.inner_key="a=b"',
      'task.options."quoted.key"=-0.5',
    ];
    const config = resolveConfig({ set });
    expect(config.rollout.stopTokenIds).toEqual([3, 5]);
    expect(config.scheduler.reserve).toEqual([{ lane: 1, fromStep: 2, untilStep: 4 }]);
    expect(config.lanes).toMatchObject({ count: 2, adapter: 'llvmpipe (LLVM 19)' });
    expect(config.output.checkpoint).toBe(false);
    // A task's options are its own: their keys stay as they were written.
    expect(config.task.options).toEqual({ deep_key: { inner_key: 'a=b' }, 'quoted.key': -0.5 });
  });

  test('a value of two lines is a text, not two keys', () => {
    expect(resolveConfig({ set: ['lanes.adapter=1\nsteps = 2'] }).lanes.adapter).toBe('1\nsteps = 2');
  });

  test('paths in a file begin at its folder, paths of --set at the current one', () => {
    mkdirSync(join(folder, 'inner'));
    const file = write('inner/paths.toml', '[model]\npath = "../weights"\n[task]\nname = "./my-task.js"\n');
    const fromFile = resolveConfig({ file });
    expect(fromFile.model.path).toBe(join(folder, 'weights'));
    expect(fromFile.task.name).toBe(join(folder, 'inner/my-task.js'));
    const fromSet = resolveConfig({ file, set: ['model.path=weights', 'task.name=../t.mjs'] });
    expect(fromSet.model.path).toBe(resolve('weights'));
    expect(fromSet.task.name).toBe(resolve('../t.mjs'));
    expect(resolveConfig({ file: write('no-path.toml', 'seed = 2') }).model.path).toBe(
      join(PACKAGE, 'models/arithmetic-tiny'),
    );
  });

  test('-1 keeps all tokens, as vLLM writes it too', () => {
    expect(resolveConfig({ set: ['rollout.top_k=-1'] }).rollout.topK).toBe(0);
  });
});

describe('complaints name the place, the key, the value and the remedy', () => {
  test.each([
    ['seed = -1', 'FILE: seed is -1, must be a whole number from 0 to 9007199254740991'],
    ['steps = 2.5', 'FILE: steps is 2.5, must be a whole number from 1 to 1000000'],
    [
      '[rollout]\ntemperature = 0',
      'FILE: rollout.temperature is 0, must be a number above 0 and at most 100',
    ],
    ['[rollout]\ntemperature = inf', 'FILE: rollout.temperature is Infinity, must be a number above 0'],
    ['[rollout]\ntop_p = nan', 'FILE: rollout.top_p is NaN, must be a number above 0 and at most 1'],
    [
      '[rollout]\nsamples_per_prompt = 0',
      'FILE: rollout.samples_per_prompt is 0, must be a whole number from 1',
    ],
    ['[rollout]\nmin_p = "low"', 'FILE: rollout.min_p is "low", must be a number from 0 to 1'],
    ['[optimizer]\nbeta2 = 1', 'FILE: optimizer.beta2 is 1, must be a number from 0 to below 1'],
    ['[algorithm]\nadvantage = "max"', 'FILE: algorithm.advantage is "max", must be "std" or "mean"'],
    ['[scheduler]\npolicy = "best"', 'FILE: scheduler.policy is "best", must be "serial" or "static"'],
    [
      '[engine]\nkv_blocks = "some"',
      'FILE: engine.kv_blocks is "some", must be "auto" or a whole number from 1',
    ],
    ['[output]\ncheckpoint = 1', 'FILE: output.checkpoint is 1, must be true or false'],
    ['rollout = 3', 'FILE: rollout is 3, must be a table of keys'],
    ['[rollout]\nstop_token_ids = [1, -2]', 'FILE: rollout.stop_token_ids[2] is -2, must be a whole number'],
    ['[task.options]\nday = 2024-01-01', 'FILE: task.options.day is 2024-01-01, must be plain data'],
    ['[task.options]\nx = [1, inf]', 'FILE: task.options.x is [1,null], must be plain data'],
    [
      '[[scheduler.reserve]]\nlane = 0',
      'FILE: scheduler.reserve[1].lane is 0, must be a whole number from 1 to 15',
    ],
    [
      '[[scheduler.reserve]]\nlane = 1',
      'FILE: scheduler.reserve[1].from_step is missing, must be a whole number',
    ],
  ])('%j', (toml, expected) => {
    expect(ofToml(toml)).toContain(expected);
  });

  test('out of range on the command line', () => {
    expect(ofSet('lanes.count=17')).toBe('--set lanes.count=17: must be a whole number from 1 to 16');
    expect(ofSet('seed.x=1')).toBe(
      '--set seed.x=1: seed is {"x":1}, must be a whole number from 0 to 9007199254740991',
    );
    expect(ofToml('[lanes]\ncount = 2', ['lanes.count=0'])).toMatch(/^--set lanes\.count=0: must be/);
  });

  test.each([
    ['rollout.temprature=1', 'rollout.temprature is not a known key: did you mean rollout.temperature?'],
    [
      'learning_rate=1',
      'learning_rate is not a known key: did you mean critic.learning_rate or optimizer.learning_rate?',
    ],
    ['optimiser.beta1=0.5', 'optimiser is not a known key: did you mean optimizer?'],
    ['lanes.cuont=1', 'lanes.cuont is not a known key: did you mean lanes.count?'],
    [
      'scheduler.reserve=[{lane=1, form_step=1, until_step=2}]',
      'scheduler.reserve[1].form_step is not a known key: did you mean scheduler.reserve[1].from_step?',
    ],
    ['reward.patience=1', 'reward.patience is not a known key: known here: workers, timeout_ms'],
    ['__proto__.steps=1', '__proto__ is not a known key: known here: seed, steps, model, task'],
  ])('unknown key %s', (set, expected) => {
    expect(ofSet(set)).toContain(`--set ${set}: ${expected}`);
  });

  test('an unknown key of a file', () => {
    expect(ofToml('stpes = 3')).toBe('FILE: stpes is not a known key: did you mean steps?');
  });

  test.each(['steps', '=3', 'a..b=3', 'a b=3', ''])('--set %j is no key and value', (set) => {
    expect(ofSet(set)).toBe(`--set ${set}: no key and value: write it as --set rollout.temperature=0.8`);
  });

  test('a complaint about an argument of two lines has one', () => {
    expect(ofSet('a=1\nb=2')).toContain('--set a=1 b=2: a is not a known key');
  });

  test.each([
    [
      ['engine.slots=600'],
      /^--set engine\.slots=600: engine\.batch_tokens is 512 and engine\.slots is 600: /,
    ],
    [
      ['engine.batch_tokens=64'],
      /engine\.batch_tokens is 64 and engine\.slots is 128: .*raise engine\.batch_tokens/,
    ],
    [
      ['engine.kv_blocks=1'],
      /engine\.kv_blocks is 1 and rollout\.max_tokens is 32: one rollout alone takes 2 blocks/,
    ],
    [['optimizer.micro_batch_tokens=32'], /micro_batch_tokens is 32 and rollout\.max_tokens is 32: /],
    [['lanes.in_flight_budget_us=3999'], /in_flight_budget_us is 3999 and lanes\.slice_budget_us is 4000: /],
    [
      ['lanes.count=2', 'scheduler.reserve=[{lane=2, from_step=1, until_step=2}]'],
      /scheduler\.reserve\[1\]\.lane is 2 and lanes\.count is 2: /,
    ],
    [
      ['lanes.count=2', 'scheduler.reserve=[{lane=1, from_step=3, until_step=3}]'],
      /scheduler\.reserve\[1\]\.until_step is 3 and scheduler\.reserve\[1\]\.from_step is 3: /,
    ],
  ])('%j do not go together', (set, expected) => {
    expect(ofSet(...set)).toMatch(expected);
  });

  test('files that are none', () => {
    const missing = join(folder, 'missing.toml');
    expect(complaint(() => resolveConfig({ file: missing }))).toBe(
      `${missing}: not found: name a TOML file that exists`,
    );
    expect(complaint(() => resolveConfig({ file: folder }))).toBe(`${folder}: is a folder: name a TOML file`);
    expect(ofToml('steps = 3\n[rollout\n')).toMatch(/^FILE:2:\d+: not valid TOML \(.+\): mend this line$/);
    expect(ofToml('seed = 99999999999999999999')).toMatch(/^FILE:1:\d+: not valid TOML \(integer value/);
  });
});

describe('formatConfig', () => {
  const words = ['arithmetic', 'with "quotes"', 'back\\slash', 'line\nbreak', '音', "it's", ''];

  /** Random values for random keys, as --set takes them. */
  function randomSettings(random: Random): string[] {
    const slots = random.int(1, 300);
    const slice = random.int(50, 5000);
    const maxTokens = random.int(1, 200);
    const all = [
      `seed=${random.int(0, Number.MAX_SAFE_INTEGER)}`,
      `rollout.temperature=${random.uniform() * 2 + 1e-9}`,
      `rollout.top_k=${random.int(-1, 500)}`,
      `rollout.top_p=${1 - random.uniform()}`,
      `rollout.stop_token_ids=${JSON.stringify(Array.from({ length: random.int(0, 15) }, () => random.int(0, 999)))}`,
      `engine.kv_blocks=${random.pick(['"auto"', 13 + random.int(0, 99)])}`,
      `algorithm.kl_coefficient=${random.uniform() * 10 ** -random.int(0, 12)}`,
      `algorithm.old_log_probs=${random.pick(['recorded', 'recomputed'])}`,
      `optimizer.epsilon=${10 ** -random.int(1, 300)}`,
      `lanes.adapter=${JSON.stringify(random.pick(words))}`,
      `task.options.word=${JSON.stringify(random.pick(words))}`,
      `task.options.list=[{a_b = ${random.int(0, 9)}, C = [true, ${random.normal()}]}, {}]`,
      `task.options.${JSON.stringify(random.pick(['x.y', 'ä', ' ', 'some_key']))}=[[1, 2], []]`,
      `output.checkpoint=${random.pick([true, false])}`,
    ].filter(() => random.uniform() < 0.6);
    return [
      ...all,
      `rollout.max_tokens=${maxTokens}`,
      `engine.slots=${slots}`,
      `engine.batch_tokens=${slots + random.int(0, 100)}`,
      `lanes.slice_budget_us=${slice}`,
      `lanes.in_flight_budget_us=${slice + random.int(0, 100)}`,
      'lanes.count=4',
      `scheduler.reserve=[${Array.from(
        { length: random.int(0, 3) },
        (_, i) => `{lane=${i + 1}, from_step=${i + 1}, until_step=${i + 1 + random.int(1, 9)}}`,
      ).join(', ')}]`,
    ];
  }

  test('what it writes is read back the same, from anywhere', () => {
    for (let seed = 1; seed <= 100; seed++) {
      const set = randomSettings(new Random(seed));
      const config = resolveConfig({ set });
      const file = write('again.toml', formatConfig(config));
      expect(resolveConfig({ file }), `seed ${seed}: ${set.join(' ')}`).toEqual(config);
    }
  });

  test('it spells out every key, defaults included', () => {
    const toml = formatConfig(resolveConfig());
    for (const key of ['seed = 1', '[rollout]', 'top_k = 0', 'slice_budget_us = 4000', 'epsilon = 1e-8']) {
      expect(toml).toContain(key);
    }
    expect(toml).not.toMatch(/undefined|null|NaN/);
  });

  test('the same for pre-training', () => {
    const config = resolvePretrainConfig({
      file: write('pretrain.toml', PRETRAIN),
      set: ['task.options.digits=3'],
    });
    const file = write('pretrain-again.toml', formatConfig(config));
    expect(resolvePretrainConfig({ file })).toEqual(config);
  });
});

describe('resolvePretrainConfig', () => {
  const ofPretrain = (...set: string[]): string =>
    complaint(() => resolvePretrainConfig({ file: write('pretrain.toml', PRETRAIN), set }));

  test('keys and defaults', () => {
    const config = resolvePretrainConfig({ file: write('pretrain.toml', PRETRAIN) });
    expect(config).toMatchObject({
      seed: 1,
      steps: 100,
      model: { hiddenSize: 64, kvHeads: 2, ropeTheta: 10_000, rmsNormEps: 1e-5, tieWordEmbeddings: true },
      task: { name: 'arithmetic' },
      corpus: { sloppiness: 0 },
      optimizer: { learningRate: 2e-3, learningRateFinal: 0, decay: 'cosine', microBatchTokens: 2048 },
      batch: { sequences: 64 },
    });
  });

  test('the shape has no defaults', () => {
    const file = write('shapeless.toml', PRETRAIN.replace('layers = 2', ''));
    expect(complaint(() => resolvePretrainConfig({ file }))).toBe(
      `${file}: model.layers is missing, must be a whole number from 1 to 1024`,
    );
    const empty = write('empty.toml', 'steps = 1');
    expect(complaint(() => resolvePretrainConfig({ file: empty }))).toContain(
      'model is missing, must be a table',
    );
  });

  test('shapes that do not work', () => {
    expect(ofPretrain('model.kv_heads=3')).toContain('model.heads is 4 and model.kv_heads is 3: ');
    expect(ofPretrain('model.head_dim=7')).toBe(
      '--set model.head_dim=7: must be an even whole number from 2 to 1024',
    );
    expect(ofPretrain('optimizer.learning_rate_final=0.1')).toContain(
      'learning_rate_final is 0.1 and optimizer.',
    );
    expect(ofPretrain('corpus.sloppines=0.1')).toContain('did you mean corpus.sloppiness?');
  });
});

describe('editDistance', () => {
  test.each([
    ['', '', 0],
    ['', 'abc', 3],
    ['kitten', 'sitting', 3],
    ['count', 'cuont', 1],
    ['temprature', 'temperature', 1],
    ['ca', 'abc', 3],
  ])('%j to %j', (from, to, expected) => {
    expect(editDistance(from, to)).toBe(expected);
    expect(editDistance(to, from)).toBe(expected);
  });

  test('k random edits are never more than k apart', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new Random(seed);
      const word = Array.from({ length: random.int(1, 12) }, () => random.pick(['a', 'b', 'c'])).join('');
      let edited = word;
      const edits = random.int(0, 4);
      for (let edit = 0; edit < edits; edit++) {
        const at = random.int(0, edited.length);
        const cut = random.int(0, 1);
        edited = edited.slice(0, at) + random.pick(['', 'a', 'b', 'c']) + edited.slice(at + cut);
      }
      expect(editDistance(word, edited), `seed ${seed}: ${word} → ${edited}`).toBeLessThanOrEqual(edits);
    }
  });
});
