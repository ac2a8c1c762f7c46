import type { Gpu } from '../gpu/device.js';

/** One staging buffer that grows to the largest result asked for. */
export class Staging {
  #buffer: GPUBuffer | null = null;

  constructor(private readonly gpu: Gpu) {}

  get bytes(): number {
    return this.#buffer?.size ?? 0;
  }

  /** A buffer of at least `bytes`; nothing may be using the one before. */
  reserve(bytes: number): GPUBuffer {
    if (this.#buffer !== null && this.#buffer.size >= bytes) return this.#buffer;
    this.destroy();
    return (this.#buffer = this.gpu.createReadback('trainer results', 2 ** Math.ceil(Math.log2(bytes))));
  }

  destroy(): void {
    if (this.#buffer !== null) this.gpu.destroyBuffer(this.#buffer);
    this.#buffer = null;
  }
}

/** A copy of a staging buffer's first bytes, once the device is done with what was submitted. */
export async function readStaging(staging: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
  await staging.mapAsync(GPUMapMode.READ, 0, bytes);
  const copy = staging.getMappedRange(0, bytes).slice(0);
  staging.unmap();
  return copy;
}
