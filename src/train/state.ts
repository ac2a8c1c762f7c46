import type { Gpu } from '../gpu/device.js';
import type { Op } from '../gpu/ops.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert } from '../lib/assert.js';
import type { Buckets } from '../model/layout.js';
import type { Optimizer } from './optimizer.js';
import { WeightsExport } from './weights-export.js';

/** All that an optimizer step depends on beside its batch: a trainer that loads it goes on as if it had never stopped. */
export interface TrainerState {
  readonly weights: Buckets;
  /** First and second moments. */
  readonly moments: readonly [Buckets, Buckets];
  /** Steps that changed the weights. */
  readonly stepsTaken: number;
}

/** What of a trainer goes to the host. */
export type Exports = 'state' | 'weights' | 'nothing';

export interface Exported {
  /** Null when nothing was asked for. */
  readonly weights: Buckets | null;
  /** Null unless all of it was asked for; shares its memory with `weights`. */
  readonly state: TrainerState | null;
}

/** All its memory, to be moved to another thread instead of copied. */
export function stateBuffers({ weights, moments }: TrainerState): ArrayBuffer[] {
  return [weights, ...moments].flat().map(({ buffer }) => buffer);
}

/** A trainer's weights, or its whole state, to the host. */
export class StateExport {
  readonly #export: WeightsExport;

  constructor(
    gpu: Gpu,
    private readonly weights: WeightBuffers,
    private readonly optimizer: Optimizer,
  ) {
    this.#export = new WeightsExport(gpu);
  }

  get bytes(): number {
    return this.#export.bytes;
  }

  /** Copies out what is there when each op runs; `read` then waits for it. */
  ops(what: Exports): Generator<Op, void, void> {
    const moments = what === 'state' ? this.optimizer.moments : [];
    return this.#export.ops(what === 'nothing' ? [] : [this.weights, ...moments]);
  }

  async read(): Promise<Exported> {
    const [weights = null, first, second] = await this.#export.collect();
    if (weights === null || first === undefined || second === undefined) return { weights, state: null };
    const { stepsTaken } = this.optimizer;
    return { weights, state: { weights, moments: [first, second], stepsTaken } };
  }

  async readWeights(): Promise<Buckets> {
    const { weights } = await this.read();
    assert(weights !== null, 'weights were exported');
    return weights;
  }

  async readState(): Promise<TrainerState> {
    const { state } = await this.read();
    assert(state !== null, 'a state was exported');
    return state;
  }

  destroy(): void {
    this.#export.destroy();
  }
}
