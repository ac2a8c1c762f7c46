import type { ClearOp, CopyOp, WriteOp } from '../gpu/ops.js';

/** Bytes one copy, write or clear op moves at most, so that a publish is cut into slices like any other work. */
const CHUNK_BYTES = 4 * 2 ** 20;

/** Copies `bytes` from the start of one buffer to the start of another, a chunk an op. */
export function* copyChunks(
  source: GPUBuffer,
  target: GPUBuffer,
  bytes: number,
): Generator<CopyOp, void, void> {
  for (let offset = 0; offset < bytes; offset += CHUNK_BYTES) {
    const size = Math.min(CHUNK_BYTES, bytes - offset);
    yield { kind: 'copy', source, sourceOffset: offset, target, targetOffset: offset, bytes: size };
  }
}

/** Writes all of `data` to the start of a buffer, a chunk an op. */
export function* writeChunks(
  target: GPUBuffer,
  data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>,
): Generator<WriteOp, void, void> {
  const elements = CHUNK_BYTES / 4;
  for (let start = 0; start < data.length; start += elements) {
    yield { kind: 'write', target, offset: start * 4, data: data.subarray(start, start + elements) };
  }
}

/** Fills the first `bytes` of a buffer with zeros, a chunk an op. */
export function* clearChunks(target: GPUBuffer, bytes: number): Generator<ClearOp, void, void> {
  for (let offset = 0; offset < bytes; offset += CHUNK_BYTES) {
    yield { kind: 'clear', target, offset, bytes: Math.min(CHUNK_BYTES, bytes - offset) };
  }
}
