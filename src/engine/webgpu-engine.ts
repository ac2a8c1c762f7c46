import type { CopyOp, Op, Program } from '../gpu/ops.js';
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
import { errorText } from '../lib/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import { Batcher, type BatcherLimits } from './batcher.js';
import { checkRequest } from './check-request.js';
import type { Engine, EngineUpdate, EvictedSequence } from './engine.js';
import { type FinishReason, Sequence, type SequenceRequest } from './sequence.js';
import { type StepShape, StepTables } from './step-tables.js';

export interface EngineOptions extends BatcherLimits {
  /** Longest sequence in tokens, prompt and completion. */
  readonly contextTokensMax: number;
  /** Steps submitted before the first one's tokens must be back. */
  readonly stepsAheadMax: number;
}

/** One set of weights with the kernels bound to it. There are two: one runs, the other receives. */
interface WeightSet {
  readonly weights: WeightBuffers;
  readonly transformer: Transformer;
  readonly head: OutputHead;
}

interface StepInFlight {
  readonly shape: StepShape;
  readonly version: number;
  /** What the device sampled, once it is here. */
  words: Uint32Array<ArrayBuffer> | null;
}

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
  readonly #sets: readonly [WeightSet, WeightSet];
  readonly #freeStaging: GPUBuffer[] = [];
  readonly #inFlight = new Set<Promise<void>>();
  /** Steps whose tokens the host has not taken in yet, oldest first. */
  readonly #uncommitted: StepInFlight[] = [];
  /** Why results can no longer be read: nobody waits for a single one, so the next step tells. */
  #failure: Error | null = null;
  #active: 0 | 1 = 0;
  #version = -1;
  #arrivedVersion: number | null = null;
  #receiving = false;
  #paused = false;

  constructor(
    private readonly kernels: Kernels,
    readonly config: ModelConfig,
    layout: ParamLayout,
    readonly options: EngineOptions,
    private readonly split: Splitter,
    private readonly onUpdate: (update: EngineUpdate) => void,
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
    for (let i = 0; i < options.stepsAheadMax; i++) {
      this.#freeStaging.push(gpu.createReadback('engine tokens', options.slots * SAMPLED_WORDS * 4));
    }
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
    this.#sets = [makeSet('a'), makeSet('b')];
  }

  get version(): number {
    return this.#arrivedVersion ?? this.#version;
  }

  get sequenceCount(): number {
    return this.#sequences.size;
  }

  get stepsInFlight(): number {
    return this.#inFlight.size;
  }

  add(request: SequenceRequest): void {
    assert(!this.#sequences.has(request.id), `sequence ${request.id} is already here`);
    checkRequest(request, this.config.vocabSize);
    const sequence = new Sequence(request);
    assert(
      sequence.tokensInCacheMax <= this.options.contextTokensMax && this.#batcher.canEverHold(sequence),
      `sequence ${request.id} of ${sequence.tokensInCacheMax} tokens does not fit the engine`,
    );
    this.#sequences.set(request.id, sequence);
    this.#batcher.add(sequence);
  }

  abort(id: number): void {
    const sequence = this.#sequences.get(id);
    if (sequence === undefined) return;
    this.#finish(sequence, 'abort');
    this.onUpdate(emptyUpdate(this.#version, [{ id, reason: 'abort' }]));
  }

  nextStep(): Program | null {
    this.#checkHealthy();
    if (this.#paused || this.#freeStaging.length === 0) return null;
    if (this.#arrivedVersion !== null) this.#flip(this.#arrivedVersion);
    if (this.#version < 0) return null;
    const entries = this.#batcher.plan();
    if (entries.length === 0) return null;
    return this.#step(this.#tables.fill(entries));
  }

  *loadWeights(weights: Buckets, version: number): Program {
    yield* this.#receive((spare) => spare.upload(weights), version);
  }

  /** A new version by device-side copies from buffers on the same device: no byte crosses the host. */
  *copyWeights(source: WeightBuffers, version: number): Program {
    yield* this.#receive((spare): Generator<CopyOp, void, void> => spare.copyFrom(source), version);
  }

  pause(): void {
    this.#paused = true;
  }

  evict(): EvictedSequence[] {
    assert(this.#inFlight.size === 0, 'evict while steps are in flight');
    const evicted = [...this.#sequences.values()].map((sequence) => {
      this.#finish(sequence, 'abort');
      return { id: sequence.request.id, generated: sequence.generated };
    });
    return evicted;
  }

  async settled(): Promise<void> {
    while (this.#inFlight.size > 0) await Promise.all(this.#inFlight);
    this.#checkHealthy();
  }

  destroy(): void {
    assert(this.#inFlight.size === 0, 'destroy while steps are in flight');
    this.#paused = true;
    const { gpu } = this.kernels;
    for (const set of this.#sets) set.weights.destroy();
    for (const buffer of [...this.#buffers, ...this.#freeStaging]) gpu.destroyBuffer(buffer);
    this.#tables.destroy();
    this.#kv.destroy();
    this.#activations.destroy();
    this.#headActivations.destroy();
  }

  *#step(planned: ReturnType<StepTables['fill']>): Program {
    const { write, shape } = planned;
    const set = this.#sets[this.#active];
    const version = this.#version;
    yield write;
    yield* set.transformer.forward(shape, this.split);
    const { samples } = shape;
    if (samples.length === 0) return;
    yield* set.head.run(samples.length, shape.filters, this.split);
    const staging = this.#freeStaging.pop();
    assert(staging !== undefined, 'no staging buffer for a step');
    const bytes = samples.length * SAMPLED_WORDS * 4;
    yield copyOp(this.#headActivations.sampled, staging, bytes);
    yield {
      kind: 'submitted',
      call: () => this.#startReading({ shape, version, words: null }, staging, bytes),
    };
  }

  #startReading(step: StepInFlight, staging: GPUBuffer, bytes: number): void {
    this.#uncommitted.push(step);
    const reading = this.#read(step, staging, bytes)
      .catch((error: unknown) => {
        this.#failure ??= error instanceof Error ? error : new Error(errorText(error));
      })
      .finally(() => this.#inFlight.delete(reading));
    this.#inFlight.add(reading);
  }

  async #read(step: StepInFlight, staging: GPUBuffer, bytes: number): Promise<void> {
    await staging.mapAsync(GPUMapMode.READ, 0, bytes);
    step.words = new Uint32Array(staging.getMappedRange(0, bytes).slice(0));
    staging.unmap();
    this.#freeStaging.push(staging);
    // In the order of the steps, in whatever order the device tells of them.
    for (let [next] = this.#uncommitted; next?.words != null; [next] = this.#uncommitted) {
      this.#uncommitted.shift();
      this.#commit(next, next.words);
    }
  }

  #commit({ shape, version }: StepInFlight, words: Uint32Array<ArrayBuffer>): void {
    const floats = new Float32Array(words.buffer);
    const rows: { sequence: Sequence; row: number }[] = [];
    const finished: { id: number; reason: FinishReason }[] = [];
    shape.samples.forEach((sequence, row) => {
      const { token, logprob, rawLogprob, flags } = readSampled(words, floats, row);
      if (sequence.finished !== null || (flags & FLAG_ALREADY_DONE) !== 0) return;
      sequence.generated.tokenIds.push(token);
      sequence.generated.logprobs.push(logprob);
      sequence.generated.rawLogprobs.push(rawLogprob);
      sequence.generated.versions.push(version);
      rows.push({ sequence, row });
      const stopped = (flags & FLAG_STOPPED) !== 0;
      if (!stopped && sequence.generated.tokenIds.length < sequence.request.tokensMax) return;
      const reason = stopped ? 'stop' : 'length';
      this.#finish(sequence, reason);
      finished.push({ id: sequence.request.id, reason });
    });
    this.onUpdate({
      ids: Uint32Array.from(rows, ({ sequence }) => sequence.request.id),
      tokenIds: Uint32Array.from(rows, ({ row }) => at(words, row * SAMPLED_WORDS)),
      logprobs: Float32Array.from(rows, ({ row }) => at(floats, row * SAMPLED_WORDS + 1)),
      rawLogprobs: Float32Array.from(rows, ({ row }) => at(floats, row * SAMPLED_WORDS + 2)),
      version,
      finished,
    });
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    this.#batcher.finish(sequence, reason);
    this.#sequences.delete(sequence.request.id);
  }

  *#receive(fill: (spare: WeightBuffers) => Generator<Op, void, void>, version: number): Program {
    assert(!this.#receiving, `version ${version} arrives while another is still on its way`);
    assert(version >= this.version, `version ${version} arrives after ${this.version}`);
    // A version that has arrived but is not in use yet is overwritten: only the newest matters.
    this.#arrivedVersion = null;
    this.#receiving = true;
    try {
      const spare = this.#sets[this.#active === 0 ? 1 : 0];
      yield* fill(spare.weights);
      this.#arrivedVersion = version;
    } finally {
      this.#receiving = false;
    }
  }

  #checkHealthy(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  #flip(version: number): void {
    this.#active = this.#active === 0 ? 1 : 0;
    this.#version = version;
    this.#arrivedVersion = null;
  }
}

function copyOp(source: GPUBuffer, target: GPUBuffer, bytes: number): CopyOp {
  return { kind: 'copy', source, sourceOffset: 0, target, targetOffset: 0, bytes };
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
