import type { CopyOp, Program, WriteOp } from '../gpu/ops.js';
import { Activations } from '../kernels/activations.js';
import type { Kernels } from '../kernels/kernels.js';
import { blocksFor, KvCache } from '../kernels/kv-cache.js';
import type { Splitter } from '../kernels/launch.js';
import {
  FLAG_ALREADY_DONE,
  FLAG_STOPPED,
  HeadActivations,
  OutputHead,
  readSampled,
  SAMPLED_WORDS,
} from '../kernels/output-head.js';
import { ropeAngles } from '../kernels/rope-angles.js';
import { Transformer } from '../kernels/transformer.js';
import { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert, at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import type { KvCounts } from '../telemetry/records.js';
import type { Admission } from './admission.js';
import { Batcher, type BatchEntry, type BatcherLimits } from './batcher.js';
import { checkRequest, checkTurn } from './check-request.js';
import type { DisplacedCounts, Engine, EngineUpdate, EvictedSequence, KvOnPreempt } from './engine.js';
import type { Turn, TurnEnd } from './episode.js';
import { KvCosts, type KvCostSnapshot, type StepWork } from './kv-costs.js';
import { KvTravel } from './kv-travel.js';
import { type FinishReason, Sequence, type SequenceRequest } from './sequence.js';
import { type Step, StepResults } from './step-results.js';
import { type StepShape, StepTables } from './step-tables.js';
import { type WeightSet, WeightSets } from './weight-sets.js';
import { warmUpBatch } from './warm-up.js';

export interface EngineOptions extends BatcherLimits {
  /** Longest sequence in tokens, prompt and completion. */
  readonly contextTokensMax: number;
  /** Steps submitted before the first one's tokens must be back. */
  readonly stepsAheadMax: number;
  /** Host memory for spilled caches at most, in bytes; `SPILL_BYTES_MAX` when left out. Beyond it caches are dropped. */
  readonly spillBytesMax?: number;
}

export const SPILL_BYTES_MAX = 2 ** 30;

/**
 * Generation with continuous batching over a paged cache. Sampled tokens stay on the device and feed the next step
 * there; the host plans ahead without knowing them and reads them back some steps later. A sequence that has
 * stopped on the device meanwhile costs a few idle rows, nothing else.
 */
export class WebGpuEngine implements Engine {
  readonly #batcher: Batcher;
  readonly #sequences = new Map<number, Sequence>();
  readonly #tables: StepTables;
  readonly #kv: KvCache;
  readonly #activations: Activations;
  readonly #headActivations: HeadActivations;
  readonly #buffers: GPUBuffer[] = [];
  readonly #sets: WeightSets;
  readonly #results: StepResults;
  readonly #costs: KvCosts;
  readonly #travel: KvTravel;
  /** Programs handed out by `nextStep` and not run to their end yet. */
  #programsOpen = 0;
  /** Work of the steps that sampled nothing since the last one that did. */
  #workUnseen: StepWork | null = null;
  #paused = false;

  constructor(
    private readonly kernels: Kernels,
    readonly config: ModelConfig,
    layout: ParamLayout,
    readonly options: EngineOptions,
    private readonly split: Splitter,
    private readonly onUpdate: (update: EngineUpdate) => void,
    /** `nextStep` may have something again though no update says so: a spilled cache has come to the host, or something failed. */
    onReady: () => void = () => undefined,
  ) {
    const { gpu } = kernels;
    const blocksPerSlot = blocksFor(options.contextTokensMax);
    this.#batcher = new Batcher(options);
    this.#tables = new StepTables(
      gpu,
      { slots: options.slots, rowsMax: options.batchTokensMax, blocksPerSlot },
      config.vocabSize,
    );
    this.#kv = new KvCache(gpu, config, options.kvBlocks, 'engine');
    this.#activations = new Activations(gpu, config, options.batchTokensMax, false);
    this.#headActivations = new HeadActivations(gpu, config, options.slots);
    const storage = (name: string, bytes: number): GPUBuffer => {
      const buffer = gpu.createStorage(`engine ${name}`, bytes);
      this.#buffers.push(buffer);
      return buffer;
    };
    const slotTokens = storage('slot tokens', options.slots * 4);
    const slotDone = storage('slot done', options.slots * 4);
    const turns = ropeAngles(config, options.contextTokensMax);
    const angles = storage('angles', turns.byteLength);
    gpu.device.queue.writeBuffer(angles, 0, turns);
    const sizes = { stepsMax: options.stepsAheadMax, rowsMax: options.slots };
    this.#results = new StepResults(gpu, sizes, (step, words) => this.#commit(step, words), onReady);
    const tables = this.#tables;
    const inputs = { rows: tables.rows, blockTable: tables.blockTable, blocksPerSlot, slotTokens, angles };
    const makeSet = (label: string): WeightSet => {
      const weights = new WeightBuffers(gpu, layout, `engine weights ${label}`);
      const parts = { weights, activations: this.#activations, kv: this.#kv, inputs };
      const stream = at(this.#activations.stream, config.layers);
      const { rowIndex, sampleRows, sampling, stops } = tables;
      const head = { weights, stream, rowIndex, sampleRows, sampling, stops, slotTokens, slotDone };
      return {
        weights,
        transformer: new Transformer(kernels, config, parts),
        head: new OutputHead(kernels, config, head, this.#headActivations),
      };
    };
    this.#sets = new WeightSets(makeSet);
    this.#costs = new KvCosts(this.#sets.current.weights.bytes);
    const { spillBytesMax = SPILL_BYTES_MAX } = options;
    this.#travel = new KvTravel(gpu, this.#kv, this.#batcher, this.#costs, spillBytesMax, onReady);
  }

  get version(): number {
    return this.#sets.newestVersion;
  }

  get sequenceCount(): number {
    return this.#sequences.size;
  }

  get parkedCount(): number {
    return this.#batcher.parked.length;
  }

  get runningCount(): number {
    return this.#batcher.running.length;
  }

  get slotsMax(): number {
    return this.#batcher.slotsMax;
  }

  limitSlots(slots: number): void {
    this.#batcher.limitSlots(slots);
  }

  limitAdmission(admission: Admission | null): void {
    this.#batcher.limitAdmission(admission, blocksFor(this.options.contextTokensMax));
  }

  get stepsInFlight(): number {
    return this.#results.stepsInFlight;
  }

  get isMidStep(): boolean {
    return this.#programsOpen > 0;
  }

  /** Blocks of the cache that hold nothing anybody needs. */
  get freeBlocks(): number {
    return this.#batcher.freeBlocks;
  }

  /** Bytes of spilled caches on the host. */
  get spilledBytes(): number {
    return this.#travel.spilledBytes;
  }

  /** What the choice between spilling and dropping rests on at present. */
  get kvCosts(): KvCostSnapshot {
    return this.#costs.snapshot;
  }

  add(request: SequenceRequest): void {
    assert(!this.#sequences.has(request.id), `sequence ${request.id} is already here`);
    checkRequest(request, this.config.vocabSize);
    const sequence = new Sequence(request);
    this.#checkFits(request.id, sequence.tokensInCacheMax);
    this.#sequences.set(request.id, sequence);
    this.#batcher.add(sequence);
  }

  extend(id: number, turn: Turn): void {
    const { sequence } = this.#betweenTurns(id);
    checkTurn(id, turn, this.config.vocabSize);
    this.#checkFits(id, sequence.tokenCount + turn.tokenIds.length + turn.tokensMax - 1);
    sequence.beginTurn(turn);
    this.#batcher.unpark(sequence);
  }

  finish(id: number): void {
    const { sequence, turnEnd: reason } = this.#betweenTurns(id);
    this.#finish(sequence, reason);
    this.onUpdate(emptyUpdate(this.#sets.version, [{ id, reason }]));
  }

  abort(id: number): void {
    const sequence = this.#sequences.get(id);
    if (sequence === undefined) return;
    this.#finish(sequence, 'abort');
    this.onUpdate(emptyUpdate(this.#sets.version, [{ id, reason: 'abort' }]));
  }

  nextStep(): Program | null {
    this.#checkHealthy();
    if (this.#paused || this.#results.isFull) return null;
    this.#sets.flip();
    if (this.#sets.version < 0) return null;
    // In one program, so that whoever returns gets one step further before it can be sent away again.
    const { entries, caches } = this.#travel.plan();
    return entries.length === 0 ? null : this.#opened(this.#step(entries, caches));
  }

  *warmUp(): Program {
    assert(this.sequenceCount === 0, 'a warm-up of an engine that has sequences');
    const { write, shape } = this.#tables.fill(warmUpBatch(this.options.contextTokensMax));
    const { transformer, head } = this.#sets.current;
    yield write;
    yield* transformer.forward(shape, this.split);
    yield* head.run(shape.samples.length, shape.filters, this.split);
  }

  leave(kv: KvOnPreempt): Program {
    assert(!this.isMidStep, 'leave while a step is half done');
    return this.#travel.leave(this.#paused ? { kind: 'held' } : kv);
  }

  comeBack(): void {
    this.#batcher.limitBlocks(Infinity);
  }

  takeKvCounts(): KvCounts {
    return this.#travel.takeCounts();
  }

  takeDisplacedCounts(): DisplacedCounts {
    return this.#travel.takeDisplacedCounts();
  }

  takeTokensRecomputed(): number {
    return this.#batcher.takeRowsRepeated();
  }

  *loadWeights(weights: Buckets, version: number): Program {
    yield* this.#sets.receive((spare) => spare.upload(weights), version);
  }

  /** A new version by device-side copies from buffers on the same device: no byte crosses the host. */
  *copyWeights(source: WeightBuffers, version: number): Program {
    yield* this.#sets.receive((spare): Generator<CopyOp, void, void> => spare.copyFrom(source), version);
  }

  pause(): void {
    this.#paused = true;
  }

  evict(): EvictedSequence[] {
    assert(this.stepsInFlight === 0, 'evict while steps are in flight');
    const evicted = [...this.#sequences.values()].map((sequence) => {
      this.#finish(sequence, 'abort');
      return sequence.evicted();
    });
    return evicted;
  }

  async settled(): Promise<void> {
    while (this.stepsInFlight > 0 || this.#travel.isBusy) {
      await Promise.all([this.#results.settled(), this.#travel.settled()]);
    }
    this.#checkHealthy();
  }

  destroy(): void {
    assert(this.stepsInFlight === 0 && !this.#travel.isBusy, 'destroy while steps or caches are in flight');
    this.#paused = true;
    const { gpu } = this.kernels;
    this.#sets.destroy();
    for (const buffer of this.#buffers) gpu.destroyBuffer(buffer);
    this.#results.destroy();
    this.#travel.destroy();
    this.#tables.destroy();
    this.#kv.destroy();
    this.#activations.destroy();
    this.#headActivations.destroy();
  }

  /** Counts the program as open from now on, whenever it begins. */
  #opened(program: Program): Program {
    this.#programsOpen++;
    const close = (): void => void this.#programsOpen--;
    return (function* (): Program {
      try {
        yield* program;
      } finally {
        close();
      }
    })();
  }

  #step(entries: readonly BatchEntry[], caches: Program): Program {
    const { write, shape } = this.#tables.fill(entries);
    const prefillRows = entries.reduce((sum, { count }) => sum + (count > 1 ? count : 0), 0);
    return this.#runStep(caches, write, shape, prefillRows);
  }

  *#runStep(caches: Program, write: WriteOp, shape: StepShape, prefillRows: number): Program {
    yield* caches;
    const { current: set, version } = this.#sets;
    const work = joined(this.#workUnseen, { rows: shape.rows, prefillRows, beganMs: nowMs() });
    yield write;
    yield* set.transformer.forward(shape, this.split);
    const { samples } = shape;
    this.#workUnseen = samples.length === 0 ? work : null;
    if (samples.length === 0) return;
    yield* set.head.run(samples.length, shape.filters, this.split);
    yield* this.#results.read({ shape, version, work }, this.#headActivations.sampled);
  }

  #commit({ shape, version, work }: Step, words: Uint32Array<ArrayBuffer>): void {
    this.#costs.observeStep(work, nowMs());
    const floats = new Float32Array(words.buffer);
    const rows: { sequence: Sequence; row: number }[] = [];
    const finished: { id: number; reason: FinishReason }[] = [];
    const paused: { id: number; reason: TurnEnd }[] = [];
    shape.samples.forEach((sequence, row) => {
      const sampled = readSampled(words, floats, row);
      sequence.drawsInFlight--;
      if (sequence.finished !== null || (sampled.flags & FLAG_ALREADY_DONE) !== 0) return;
      sequence.append(sampled, version);
      rows.push({ sequence, row });
      const stopped = (sampled.flags & FLAG_STOPPED) !== 0;
      if (!stopped && !sequence.isFull) return;
      const { id } = sequence.request;
      const reason = stopped ? 'stop' : 'length';
      if (sequence.isEpisode) {
        sequence.endTurn(reason);
        this.#batcher.park(sequence);
        paused.push({ id, reason });
      } else {
        this.#finish(sequence, reason);
        finished.push({ id, reason });
      }
    });
    this.onUpdate({
      ids: Uint32Array.from(rows, ({ sequence }) => sequence.request.id),
      tokenIds: Uint32Array.from(rows, ({ row }) => at(words, row * SAMPLED_WORDS)),
      logprobs: Float32Array.from(rows, ({ row }) => at(floats, row * SAMPLED_WORDS + 1)),
      rawLogprobs: Float32Array.from(rows, ({ row }) => at(floats, row * SAMPLED_WORDS + 2)),
      version,
      finished,
      ...(paused.length > 0 ? { paused } : {}),
    });
  }

  #betweenTurns(id: number): { sequence: Sequence; turnEnd: TurnEnd } {
    const sequence = this.#sequences.get(id);
    const turnEnd = sequence?.turnEnd ?? null;
    assert(sequence !== undefined && turnEnd !== null, `sequence ${id} is not between two turns`);
    return { sequence, turnEnd };
  }

  #checkFits(id: number, tokensInCache: number): void {
    const fits = tokensInCache <= this.options.contextTokensMax && this.#batcher.canEverHold(tokensInCache);
    assert(fits, `sequence ${id} of ${tokensInCache} tokens does not fit the engine`);
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    this.#batcher.finish(sequence, reason);
    this.#travel.forget(sequence);
    this.#sequences.delete(sequence.request.id);
  }

  #checkHealthy(): void {
    this.#results.check();
    this.#travel.check();
  }
}

function emptyUpdate(version: number, finished: EngineUpdate['finished']): EngineUpdate {
  return {
    ids: new Uint32Array(),
    tokenIds: new Uint32Array(),
    logprobs: new Float32Array(),
    rawLogprobs: new Float32Array(),
    version,
    finished,
  };
}

/** Both together, from the begin of the first on. */
function joined(before: StepWork | null, { rows, prefillRows, beganMs }: StepWork): StepWork {
  if (before === null) return { rows, prefillRows, beganMs };
  return {
    rows: before.rows + rows,
    prefillRows: before.prefillRows + prefillRows,
    beganMs: before.beganMs,
  };
}
