import { assert, at } from '#src/lib/assert.js';

/** Bins expected to hold fewer draws than this are joined: the statistic's distribution is a limit of many. */
const EXPECTED_MIN = 10;

/**
 * Pearson's goodness of fit: the probability that draws from `probabilities` would lie at least as far from them as
 * `counts` do. Zero where a bin of probability 0 was hit.
 */
export function chiSquarePValue(counts: readonly number[], probabilities: readonly number[]): number {
  assert(counts.length === probabilities.length, 'one probability a count');
  const draws = counts.reduce((sum, count) => sum + count, 0);
  if (counts.some((count, bin) => count > 0 && at(probabilities, bin) === 0)) return 0;
  let statistic = 0;
  let bins = 0;
  let pending = { count: 0, expected: 0 };
  const order = probabilities
    .map((_, bin) => bin)
    .filter((bin) => at(probabilities, bin) > 0)
    .sort((a, b) => at(probabilities, b) - at(probabilities, a));
  for (const [place, bin] of order.entries()) {
    pending.count += at(counts, bin);
    pending.expected += draws * at(probabilities, bin);
    const rest = order.slice(place + 1).reduce((sum, other) => sum + draws * at(probabilities, other), 0);
    if (pending.expected < EXPECTED_MIN || (rest > 0 && rest < EXPECTED_MIN)) continue;
    statistic += (pending.count - pending.expected) ** 2 / pending.expected;
    bins++;
    pending = { count: 0, expected: 0 };
  }
  return bins < 2 ? 1 : upperGamma((bins - 1) / 2, statistic / 2);
}

/** Γ(a, x) / Γ(a), by its series below a + 1 and by Lentz's continued fraction above. */
export function upperGamma(a: number, x: number): number {
  if (x <= 0) return 1;
  const front = Math.exp(-x + a * Math.log(x) - logGamma(a));
  if (x < a + 1) {
    let term = 1 / a;
    let sum = term;
    for (let n = 1; n < 10_000 && Math.abs(term) > 1e-16 * sum; n++) {
      term *= x / (a + n);
      sum += term;
    }
    return 1 - front * sum;
  }
  let b = x + 1 - a;
  let c = 1e300;
  let d = 1 / b;
  let fraction = d;
  for (let n = 1; n < 10_000; n++) {
    const an = -n * (n - a);
    b += 2;
    d = 1 / (an * d + b);
    c = b + an / c;
    fraction *= d * c;
    if (Math.abs(d * c - 1) < 1e-15) break;
  }
  return front * fraction;
}

/** ln Γ(x) for x > 0: Stirling's series, after stepping x up to where it is good to 1e-15. */
function logGamma(x: number): number {
  let shift = 0;
  let y = x;
  for (; y < 15; y++) shift += Math.log(y);
  const inverse = 1 / (y * y);
  const series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / y;
  return (y - 0.5) * Math.log(y) - y + Math.log(2 * Math.PI) / 2 + series - shift;
}
