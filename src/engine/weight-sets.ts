import type { Op, Program } from '../gpu/ops.js';
import type { OutputHead } from '../kernels/output-head.js';
import type { Transformer } from '../kernels/transformer.js';
import type { WeightBuffers } from '../kernels/weight-buffers.js';
import { assert } from '../lib/assert.js';

/** One set of weights with the kernels bound to it. */
export interface WeightSet {
  readonly weights: WeightBuffers;
  readonly transformer: Transformer;
  readonly head: OutputHead;
}

/** Two sets of weights: one runs, the other receives. A step that began on one ends on it. */
export class WeightSets {
  readonly #sets: readonly [WeightSet, WeightSet];
  #active: 0 | 1 = 0;
  #version = -1;
  #arrivedVersion: number | null = null;
  #receiving = false;

  constructor(make: (label: string) => WeightSet) {
    this.#sets = [make('a'), make('b')];
  }

  /** The set in use. */
  get current(): WeightSet {
    return this.#sets[this.#active];
  }

  /** Of the set in use; −1 before the first. */
  get version(): number {
    return this.#version;
  }

  /** What new steps will run under. */
  get newestVersion(): number {
    return this.#arrivedVersion ?? this.#version;
  }

  /** Puts what has arrived to use. */
  flip(): void {
    if (this.#arrivedVersion === null) return;
    this.#active = this.#active === 0 ? 1 : 0;
    this.#version = this.#arrivedVersion;
    this.#arrivedVersion = null;
  }

  /** Fills the spare set. A version that has arrived but is not in use yet is overwritten: only the newest matters. */
  *receive(fill: (spare: WeightBuffers) => Generator<Op, void, void>, version: number): Program {
    assert(!this.#receiving, `version ${version} arrives while another is still on its way`);
    assert(version >= this.newestVersion, `version ${version} arrives after ${this.newestVersion}`);
    this.#arrivedVersion = null;
    this.#receiving = true;
    try {
      yield* fill(this.#sets[this.#active === 0 ? 1 : 0].weights);
      this.#arrivedVersion = version;
    } finally {
      this.#receiving = false;
    }
  }

  destroy(): void {
    for (const { weights } of this.#sets) weights.destroy();
  }
}
