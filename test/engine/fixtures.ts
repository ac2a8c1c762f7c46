import type { EngineUpdate, KvOnPreempt } from '#src/engine/engine.js';
import {
  noTokens,
  type FinishReason,
  type GeneratedTokens,
  type SequenceRequest,
} from '#src/engine/sequence.js';
import { WebGpuEngine, type EngineOptions } from '#src/engine/webgpu-engine.js';
import type { Program } from '#src/gpu/ops.js';
import { runProgram, submitProgram } from '#src/gpu/slice-encoder.js';
import type { Gpu } from '#src/gpu/device.js';
import { whole, type Splitter } from '#src/kernels/launch.js';
import { assert, at } from '#src/lib/assert.js';
import { rolloutKey, type Random } from '#src/lib/prng.js';
import type { Buckets } from '#src/model/layout.js';
import type { KvCounts } from '#src/telemetry/records.js';
import type { TestGpu } from '../helpers/gpu.js';
import { randomTokens } from '../oracle/fixtures.js';
import type { SamplingParams } from '../oracle/sampling.js';
import type { Model } from '../train/fixtures.js';

/** What a sequence came to, as its owner hears of it: pieced together from the updates. */
export interface Outcome extends GeneratedTokens {
  reason: FinishReason | null;
}

/** Pieces outcomes together from an engine's updates. */
export class Outcomes {
  readonly byId = new Map<number, Outcome>();

  readonly receive = (update: EngineUpdate): void => {
    update.ids.forEach((id, i) => {
      const outcome = this.#of(id);
      assert(outcome.reason === null, `sequence ${id} got a token after its end`);
      outcome.tokenIds.push(at(update.tokenIds, i));
      outcome.logprobs.push(at(update.logprobs, i));
      outcome.rawLogprobs.push(at(update.rawLogprobs, i));
      outcome.versions.push(update.version);
    });
    for (const { id, reason } of update.finished) {
      assert(this.#of(id).reason === null, `sequence ${id} finished twice`);
      this.#of(id).reason = reason;
    }
  };

  get(id: number): Outcome {
    const outcome = this.byId.get(id);
    assert(outcome !== undefined, `nothing was heard of sequence ${id}`);
    return outcome;
  }

  #of(id: number): Outcome {
    let outcome = this.byId.get(id);
    if (outcome === undefined) this.byId.set(id, (outcome = { ...noTokens(), reason: null }));
    return outcome;
  }
}

/** The filters of the bit-exactness promise: temperature 1 with each of them, all together, hot, cold and greedy. */
export const SAMPLINGS: readonly SamplingParams[] = [
  { temperature: 1, topK: 0, topP: 1, minP: 0 },
  { temperature: 1, topK: 7, topP: 1, minP: 0 },
  { temperature: 1, topK: 0, topP: 0.85, minP: 0 },
  { temperature: 1, topK: 0, topP: 1, minP: 0.08 },
  { temperature: 1, topK: 12, topP: 0.9, minP: 0.02 },
  { temperature: 1.4, topK: 0, topP: 0.95, minP: 0 },
  { temperature: 0.6, topK: 20, topP: 1, minP: 0 },
  { temperature: 0, topK: 0, topP: 1, minP: 0 },
];

/** Requests of all lengths and samplings; half of them may stop early on one of several ids. */
export function randomRequests(random: Random, model: Model, count: number): SequenceRequest[] {
  const { vocabSize, contextTokensMax } = model.config;
  return Array.from({ length: count }, (_, index) => {
    const promptTokens = random.pick([1, 2, random.int(3, 14), 15, 16, 17, random.int(18, 40)]);
    const room = contextTokensMax - promptTokens + 1;
    const stops = random.uniform() < 0.5 ? randomTokens(random, random.pick([2, 16]), vocabSize) : [];
    return {
      id: 100 + index,
      promptTokenIds: randomTokens(random, promptTokens, vocabSize),
      generated: noTokens(),
      tokensMax: Math.min(room, random.pick([1, 2, random.int(3, 12), random.int(13, 24)])),
      sampling: at(SAMPLINGS, index % SAMPLINGS.length),
      key: rolloutKey(7, `task ${random.int(0, 9)}`, index),
      stopTokenIds: stops,
    };
  });
}

export const SMALL: EngineOptions = {
  slots: 4,
  batchTokensMax: 64,
  kvBlocks: 24,
  contextTokensMax: 64,
  stepsAheadMax: 3,
};

/** Hands a program to the device. */
export type Submit = (gpu: Gpu, program: Program) => void;

/** As few submits as host writes allow. */
export const atOnce: Submit = submitProgram;

/** An engine with weights, run by hand. */
export class TestEngine {
  readonly outcomes = new Outcomes();
  readonly engine: WebGpuEngine;

  constructor(
    private readonly device: TestGpu,
    model: Model,
    options: Partial<EngineOptions> = {},
    split: Splitter = whole,
  ) {
    const all = { ...SMALL, ...options };
    const { config, layout } = model;
    this.engine = new WebGpuEngine(device.kernels, config, layout, all, split, this.outcomes.receive);
  }

  static async load(
    device: TestGpu,
    model: Model,
    options: Partial<EngineOptions> = {},
    split: Splitter = whole,
  ): Promise<TestEngine> {
    const made = new TestEngine(device, model, options, split);
    await made.loadWeights(model.buckets, 0);
    return made;
  }

  async loadWeights(buckets: Buckets, version: number): Promise<void> {
    await runProgram(this.device.gpu, this.engine.loadWeights(buckets, version));
  }

  add(requests: readonly SequenceRequest[]): void {
    for (const request of requests) this.engine.add(request);
  }

  /** Runs until no sequence is left or `before`, called before each step with its number, says false. */
  async run(
    before: (step: number) => boolean | void = () => undefined,
    submit: Submit = atOnce,
  ): Promise<void> {
    const { engine, device } = this;
    let isStuck = false;
    for (let step = 0; engine.sequenceCount > 0;) {
      if (before(step) === false) break;
      const program = engine.nextStep();
      if (program !== null) {
        submit(device.gpu, program);
        step++;
        isStuck = false;
        continue;
      }
      assert(!isStuck, `${engine.sequenceCount} sequences, and nothing to do or to wait for`);
      // Without a step in flight there may be caches on their way: once all has settled there must be work.
      isStuck = engine.stepsInFlight === 0;
      await engine.settled();
    }
    await engine.settled();
    device.gpu.assertHealthy();
  }

  /** A stage takes the device: what its coming makes of the caches is submitted at once. */
  leave(kv: KvOnPreempt, submit: Submit = atOnce): KvCounts {
    submit(this.device.gpu, this.engine.leave(kv));
    return this.engine.takeKvCounts();
  }

  destroy(): void {
    this.engine.destroy();
  }
}

/** Each request in an engine of its own, with nothing else around: what all other ways must repeat. */
export async function runAlone(
  device: TestGpu,
  model: Model,
  requests: readonly SequenceRequest[],
): Promise<Outcomes> {
  const outcomes = new Outcomes();
  const alone = await TestEngine.load(device, model, { slots: 1, kvBlocks: 4, stepsAheadMax: 1 });
  for (const request of requests) {
    alone.add([request]);
    await alone.run();
    outcomes.byId.set(request.id, alone.outcomes.get(request.id));
  }
  alone.destroy();
  return outcomes;
}

/**
 * Holds outcomes to the same tokens, the same bits of every log-probability, and the same end.
 *
 * @throws Error that names the label, the sequence and where it differs first.
 */
export function expectSameOutcome(actual: Outcome, expected: Outcome, label: string): void {
  const same = (what: string, a: readonly unknown[], e: readonly unknown[]): void => {
    const index = Array.from({ length: Math.max(a.length, e.length) }).findIndex(
      (_, i) => !Object.is(a[i], e[i]),
    );
    if (index < 0) return;
    throw new Error(
      `${label}: ${what} differ first at token ${index} of ${e.length}: ${String(a[index])} and ${String(e[index])}`,
    );
  };
  same('token ids', actual.tokenIds, expected.tokenIds);
  same('raw log-probabilities', actual.rawLogprobs, expected.rawLogprobs);
  same('log-probabilities', actual.logprobs, expected.logprobs);
  same('reasons', [actual.reason], [expected.reason]);
}

/** All of `requests` but those named in `except`. */
export function expectSameOutcomes(
  actual: Outcomes,
  expected: Outcomes,
  requests: readonly SequenceRequest[],
  label: string,
  except: ReadonlySet<number> = new Set(),
): void {
  for (const { id } of requests) {
    if (except.has(id)) continue;
    expectSameOutcome(actual.get(id), expected.get(id), `${label}: sequence ${id}`);
  }
}

/** Holds an aborted sequence to the beginning of what it would have become. */
export function expectPrefix(actual: Outcome, expected: Outcome, label: string): void {
  const count = actual.tokenIds.length;
  expectSameOutcome(
    actual,
    {
      tokenIds: expected.tokenIds.slice(0, count),
      logprobs: expected.logprobs.slice(0, count),
      rawLogprobs: expected.rawLogprobs.slice(0, count),
      versions: [],
      reason: 'abort',
    },
    label,
  );
}
