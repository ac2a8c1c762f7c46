import type { Gpu } from '../gpu/device.js';
import type { ModelConfig } from '../model/config.js';

/** Tokens in one block of the paged cache; the shaders hold the same number (`BLOCK` in lib/rows.wgsl). */
export const BLOCK_TOKENS = 16;

/** Blocks that hold `tokens` tokens. */
export function blocksFor(tokens: number): number {
  return Math.ceil(tokens / BLOCK_TOKENS);
}

/**
 * Keys and values of every layer, in blocks of 16 tokens: [block, token in block, kvHeads, headDim] float32.
 * Which block holds which tokens of a sequence is the block table's affair (paged attention, Kwon et al., 2023).
 */
export class KvCache {
  readonly keys: readonly GPUBuffer[];
  readonly values: readonly GPUBuffer[];
  /** Bytes of one layer's keys (or values) in one block. */
  readonly blockBytes: number;

  constructor(
    private readonly gpu: Gpu,
    config: ModelConfig,
    readonly blocks: number,
    label: string,
  ) {
    this.blockBytes = kvBlockBytes(config);
    const bytes = blocks * this.blockBytes;
    const make = (what: string) =>
      Array.from({ length: config.layers }, (_, layer) =>
        gpu.createStorage(`${label} ${what} ${layer}`, bytes),
      );
    this.keys = make('keys');
    this.values = make('values');
  }

  /** Bytes of one block in all layers, keys and values. */
  get bytesPerBlock(): number {
    return (this.keys.length + this.values.length) * this.blockBytes;
  }

  destroy(): void {
    for (const buffer of [...this.keys, ...this.values]) this.gpu.destroyBuffer(buffer);
  }
}

/** Bytes of one layer's keys (or values) in one block. */
export function kvBlockBytes(config: ModelConfig): number {
  return BLOCK_TOKENS * config.kvHeads * config.headDim * 4;
}
