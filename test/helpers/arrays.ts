import type { Splitter } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import type { Random } from '#src/lib/prng.js';

/** Standard normals times `scale`, rounded to float32: what a kernel reads and the reference reads alike. */
export function normals(random: Random, length: number, scale = 1): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, () => scale * random.normal());
}

/** Stands in output buffers before a kernel runs: whatever still holds it was not written. */
export const UNTOUCHED = 12_345.678;

export function untouched(length: number): Float32Array<ArrayBuffer> {
  return new Float32Array(length).fill(UNTOUCHED);
}

/** Rows [start, start + count) of a row-major array. */
export function rowsOf<T extends Float32Array | Float64Array>(
  data: T,
  columns: number,
  start: number,
  count = 1,
): T {
  return data.slice(start * columns, (start + count) * columns) as T;
}

/** A whole number for each of `count` places, each once, in random order. */
export function shuffled(random: Random, count: number): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let index = count - 1; index > 0; index--) {
    const other = random.int(0, index);
    const held = at(order, index);
    order[index] = at(order, other);
    order[other] = held;
  }
  return order;
}

/** Cuts every dispatch into this many pieces. */
export function pieces(count: number): Splitter {
  return { pieces: () => count };
}

/**
 * Holds two float arrays to the same bits.
 *
 * @throws Error that names the label, the first element that differs and both of its values.
 */
export function expectSameBits(
  actual: Float32Array<ArrayBuffer>,
  expected: Float32Array<ArrayBuffer>,
  label: string,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${label}: ${actual.length} values, expected ${expected.length}`);
  }
  const actualBits = new Uint32Array(actual.slice().buffer);
  const expectedBits = new Uint32Array(expected.slice().buffer);
  const index = actualBits.findIndex((bits, i) => bits !== expectedBits[i]);
  if (index < 0) return;
  throw new Error(
    `${label}: bits differ first at index ${index} of ${expected.length}: ${actual[index]} and ${expected[index]}`,
  );
}
