import { assert } from '../../lib/assert.js';

/** Maps values to 0…1 along an axis, with round values to label. */
export interface Scale {
  readonly min: number;
  readonly max: number;
  readonly ticks: readonly number[];
  at(value: number): number;
}

/** A linear axis from and to round values around [low, high], with about `ticksWanted` labels. */
export function linearScale(low: number, high: number, ticksWanted: number): Scale {
  assert(Number.isFinite(low) && Number.isFinite(high) && low <= high, `no axis from ${low} to ${high}`);
  // A flat line gets room of its own size around it, so that it stands in the middle.
  const room = high > low ? 0 : Math.abs(high) / 2 || 1;
  const step = roundStep((high - low + 2 * room) / ticksWanted);
  const first = Math.floor((low - room) / step + 1e-9);
  const last = Math.ceil((high + room) / step - 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => clean((first + index) * step));
  const [min, max] = [first * step, last * step];
  return { min, max, ticks, at: (value) => (value - min) / (max - min) };
}

/** A linear axis over exactly [low, high] with round labels inside it. */
export function tightScale(low: number, high: number, ticksWanted: number): Scale {
  const max = high > low ? high : low + 1;
  const step = Math.max(1, roundStep((max - low) / ticksWanted));
  const ticks: number[] = [];
  for (let tick = Math.ceil(low / step) * step; tick <= max; tick += step) ticks.push(clean(tick));
  return { min: low, max, ticks, at: (value) => (value - low) / (max - low) };
}

/** First digits of the labels of a logarithmic axis that is longer than so many decades. */
const TICK_LEADS = [
  { decades: 2.5, leads: [1] },
  { decades: 1, leads: [1, 2, 5] },
  { decades: 0.5, leads: [1, 1.5, 2, 3, 5, 7] },
  { decades: 0, leads: [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9] },
];

/** A logarithmic axis around [low, high], both positive, labelled as densely as its length allows. */
export function logScale(low: number, high: number): Scale {
  assert(low > 0 && low <= high && Number.isFinite(high), `no logarithmic axis from ${low} to ${high}`);
  const [from, to] = [Math.log10(low / 1.3), Math.log10(high * 1.3)];
  const leads = TICK_LEADS.find(({ decades }) => to - from > decades)?.leads ?? [];
  const ticks: number[] = [];
  for (let power = Math.floor(from); power <= to; power++) {
    for (const lead of leads) {
      const tick = clean(lead * 10 ** power);
      if (Math.log10(tick) >= from && Math.log10(tick) <= to) ticks.push(tick);
    }
  }
  return { min: 10 ** from, max: 10 ** to, ticks, at: (value) => (Math.log10(value) - from) / (to - from) };
}

/** Labels of an axis of shares, as they fit. */
const SHARES = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1];

/** An axis of shares from 0 to `high` on which small ones have more room: places go by the square root. */
export function rootScale(high: number): Scale {
  assert(Number.isFinite(high) && high >= 0, `no axis from 0 to ${high}`);
  const max = Math.max(0.05, high * 1.05);
  const root = (value: number): number => Math.sqrt(Math.max(0, value) / max);
  // Labels nearer than a twelfth of the axis would touch on a telephone.
  const ticks = SHARES.filter((share) => share <= max).reduceRight<number[]>((kept, share) => {
    const next = kept[0];
    return share === 0 || next === undefined || root(next) - root(share) > 1 / 12 ? [share, ...kept] : kept;
  }, []);
  return { min: 0, max, ticks, at: root };
}

/**
 * An axis of the share of samples up to some value that has as much room from 90 % to 99 % as from 0 to 90 %, and so
 * on: each step is ten times rarer. It ends at the share above which `samples` samples have but half a one.
 */
export function tailScale(samples: number): Scale {
  const nines = (share: number): number => 0 - Math.log10(Math.max(1e-12, 1 - share));
  const max = 1 - 0.5 / Math.max(1, samples);
  const ticks = [0, 0.5, 0.9, 0.99, 0.999, 0.9999].filter((share) => share <= max);
  return { min: 0, max, ticks, at: (share) => Math.min(1, nines(share) / nines(max)) };
}

/** 1, 2 or 5 times a power of ten, no smaller than `wanted`. */
function roundStep(wanted: number): number {
  const power = 10 ** Math.floor(Math.log10(wanted));
  const lead = [1, 2, 5, 10].find((candidate) => candidate * power >= wanted * (1 - 1e-9)) ?? 10;
  return lead * power;
}

/** Without the dust of binary fractions: 0.30000000000000004 is 0.3. */
function clean(value: number): number {
  return Number(value.toPrecision(12));
}
