/** IEEE 754 binary16 and bfloat16, as they stand in files, widened to float32. Both widen exactly. */

const SIGN = 0x8000;
const EXPONENT_ALL = 31;
const MANTISSA = 0x3ff;
/** float32 bias 127 minus binary16 bias 15. */
const REBIAS = 112;

/** The float32 bit pattern of a binary16 bit pattern. */
function widenedBits(half: number): number {
  const sign = (half & SIGN) << 16;
  const exponent = (half >>> 10) & EXPONENT_ALL;
  const mantissa = half & MANTISSA;
  if (exponent === EXPONENT_ALL) return sign | 0x7f800000 | (mantissa << 13);
  if (exponent > 0) return sign | ((exponent + REBIAS) << 23) | (mantissa << 13);
  if (mantissa === 0) return sign;
  // A subnormal half is a normal float: move its leading one to where the implicit bit would stand.
  const shift = Math.clz32(mantissa) - 21;
  return sign | ((REBIAS + 1 - shift) << 23) | (((mantissa << shift) & MANTISSA) << 13);
}

let widened: Float32Array | undefined;

/** Every binary16 value: a look-up beats shifting when a checkpoint has millions of them. */
function widenedTable(): Float32Array {
  if (widened === undefined) {
    const bits = new Int32Array(65536);
    for (let half = 0; half < bits.length; half++) bits[half] = widenedBits(half);
    widened = new Float32Array(bits.buffer);
  }
  return widened;
}

/** Widens binary16 bit patterns into `target`, which has the same length. */
export function widenF16(halves: Uint16Array, target: Float32Array): void {
  const table = widenedTable();
  for (let index = 0; index < halves.length; index++) target[index] = table[halves[index] ?? 0] ?? 0;
}

/** Widens bfloat16 bit patterns into `target`, which has the same length: they are the upper half of a float32. */
export function widenBf16(halves: Uint16Array, target: Float32Array): void {
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let index = 0; index < halves.length; index++) bits[index] = (halves[index] ?? 0) << 16;
}
