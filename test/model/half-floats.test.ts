import { describe, expect, it } from 'vitest';
import { widenBf16, widenF16 } from '#src/model/half-floats.js';

const ALL = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** The value by the definition of a binary floating point format with these field widths. */
function byDefinition(bits: number, exponentBits: number, mantissaBits: number): number {
  const sign = Math.floor(bits / 2 ** (exponentBits + mantissaBits)) === 0 ? 1 : -1;
  const exponent = Math.floor(bits / 2 ** mantissaBits) % 2 ** exponentBits;
  const fraction = (bits % 2 ** mantissaBits) / 2 ** mantissaBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (exponent - bias);
}

describe.each([
  { format: 'binary16', widen: widenF16, exponentBits: 5, mantissaBits: 10 },
  { format: 'bfloat16', widen: widenBf16, exponentBits: 8, mantissaBits: 7 },
])('$format', ({ widen, exponentBits, mantissaBits }) => {
  it('widens all 65536 patterns to the value the definition gives, signed zeros included', () => {
    const values = new Float32Array(65536);
    widen(ALL, values);
    const wrong = [...ALL].filter(
      (bits) => !Object.is(values[bits], byDefinition(bits, exponentBits, mantissaBits)),
    );
    expect(wrong).toEqual([]);
  });

  it('writes inside a view and nowhere else', () => {
    const values = new Float32Array(5).fill(7);
    widen(Uint16Array.of(0, 0), values.subarray(1, 3));
    expect([...values]).toEqual([7, 0, 0, 7, 7]);
  });
});
