/** Below this the expected values count as zero, and the difference is judged on its own. */
const SCALE_MIN = 1e-12;

interface Worst {
  readonly error: number;
  readonly index: number;
}

/**
 * max|actual − expected| / max(1e-12, max|expected|): one number for a whole tensor, so that elements near zero are
 * judged by the tensor's scale. A NaN, or an infinity where none is expected, gives Infinity.
 *
 * @throws Error when the lengths differ.
 */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  return worst(actual, expected).error;
}

/**
 * Holds every element to the tolerance.
 *
 * @throws Error that names the label, the worst element and both of its values.
 */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relTolerance: number,
  label: string,
): void {
  if (actual.length !== expected.length) throw new Error(`${label}: ${lengthsText(actual, expected)}`);
  const { error, index } = worst(actual, expected);
  if (error <= relTolerance) return;
  throw new Error(
    `${label}: relative error ${error.toExponential(2)} exceeds ${relTolerance}; worst at index ${index} of ${expected.length}: actual ${actual[index]}, expected ${expected[index]}`,
  );
}

function worst(actual: ArrayLike<number>, expected: ArrayLike<number>): Worst {
  if (actual.length !== expected.length) throw new Error(lengthsText(actual, expected));
  let scale = SCALE_MIN;
  let difference = 0;
  let index = 0;
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i] ?? NaN, expected[i] ?? NaN];
    if (Number.isFinite(e)) scale = Math.max(scale, Math.abs(e));
    // Equal infinities agree (a log-probability of −Infinity); NaN agrees with nothing.
    const apart = a === e ? 0 : Math.abs(a - e);
    const distance = Number.isNaN(apart) ? Infinity : apart;
    if (distance > difference) [difference, index] = [distance, i];
  }
  return { error: difference / scale, index };
}

function lengthsText(actual: ArrayLike<number>, expected: ArrayLike<number>): string {
  return `${actual.length} values, expected ${expected.length}`;
}
