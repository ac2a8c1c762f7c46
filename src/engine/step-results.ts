import type { Gpu } from '../gpu/device.js';
import type { Program } from '../gpu/ops.js';
import { SAMPLED_WORDS } from '../kernels/output-head.js';
import { assert } from '../lib/assert.js';
import type { StepWork } from './kv-costs.js';
import { Pending } from './pending.js';
import type { StepShape } from './step-tables.js';

/** A step whose sampled tokens are on their way to the host. */
export interface Step {
  readonly shape: StepShape;
  /** Of the weights it ran under. */
  readonly version: number;
  /** Its own work, and that of the steps without a result since the one before. */
  readonly work: StepWork;
}

interface StepInFlight extends Step {
  /** What the device sampled, once it is here. */
  words: Uint32Array<ArrayBuffer> | null;
}

/** Brings the steps' sampled tokens to the host, and hands them over in the order of the steps. */
export class StepResults {
  readonly #freeStaging: GPUBuffer[] = [];
  readonly #pending: Pending;
  /** Steps whose tokens the host has not taken in yet, oldest first. */
  readonly #uncommitted: StepInFlight[] = [];

  constructor(
    private readonly gpu: Gpu,
    sizes: { readonly stepsMax: number; readonly rowsMax: number },
    private readonly commit: (step: Step, words: Uint32Array<ArrayBuffer>) => void,
    onFailed: () => void,
  ) {
    this.#pending = new Pending(onFailed);
    for (let i = 0; i < sizes.stepsMax; i++) {
      this.#freeStaging.push(gpu.createReadback('engine tokens', sizes.rowsMax * SAMPLED_WORDS * 4));
    }
  }

  /** True while no further step's results could be taken. */
  get isFull(): boolean {
    return this.#freeStaging.length === 0;
  }

  get stepsInFlight(): number {
    return this.#pending.count;
  }

  /** Copies what the step sampled out of `sampled` and begins to read it. */
  *read(step: Step, sampled: GPUBuffer): Program {
    const staging = this.#freeStaging.pop();
    assert(staging !== undefined, 'no staging buffer for a step');
    const bytes = step.shape.samples.length * SAMPLED_WORDS * 4;
    yield { kind: 'copy', source: sampled, sourceOffset: 0, target: staging, targetOffset: 0, bytes };
    yield { kind: 'submitted', call: () => this.#start({ ...step, words: null }, staging, bytes) };
  }

  /** Resolves when every submitted step's result is in. */
  settled(): Promise<void> {
    return this.#pending.settled();
  }

  /** @throws the reason why results can no longer be read */
  check(): void {
    this.#pending.check();
  }

  destroy(): void {
    for (const buffer of this.#freeStaging) this.gpu.destroyBuffer(buffer);
  }

  #start(step: StepInFlight, staging: GPUBuffer, bytes: number): void {
    this.#uncommitted.push(step);
    this.#pending.add(this.#map(step, staging, bytes));
  }

  async #map(step: StepInFlight, staging: GPUBuffer, bytes: number): Promise<void> {
    await staging.mapAsync(GPUMapMode.READ, 0, bytes);
    step.words = new Uint32Array(staging.getMappedRange(0, bytes).slice(0));
    staging.unmap();
    this.#freeStaging.push(staging);
    // In the order of the steps, in whatever order the device tells of them.
    for (let [next] = this.#uncommitted; next?.words != null; [next] = this.#uncommitted) {
      this.#uncommitted.shift();
      this.commit(next, next.words);
    }
  }
}
