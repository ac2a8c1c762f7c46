import { beforeAll, expect, it } from 'vitest';
import type { Op } from '#src/gpu/ops.js';
import { runProgram, submitProgram } from '#src/gpu/slice-encoder.js';
import { KEYS_MIN } from '#src/kernels/attention-cut.js';
import { shaders } from '#src/kernels/shaders.gen.js';
import type { ShaderName } from '#src/kernels/kernels.js';
import { THREADS, whole, type Splitter } from '#src/kernels/launch.js';
import { laneRows } from '#src/kernels/transformer.js';
import { assert, at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import type { Critic } from '#src/train/critic.js';
import type { CriticResult } from '#src/train/critic-results.js';
import type { Job } from '#src/train/jobs.js';
import type { Objective } from '#src/train/loss-head.js';
import type { TrainResult } from '#src/train/results.js';
import type { Trainer } from '#src/train/trainer.js';
import { expectSameOutcomes, randomRequests, TestEngine, type Outcomes } from '../engine/fixtures.js';
import { expectSameBits, pieces } from '../helpers/arrays.js';
import { readF32, useGpu } from '../helpers/gpu.js';
import { makeCritic, randomCritic, valueRollouts } from './critic-fixtures.js';
import { makeTrainer, randomModel, randomRollouts, type Model } from './fixtures.js';

// Whatever a launcher dispatches, it cuts when it is asked to: nothing of a generation step, a training step or a critic's is
// one piece that a lane would have to sit through. And cutting never changes a bit.

const device = useGpu();

/** Every direction in which a kernel can be cut is longer than its unit: 16 rows, 64 columns, 256 terms, 64 keys. */
const CONFIG: ModelConfig = {
  hiddenSize: 66,
  intermediateSize: 270,
  layers: 1,
  heads: 6,
  kvHeads: 3,
  headDim: 12,
  vocabSize: 530,
  contextTokensMax: 160,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  tieWordEmbeddings: true,
  bosTokenId: null,
  eosTokenIds: [],
};
/** Together more rows than a micro-batch has, and contexts of more keys than a piece. */
const LENGTHS = [90, 17, 40, 5];
const ROWS_MAX = 110;
const OBJECTIVES: readonly Objective[] = [
  { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.3, klCoefficient: 0.05 },
  { algorithm: 'crossEntropy' },
];

/** The most work of one dispatch of each kernel, when it is cut as far as it goes. */
const UNIT_WORK: Readonly<Record<ShaderName, number>> = {
  adamw_update: THREADS,
  attention_grad_dot: CONFIG.heads * CONFIG.headDim,
  attention_grad_kv: KEYS_MIN * CONFIG.heads * CONFIG.headDim,
  attention_grad_q: KEYS_MIN * CONFIG.heads * CONFIG.headDim,
  attention_paged: KEYS_MIN * CONFIG.heads * CONFIG.headDim,
  // Adds up a fixed number of partial sums, whatever the model.
  clip_scale: 4096 + 64,
  embed_rows: CONFIG.hiddenSize,
  // A token's rows are one sum.
  embed_rows_grad: THREADS * ROWS_MAX,
  matmul_nn: 16 * 256 * 64,
  matmul_nt: 16 * 256 * 64,
  // The rows are what is summed over.
  matmul_tn: 16 * 64 * ROWS_MAX,
  policy_gradient: CONFIG.vocabSize,
  rmsnorm_gain_grad: THREADS * ROWS_MAX,
  rmsnorm_row: laneRows(CONFIG.hiddenSize) * CONFIG.hiddenSize,
  rmsnorm_row_grad: laneRows(CONFIG.hiddenSize) * CONFIG.hiddenSize,
  rope_grad: (CONFIG.heads + CONFIG.kvHeads) * CONFIG.headDim,
  rope_kv_write: (CONFIG.heads + 2 * CONFIG.kvHeads) * CONFIG.headDim,
  sample_row: laneRows(CONFIG.vocabSize) * CONFIG.vocabSize,
  silu_gate: CONFIG.intermediateSize,
  silu_gate_grad: CONFIG.intermediateSize,
  sum_squares: 64,
  value_loss: THREADS,
  value_row: laneRows(CONFIG.hiddenSize) * CONFIG.hiddenSize,
  value_row_grad: CONFIG.hiddenSize,
  // The rows are what is summed over.
  value_weight_grad: THREADS * ROWS_MAX,
};
const NOT_CUT: ReadonlySet<ShaderName> = new Set(['clip_scale']);

/** What was dispatched of each shader. */
class Account {
  readonly dispatches = new Map<string, number>();
  readonly work = new Map<string, number>();
  readonly largest = new Map<string, number>();

  /** The same ops, counted as they go by. */
  *count(program: Iterable<Op>): Generator<Op, void, void> {
    for (const op of program) {
      if (op.kind === 'dispatch') {
        const name = at(op.kernel.split('('), 0);
        this.dispatches.set(name, (this.dispatches.get(name) ?? 0) + 1);
        this.work.set(name, (this.work.get(name) ?? 0) + op.work);
        this.largest.set(name, Math.max(this.largest.get(name) ?? 0, op.work));
      }
      yield op;
    }
  }
}

interface Trained<T> {
  readonly result: T;
  /** Weights, gradients and moments. */
  readonly state: readonly Float32Array<ArrayBuffer>[];
  readonly account: Account;
}

const random = new Random(41);
const model: Model = randomModel(CONFIG, random, 2 ** 18);
const batch = randomRollouts(random, model, LENGTHS);
const criticModel = randomCritic(CONFIG, random.fork('critic'), 2 ** 18);
// Every position but the last: more head rows in a micro-batch than a workgroup has threads.
const valueBatch = valueRollouts(random.fork('values'), criticModel, LENGTHS).map((sequence) => ({
  ...sequence,
  weights: sequence.weights.map((_, t) => (t + 1 < sequence.tokens.length ? 0.01 : 0)),
}));
const requests = [110, 17, 3].flatMap((promptTokens, index) =>
  randomRequests(random.fork(index), model, 8).map((request, i) => ({
    ...request,
    id: 10 * index + i,
    promptTokenIds: Array.from({ length: promptTokens }, () => random.int(0, CONFIG.vocabSize - 1)),
    tokensMax: 4,
  })),
);

async function train(split: Splitter, objective: Objective): Promise<Trained<TrainResult>> {
  const trainer = await makeTrainer(device, model, { rowsMax: ROWS_MAX });
  return trained(trainer, trainer.step(batch, split, { objective, learningRate: 1e-2 }));
}

async function trainCritic(split: Splitter): Promise<Trained<CriticResult>> {
  const critic = await makeCritic(device, criticModel, { rowsMax: ROWS_MAX });
  return trained(critic, critic.step(valueBatch, split, { clip: 0.2, learningRate: 1e-2 }));
}

/** Runs the step, and says what it left behind. */
async function trained<T>(learner: Trainer | Critic, job: Job<T>): Promise<Trained<T>> {
  const { gpu } = device;
  const account = new Account();
  await runProgram(gpu, account.count(job.program));
  const result = await job.result;
  const sets = [learner.weights, learner.gradients, ...learner.optimizer.moments];
  const buckets = sets.flatMap((set) => set.buckets);
  const state = await Promise.all(buckets.map((bucket) => readF32(gpu, bucket)));
  learner.destroy();
  return { result, state, account };
}

async function generate(split: Splitter): Promise<{ outcomes: Outcomes; account: Account }> {
  const account = new Account();
  const options = {
    slots: requests.length,
    batchTokensMax: ROWS_MAX,
    kvBlocks: 256,
    contextTokensMax: CONFIG.contextTokensMax,
  };
  const engine = await TestEngine.load(device, model, options, split);
  engine.add(requests);
  await engine.run(
    () => undefined,
    (gpu, program) => {
      submitProgram(gpu, account.count(program));
    },
  );
  engine.destroy();
  return { outcomes: engine.outcomes, account };
}

function expectSameTraining<T>(actual: Trained<T>, expected: Trained<T>, label: string): void {
  actual.state.forEach((bucket, i) => expectSameBits(bucket, at(expected.state, i), `${label}: bucket ${i}`));
  expect(actual.result, label).toEqual(expected.result);
}

/** As many pieces as there are, one, or anything in between, for each dispatch anew. */
function randomPieces(seed: number): Splitter {
  const stream = new Random(seed).fork('pieces');
  return { pieces: () => stream.pick([1, 2, 3, stream.int(4, 40), 65_536, Infinity]) };
}

let uncutTraining: readonly Trained<TrainResult>[];
let uncutCritic: Trained<CriticResult>;
let generated: Awaited<ReturnType<typeof generate>>;

beforeAll(async () => {
  uncutTraining = [await train(whole, at(OBJECTIVES, 0)), await train(whole, at(OBJECTIVES, 1))];
  uncutCritic = await trainCritic(whole);
  generated = await generate(whole);
});

const SPLITTERS: readonly (readonly [string, () => Splitter])[] = [
  ['as many pieces as there are', () => pieces(Infinity)],
  ['65536 pieces', () => pieces(65_536)],
  ...[1, 2, 3].map((seed) => [`random pieces, seed ${seed}`, () => randomPieces(seed)] as const),
];

it.each(SPLITTERS)(
  'training steps, of a critic too, and generation give the same bits in %s',
  async (label, split) => {
    for (const [i, objective] of OBJECTIVES.entries()) {
      expectSameTraining(
        await train(split(), objective),
        at(uncutTraining, i),
        `${objective.algorithm} in ${label}`,
      );
    }
    expectSameTraining(await trainCritic(split()), uncutCritic, `a critic's step in ${label}`);
    const { outcomes } = await generate(split());
    expectSameOutcomes(outcomes, generated.outcomes, requests, `generation in ${label}`);
  },
);

it('every kernel is cut, down to its unit, and nothing is left out or done twice', async () => {
  const most = pieces(Infinity);
  const cutUp = [await train(most, at(OBJECTIVES, 0)), await trainCritic(most), await generate(most)];
  const uncut = [at(uncutTraining, 0), uncutCritic, generated];
  const seen = new Set<string>();
  for (const [i, { account }] of cutUp.entries()) {
    const once = at(uncut, i).account;
    expect([...account.work.keys()].sort()).toEqual([...once.work.keys()].sort());
    for (const [name, work] of account.work) {
      assert(isShader(name), `no shader ${name}`);
      seen.add(name);
      expect(account.largest.get(name), name).toBeLessThanOrEqual(UNIT_WORK[name]);
      expect(work / (once.work.get(name) ?? NaN), `${name}: work of all pieces`).toBeCloseTo(1, 9);
      if (NOT_CUT.has(name)) continue;
      expect(once.largest.get(name), `${name} whole`).toBeGreaterThan(account.largest.get(name) ?? NaN);
      expect(account.dispatches.get(name), name).toBeGreaterThan(once.dispatches.get(name) ?? NaN);
    }
  }
  expect([...seen].sort(), 'every shader takes part').toEqual(Object.keys(shaders).sort());
});

function isShader(name: string): name is ShaderName {
  return name in shaders;
}
