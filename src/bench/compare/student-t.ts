import { assert } from '../../lib/assert.js';

/**
 * Share of Student's t distribution within ±t, for a whole number of degrees of freedom: the finite sums of
 * Abramowitz and Stegun, 26.7.3 and 26.7.4. Exact but for rounding.
 */
export function tWithin(t: number, freedom: number): number {
  assert(Number.isSafeInteger(freedom) && freedom >= 1, `${freedom} degrees of freedom`);
  const angle = Math.atan(t / Math.sqrt(freedom));
  const [sine, cosine] = [Math.sin(angle), Math.cos(angle)];
  const isOdd = freedom % 2 === 1;
  // 1 + (1/2) cos² + (1·3/2·4) cos⁴ + … when even, cos + (2/3) cos³ + (2·4/3·5) cos⁵ + … when odd.
  let term = isOdd ? cosine : 1;
  let sum = 0;
  for (let factor = isOdd ? 2 : 1; factor < freedom; factor += 2) {
    sum += term;
    term *= (factor / (factor + 1)) * cosine * cosine;
  }
  return isOdd ? (2 / Math.PI) * (angle + sine * sum) : sine * sum;
}

/** The t whose ±t holds `share` of the distribution, to the last digits of a double: by halving. */
export function tCritical(share: number, freedom: number): number {
  assert(share > 0 && share < 1, `a share of ${share}`);
  let [low, high] = [0, 1];
  while (tWithin(high, freedom) < share) high *= 2;
  for (let halving = 0; halving < 100; halving++) {
    const middle = (low + high) / 2;
    if (tWithin(middle, freedom) < share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
