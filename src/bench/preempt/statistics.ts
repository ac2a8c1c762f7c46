import { nearestRank, mean } from '../../telemetry/quantiles.js';
import { claimsLaw, type CellPlan } from './grid.js';
import type { PreemptCell, PreemptSamples, Violation, YieldQuantiles } from './result.js';
import type { Sample } from './samples.js';
import { evenly, type Segment } from './segment.js';

const VIOLATIONS_SHOWN_MAX = 20;
/** A report shows no more dots than that. */
export const SLICES_SHOWN_MAX = 2_000;

/** What each device does when it has but one thing to do: all ratios are taken over it. */
export interface Baseline {
  /** Median request → result of high priority alone, ms. */
  readonly hpMs: number;
  /** Median time that a step alone holds the device, ms. */
  readonly heldMs: number;
  /** p99 of request → first dispatch begun on an empty device, ms. */
  readonly jitterMs: number;
}

/** A segment and how fast low priority alone, uncut, was at about the same time. */
export interface RatedSegment extends Segment {
  readonly unchunkedTokensPerS: number;
}

export function yieldQuantiles(samples: Iterable<number>): YieldQuantiles {
  const sorted = Float64Array.from(samples).sort();
  return {
    n: sorted.length,
    p50: nearestRank(sorted, 0.5),
    p90: nearestRank(sorted, 0.9),
    p99: nearestRank(sorted, 0.99),
    p999: nearestRank(sorted, 0.999),
    max: sorted.at(-1) ?? null,
  };
}

export function median(values: readonly number[]): number | null {
  return nearestRank(Float64Array.from(values).sort(), 0.5);
}

/** What a cell's segments say together; null when nothing was measured. */
export function cellOf(
  plan: CellPlan,
  segments: readonly RatedSegment[],
  baseline: Baseline,
): PreemptCell | null {
  const samples = segments.flatMap((segment) => segment.samples);
  if (samples.length === 0) return null;
  const hpMs = samples.map((sample) => sample.hpMs);
  const resume = yieldQuantiles(samples.flatMap((sample) => sample.resumeMs ?? []));
  return {
    mode: plan.mode,
    slice_budget_us: finite(plan.sliceUs),
    in_flight_budget_us: finite(plan.inFlightUs),
    hint: plan.hint,
    n: samples.length,
    yield_ms: yieldQuantiles(samples.map(({ yieldMs }) => yieldMs)),
    yield_clock: samples.some(({ isDeviceClock }) => isDeviceClock) ? 'device' : 'host',
    yield_host_ms: yieldQuantiles(samples.map(({ yieldHostMs }) => yieldHostMs)),
    detection_ms: yieldQuantiles(samples.map(({ detectionMs }) => detectionMs)),
    ...lawOf(plan, samples, baseline.jitterMs),
    ...throughputOf(plan, segments, baseline),
    hp_slowdown: (median(hpMs) ?? 0) / baseline.hpMs - 1,
    hp_ms: yieldQuantiles(hpMs),
    resume_ms: resume.p50,
    resume,
    ...wasteOf(segments),
    host_cpu: hostCpuOf(segments),
    requests_unrecorded: sum(segments, ({ unrecorded }) => unrecorded),
    wall_s: sum(segments, ({ wallMs }) => wallMs) / 1000,
    samples: rawOf(segments),
  };
}

type LawPart = 'bound_ms' | 'law_violations' | 'law_violations_beyond_jitter' | 'violations';

function lawOf(plan: CellPlan, samples: readonly Sample[], jitterMs: number): Pick<PreemptCell, LawPart> {
  if (!claimsLaw(plan)) {
    return { bound_ms: null, law_violations: 0, law_violations_beyond_jitter: 0, violations: [] };
  }
  const late = samples.flatMap(({ yieldMs, boundMs, blame }) =>
    boundMs !== null && yieldMs > boundMs ? [{ yieldMs, boundMs, blame }] : [],
  );
  late.sort((a, b) => b.yieldMs - b.boundMs - (a.yieldMs - a.boundMs));
  const violations = late.slice(0, VIOLATIONS_SHOWN_MAX).map(({ yieldMs, boundMs, blame }): Violation => ({
    yield_ms: yieldMs,
    bound_ms: boundMs,
    kernel: blame?.kernel ?? null,
    predicted_us: blame?.predictedUs ?? null,
    real_us: blame?.realUs ?? null,
  }));
  return {
    bound_ms: median(samples.flatMap(({ boundMs }) => boundMs ?? [])),
    law_violations: late.length,
    law_violations_beyond_jitter: late.filter(({ yieldMs, boundMs }) => yieldMs > boundMs + jitterMs).length,
    violations,
  };
}

type ThroughputPart = 'lp_retained' | 'lp_tokens_per_s' | 'hp_duty';

function throughputOf(
  { mode }: CellPlan,
  segments: readonly RatedSegment[],
  { heldMs }: Baseline,
): Pick<PreemptCell, ThroughputPart> {
  // On a device of its own high priority takes what the adapter gives it. Leaving it as much as it would need alone is
  // the fair measure there too.
  const held = ({ samples }: Segment): number =>
    mode === 'second-device'
      ? samples.length * heldMs
      : samples.reduce((total, sample) => total + sample.heldMs, 0);
  const tokens = sum(segments, (segment) => segment.tokens);
  const possible = sum(
    segments,
    (segment) => (segment.unchunkedTokensPerS * (segment.wallMs - held(segment))) / 1000,
  );
  const wallMs = sum(segments, (segment) => segment.wallMs);
  return {
    lp_retained: possible > 0 ? tokens / possible : 0,
    lp_tokens_per_s: (1000 * tokens) / wallMs,
    hp_duty: sum(segments, held) / wallMs,
  };
}

type WastePart = 'wasted' | 'tokens_recomputed' | 'tokens_discarded';

/** Rows cost alike as far as this goes: device time lost is the share of the rows that were lost. */
function wasteOf(segments: readonly Segment[]): Pick<PreemptCell, WastePart> {
  const recomputed = ({ samples }: Segment): number =>
    samples.reduce((total, sample) => total + sample.tokensRecomputed, 0);
  const lostMs = (rowsOf: (segment: Segment) => number): number =>
    sum(segments, (segment) => {
      const rows = segment.rows + recomputed(segment);
      return rows === 0 ? 0 : (segment.lowMs * Math.min(rows, rowsOf(segment))) / rows;
    });
  return {
    wasted: {
      recompute_ms: lostMs(recomputed),
      discarded_ms: lostMs(({ rowsDiscarded }) => rowsDiscarded),
      idle_ms: sum(segments, ({ idleMs }) => idleMs),
      hint_idle_ms: sum(segments, ({ hintIdleMs }) => hintIdleMs),
    },
    tokens_recomputed: sum(segments, recomputed),
    tokens_discarded: sum(segments, ({ tokensDiscarded }) => tokensDiscarded),
  };
}

function hostCpuOf(segments: readonly Segment[]): number | null {
  return mean(segments.flatMap(({ cpuMs, wallMs }) => (cpuMs === null ? [] : [cpuMs / wallMs])));
}

function rawOf(segments: readonly Segment[]): PreemptSamples {
  const samples = segments.flatMap((segment) => segment.samples);
  const slices = evenly(
    segments.flatMap((segment) => segment.slices),
    SLICES_SHOWN_MAX,
  );
  return {
    yield_ms: samples.map(({ yieldMs }) => yieldMs),
    yield_host_ms: samples.map(({ yieldHostMs }) => yieldHostMs),
    bound_ms: samples.flatMap(({ boundMs }) => boundMs ?? []),
    phase: samples.map(({ phase }) => phase),
    hp_ms: samples.map(({ hpMs }) => hpMs),
    resume_ms: samples.map(({ resumeMs }) => resumeMs),
    slice_predicted_us: slices.map(({ predictedUs }) => predictedUs),
    slice_real_us: slices.map(({ realUs }) => realUs),
  };
}

function finite(us: number): number | null {
  return Number.isFinite(us) ? us : null;
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
