import { expect, onTestFinished } from 'vitest';
import { noTokens, type SequenceRequest } from '#src/engine/sequence.js';
import { type EngineOptions, WebGpuEngine } from '#src/engine/webgpu-engine.js';
import type { Program } from '#src/gpu/ops.js';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { blocksFor } from '#src/kernels/kv-cache.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { Executor } from '#src/lanes/executor.js';
import { PreemptionLog } from '#src/lanes/preemption-log.js';
import { ProgramQueue } from '#src/lanes/program-queue.js';
import type { LaneSettings } from '#src/lanes/settings.js';
import { assert, at } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import type { PreemptionRecord, SliceRecord } from '#src/telemetry/records.js';
import {
  expectPrefix,
  expectSameOutcome,
  type Outcome,
  Outcomes,
  SAMPLINGS,
  SMALL,
  TestEngine,
} from '../engine/fixtures.js';
import type { TestGpu } from '../helpers/gpu.js';
import type { Model } from '../train/fixtures.js';

const WAIT_MS_MAX = 20_000;
/** A small engine with no block to spare: if it loses one, not all of its slots can hold their longest sequence. */
const EXACT: EngineOptions = { ...SMALL, kvBlocks: SMALL.slots * blocksFor(SMALL.contextTokensMax) };

/** Lets the event loop turn: the device's answers come in it, and messages. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** Waits for a time that may be far below the millisecond of a timer. */
export async function gap(ms: number): Promise<void> {
  const untilMs = nowMs() + ms;
  do await turn();
  while (nowMs() < untilMs);
}

export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = nowMs() + WAIT_MS_MAX;
  while (!condition()) {
    assert(nowMs() < deadlineMs, `waited for ${WAIT_MS_MAX / 1000} s: ${what}`);
    await turn();
  }
}

/** Middle one of the values. */
export function median(values: readonly number[]): number {
  return at(
    values.toSorted((a, b) => a - b),
    Math.floor(values.length / 2),
  );
}

/** Who asks for the device, and who yields it. */
interface Pair {
  readonly urgent: ProgramQueue;
  readonly yielding: ProgramQueue;
}

/** A more urgent job's trainer, and one that yields to it. */
export function twoTrainers(): Pair {
  const urgent = new ProgramQueue('urgent', 'trainer', 0, () => null);
  return { urgent, yielding: new ProgramQueue('job', 'trainer', 1, () => null) };
}

/**
 * An executor at work in this thread with two residents that are fed by hand: a trainer and an engine, unless others
 * are given. `load` puts a real engine in.
 */
export class HandFed {
  readonly cost: CostModel;
  readonly log = new PreemptionLog(0);
  readonly executor: Executor;
  readonly urgent: ProgramQueue;
  readonly yielding: ProgramQueue;
  readonly outcomes = new Outcomes();
  /** Of what was given to `preempt`. */
  readonly spans: Span[] = [];
  /** How often that was while the urgent one had nothing. */
  asked = 0;
  /** Every step of the engine goes through it. */
  watch = (program: Program): Program => program;
  readonly #running: Promise<void>;
  /** Rejects when the executor does. */
  readonly #failed: Promise<never>;
  #engine: WebGpuEngine | null = null;

  constructor(
    private readonly device: TestGpu,
    settings: LaneSettings,
    pair: Pair | null = null,
  ) {
    const next = (): Program | null => {
      const program = this.#engine?.nextStep() ?? null;
      return program === null ? null : this.watch(program);
    };
    const hasWork = (): boolean => (this.#engine?.sequenceCount ?? 0) > 0;
    this.urgent = pair?.urgent ?? new ProgramQueue('urgent', 'trainer', 1, () => null);
    this.yielding = pair?.yielding ?? new ProgramQueue('job', 'engine', 6, next, hasWork);
    this.cost = new CostModel(settings.budgets.sliceUs);
    this.executor = new Executor(device.gpu, 0, settings, this.cost, this.log, null);
    this.executor.addResident(this.yielding);
    this.executor.addResident(this.urgent);
    this.#running = this.executor.run();
    this.#failed = new Promise((_, reject) => void this.#running.catch(reject));
    // Whoever waits hears of it; until then it must not end the process.
    this.#failed.catch(() => undefined);
    // A test that fails half-way leaves nothing at work behind.
    onTestFinished(() => this.#halt().catch(() => undefined));
  }

  /** An engine with the model's weights; it is asked for work whenever nothing is given by hand. */
  async load(model: Model, options: Partial<EngineOptions> = {}): Promise<WebGpuEngine> {
    const { config, layout, buckets } = model;
    const all = { ...EXACT, ...options };
    const engine = new WebGpuEngine(this.device.kernels, config, layout, all, this.cost, (update) => {
      // The end of `stop` has sequences of its own.
      if (this.#engine === null) return;
      this.outcomes.receive(update);
      if (update.ids.length > 0) this.log.tokens('job', nowMs());
      this.executor.wake();
    });
    await runProgram(this.device.gpu, engine.loadWeights(buckets, 0));
    this.#engine = engine;
    return engine;
  }

  /** Generated so far. */
  get tokens(): number {
    return tokensOf(this.outcomes);
  }

  add(...requests: readonly SequenceRequest[]): void {
    for (const request of requests) this.#engine?.add(request);
    this.executor.wake();
  }

  /** For the one that yields; resolves when the last op is submitted. */
  run(program: Program): Promise<void> {
    const done = this.yielding.run(program);
    this.executor.wake();
    return this.#unlessFailed(done);
  }

  /** For the urgent one, asked for now; resolves when the last op is submitted. */
  preempt(program: Program): Promise<void> {
    const { executor, urgent } = this;
    if (!urgent.hasWork && !executor.isBusy(urgent)) this.asked++;
    const fromMs = nowMs();
    const ended = (): void => void this.spans.push({ fromMs, untilMs: nowMs() });
    const done = urgent.run(thenCall(program, ended));
    executor.request(urgent, 'actorTraining', fromMs);
    return this.#unlessFailed(done);
  }

  /** As `preempt`; resolves when the device is given back. */
  async preemptToEnd(program: Program): Promise<void> {
    await this.preempt(program);
    await this.executor.idle(this.urgent);
  }

  /** Waits until every sequence has ended and nothing is on its way. */
  async finish(): Promise<void> {
    const engine = this.#engine;
    assert(engine !== null, 'nothing was loaded');
    await this.#unlessFailed(until(() => engine.sequenceCount === 0, 'all sequences to end'));
    await this.executor.idle(this.yielding);
    await engine.settled();
  }

  /** Ends everything; a real engine must have come to its end, and is checked for blocks it lost. */
  async stop(): Promise<void> {
    await this.#halt();
    const engine = this.#engine;
    this.#engine = null;
    if (engine !== null) await this.#expectAllBlocksFree(engine);
    engine?.destroy();
    this.device.gpu.assertHealthy();
  }

  async #halt(): Promise<void> {
    this.executor.stop();
    const reason = new Error('stopped');
    for (const queue of [this.yielding, this.urgent]) queue.abandon(reason);
    await this.#running;
  }

  #unlessFailed<T>(promise: Promise<T>): Promise<T> {
    const settled = Promise.race([promise, this.#failed]);
    // Nobody may wait for it any more when a test fails.
    settled.catch(() => undefined);
    return settled;
  }

  /** As many of the longest sequences run at once as ever. */
  async #expectAllBlocksFree(engine: WebGpuEngine): Promise<void> {
    const { slots, contextTokensMax } = engine.options;
    const longest = { promptTokenIds: [0], generated: noTokens(), tokensMax: contextTokensMax };
    const how = { sampling: at(SAMPLINGS, 0), key: [1, 2] as const, stopTokenIds: [] };
    const ids = Array.from({ length: slots }, (_, slot) => -1 - slot);
    for (const id of ids) engine.add({ id, ...longest, ...how });
    await runProgram(this.device.gpu, engine.nextStep() ?? []);
    await engine.settled();
    await runProgram(this.device.gpu, engine.leave({ kind: 'held' }));
    expect(engine.takeKvCounts().held, 'sequences that run at once').toBe(slots);
    for (const id of ids) engine.abort(id);
  }
}

function* thenCall(program: Program, call: () => void): Program {
  yield* program;
  yield { kind: 'submitted', call };
}

/** What each request comes to in an engine that nobody disturbs. */
export async function undisturbed(
  device: TestGpu,
  model: Model,
  requests: readonly SequenceRequest[],
  options: Partial<EngineOptions> = {},
): Promise<Outcomes> {
  const engine = await TestEngine.load(device, model, options);
  engine.add(requests);
  await engine.run();
  engine.destroy();
  return engine.outcomes;
}

/** Sequences that came to their end. */
export function endedOf({ byId }: Outcomes): number {
  return [...byId.values()].filter(({ reason }) => reason !== null).length;
}

/** Tokens of all sequences. */
export function tokensOf({ byId }: Outcomes): number {
  return [...byId.values()].reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
}

/** Requests without end, each a copy of one of a few whose undisturbed outcomes are known. */
export class Copies {
  #made = 0;

  constructor(
    private readonly requests: readonly SequenceRequest[],
    private readonly expected: Outcomes,
  ) {}

  get made(): number {
    return this.#made;
  }

  /** Its id is the number of those made before it. */
  next(): SequenceRequest {
    const id = this.#made++;
    return { ...this.#original(id), id };
  }

  /**
   * Every copy ended once, with the bits of its original; those aborted with the beginning of them.
   *
   * @throws Error that names the label, the copy and where it differs first.
   */
  check(outcomes: Outcomes, aborted: ReadonlySet<number>, label: string): void {
    expect(outcomes.byId.size, `${label}: sequences heard of`).toBe(this.#made);
    for (const [id, outcome] of outcomes.byId) this.checkOne(id, outcome, aborted, `${label}: copy ${id}`);
  }

  /** As `check`, for one. */
  checkOne(id: number, outcome: Outcome, aborted: ReadonlySet<number>, label: string): void {
    const expected = this.expected.get(this.#original(id).id);
    if (outcome.reason !== 'abort') return expectSameOutcome(outcome, expected, label);
    assert(aborted.has(id), `${label} was aborted by nobody`);
    expectPrefix(outcome, expected, label);
  }

  #original(id: number): SequenceRequest {
    return at(this.requests, id % this.requests.length);
  }
}

/**
 * Holds preemptions to their order: each through its moments, and none before the one before it was over.
 *
 * @throws Error that names the label and the preemption.
 */
export function expectOrdered(preemptions: readonly PreemptionRecord[], label: string): void {
  let freeMs = -Infinity;
  preemptions.forEach((record, index) => {
    const { requestedMs, detectedMs, yieldedMs, releasedMs, resumedMs } = record;
    assert(releasedMs !== null, `${label}: preemption ${index} was never released`);
    const moments = [freeMs, detectedMs, yieldedMs, releasedMs, resumedMs ?? releasedMs];
    const sorted = moments.toSorted((a, b) => a - b);
    expect(moments, `${label}: moments of preemption ${index}`).toEqual(sorted);
    expect(requestedMs, `${label}: preemption ${index}`).toBeLessThanOrEqual(detectedMs);
    freeMs = releasedMs;
  });
}

/** A time in which a stage of higher priority wanted the device and had not submitted all it had. */
export interface Span {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** From each preemption's detection to the submission of the last slice it was for. */
export function spansOf(preemptions: readonly PreemptionRecord[], slices: readonly SliceRecord[]): Span[] {
  const urgent = slices.filter(({ resident }) => resident === 'trainer');
  return preemptions.flatMap(({ detectedMs, releasedMs }) => {
    const last = urgent.findLast(({ finishedMs }) => finishedMs <= (releasedMs ?? Infinity));
    return last === undefined ? [] : [{ fromMs: detectedMs, untilMs: last.submittedMs }];
  });
}

/** Of these slices, all of whoever yields, those that were submitted in one of the spans: there must be none. */
export function intruders(yielding: readonly SliceRecord[], spans: readonly Span[]): SliceRecord[] {
  return yielding.filter(({ submittedMs: atMs }) =>
    spans.some(({ fromMs, untilMs }) => atMs > fromMs && atMs < untilMs),
  );
}

export function ofGeneration(slices: readonly SliceRecord[]): SliceRecord[] {
  return slices.filter(({ resident }) => resident === 'engine');
}

/** Predicted time of what was in flight of generation each time a slice of it was put on top of another, that one included. */
export function inFlightUs(slices: readonly SliceRecord[]): number[] {
  const engine = ofGeneration(slices);
  return engine.flatMap((slice, i) => {
    const before = engine.slice(0, i).filter(({ finishedMs }) => finishedMs > slice.submittedMs);
    const [oldest] = before;
    if (oldest === undefined) return [];
    const elapsedUs = Math.max(0, slice.submittedMs - oldest.startedMs) * 1000;
    const allUs = before.reduce((sum, { predictedUs }) => sum + predictedUs, slice.predictedUs);
    return [allUs - Math.min(elapsedUs, oldest.predictedUs)];
  });
}
