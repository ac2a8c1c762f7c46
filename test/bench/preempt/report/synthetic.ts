import type { PreemptCell, PreemptMode, PreemptResult, Violation } from '#src/bench/preempt/result.js';
import { yieldQuantiles } from '#src/bench/preempt/statistics.js';
import { Random } from '#src/lib/prng.js';

/** An invented result for the tests of the report: plausible in shape, measured nowhere. */
export interface SyntheticOptions {
  readonly seed: number;
  /** Preemptions a cell. */
  readonly n: number;
  readonly software?: boolean;
}

interface Plan {
  readonly mode: PreemptMode;
  readonly sliceUs: number | null;
  readonly inFlightUs: number | null;
  readonly hint?: boolean;
}

const STEP_MS = 9.5;
const KERNELS = ['matmul_tile', 'attention_flash', 'sample_row', 'rmsnorm_row'];

const HELD = [500, 4000, 16_000].flatMap((sliceUs) =>
  [1000, 8000, 32_000].map((inFlightUs): Plan => ({ mode: 'held', sliceUs, inFlightUs })),
);
export const PLANS: readonly Plan[] = [
  ...HELD,
  { mode: 'held', sliceUs: 500, inFlightUs: 1000, hint: true },
  { mode: 'held', sliceUs: 4000, inFlightUs: 8000, hint: true },
  { mode: 'held', sliceUs: 16_000, inFlightUs: 32_000, hint: true },
  { mode: 'spilled', sliceUs: 4000, inFlightUs: 8000 },
  { mode: 'dropped', sliceUs: 4000, inFlightUs: 8000 },
  { mode: 'second-device', sliceUs: null, inFlightUs: null },
  { mode: 'one-slice', sliceUs: 4000, inFlightUs: 0 },
  { mode: 'drain', sliceUs: null, inFlightUs: 0 },
  { mode: 'abort-retry', sliceUs: null, inFlightUs: 0 },
  { mode: 'unlimited', sliceUs: null, inFlightUs: null },
  { mode: 'no-preemption', sliceUs: null, inFlightUs: null },
];

export function syntheticResult({ seed, n, software = true }: SyntheticOptions): PreemptResult {
  const random = new Random(seed);
  const jitter = draws(
    n,
    () => 0.08 + 0.05 * Math.abs(random.normal()) + (random.uniform() < 0.02 ? random.uniform() : 0),
  );
  return {
    format: 'offbeat-bench-preempt/1',
    adapter: {
      vendor: 'mesa',
      architecture: '',
      device: 'llvmpipe',
      description: 'llvmpipe (LLVM 15, 256 bits)',
      software,
    },
    host: { cpus: 2, cpu_model: 'Some Processor at 2.5 GHz', node: 'v20.19.0' },
    seed,
    model: 'arithmetic-tiny',
    low_priority: '64 sequences, prompts of 8 to 30 tokens, completions of up to 48',
    high_priority: 'one optimizer step over 32 sequences of 40 tokens',
    interrupted: false,
    left_out: [],
    host_jitter_ms: yieldQuantiles(jitter).p99 ?? 0,
    host_jitter: yieldQuantiles(jitter),
    solo: { hp_ms: yieldQuantiles(draws(n, () => 41 + 3 * Math.abs(random.normal()))) },
    unchunked: { lp_tokens_per_s: 6120, decode_step_ms: STEP_MS },
    cells: PLANS.map((plan) => syntheticCell(plan, n, random)),
    wall_s: 1312,
  };
}

/** A cell in which nothing was measured. */
export function emptyCell(cell: PreemptCell): PreemptCell {
  const none = yieldQuantiles([]);
  const nothing: readonly never[] = [];
  return {
    ...cell,
    n: 0,
    yield_ms: none,
    yield_host_ms: none,
    detection_ms: none,
    bound_ms: null,
    law_violations: 0,
    law_violations_beyond_jitter: 0,
    violations: [],
    hp_ms: none,
    resume_ms: null,
    resume: none,
    host_cpu: null,
    samples: {
      yield_ms: nothing,
      yield_host_ms: nothing,
      bound_ms: nothing,
      phase: nothing,
      hp_ms: nothing,
      resume_ms: nothing,
      slice_predicted_us: nothing,
      slice_real_us: nothing,
    },
  };
}

function draws(n: number, draw: () => number): number[] {
  return Array.from({ length: n }, draw);
}

function syntheticCell(plan: Plan, n: number, random: Random): PreemptCell {
  const { mode, sliceUs, inFlightUs, hint = false } = plan;
  const phase = draws(n, () => random.uniform()).map((share) => (random.uniform() < 0.07 ? null : share));
  const detection = draws(n, () => 0.03 + 0.02 * Math.abs(random.normal()));
  const yields = phase.map((share, index) => (detection[index] ?? 0) + waitMs(plan, share ?? 0, random));
  const isLawful = mode === 'held' || mode === 'spilled' || mode === 'dropped';
  const budgetMs = ((inFlightUs ?? 0) + 310) / 1000 + 0.2;
  const bounds = isLawful ? detection.map((ms) => ms + budgetMs) : [];
  const violations = isLawful ? violationsOf(yields, bounds, random) : [];
  const resumes = draws(n, () => STEP_MS + 1.5 * Math.abs(random.normal()) + (mode === 'dropped' ? 30 : 0));
  const hp = yields.map((ms) => 41 + 3 * Math.abs(random.normal()) + ms);
  const boundMs = yieldQuantiles(bounds).p50;
  const wallS = 0.06 * n;
  const slices =
    sliceUs === null ? [] : draws(Math.min(2000, 2 * n), () => sliceUs * (0.55 + 0.45 * random.uniform()));
  const real = slices.map(
    (us) => us * Math.exp(0.22 * random.normal() + (random.uniform() < 0.01 ? 1.4 : 0)),
  );
  return {
    mode,
    slice_budget_us: sliceUs,
    in_flight_budget_us: inFlightUs,
    hint,
    n,
    yield_ms: yieldQuantiles(yields),
    yield_clock: 'device',
    yield_host_ms: yieldQuantiles(yields.map((ms) => ms + 0.1)),
    detection_ms: yieldQuantiles(detection),
    bound_ms: boundMs,
    law_violations: violations.length,
    law_violations_beyond_jitter: violations.filter((each) => each.yield_ms > each.bound_ms + 1).length,
    violations: violations.slice(0, 20),
    lp_retained: retained(plan, random),
    lp_tokens_per_s: 6120 * retained(plan, random) * 0.6,
    hp_slowdown: (yieldQuantiles(hp).p50 ?? 0) / 43.2 - 1,
    hp_ms: yieldQuantiles(hp),
    resume_ms: mode === 'second-device' ? null : yieldQuantiles(resumes).p50,
    resume: yieldQuantiles(mode === 'second-device' ? [] : resumes),
    wasted: wasteOf(plan, n),
    tokens_recomputed: mode === 'dropped' ? 900 * n : 0,
    tokens_discarded: mode === 'abort-retry' ? 700 * n : 0,
    host_cpu: 0.04 + 0.02 * random.uniform(),
    hp_duty: 0.4,
    requests_unrecorded: 0,
    wall_s: wallS,
    samples: {
      yield_ms: yields,
      yield_host_ms: yields.map((ms) => ms + 0.1),
      bound_ms: bounds,
      phase,
      hp_ms: hp,
      resume_ms: resumes,
      slice_predicted_us: slices,
      slice_real_us: real,
    },
  };
}

/** What a request at this point of the step waits for. */
function waitMs({ mode, sliceUs, inFlightUs, hint = false }: Plan, phase: number, random: Random): number {
  const noise = 0.08 * Math.abs(random.normal());
  switch (mode) {
    case 'held':
    case 'spilled':
    case 'dropped': {
      const most = (hint ? Math.min(inFlightUs ?? 0, 0.7 * (sliceUs ?? 0)) : (inFlightUs ?? 0)) / 1000;
      const late = random.uniform() < 0.006 ? 2 + 6 * random.uniform() : 0;
      return most * (0.35 + 0.6 * random.uniform()) + noise + late;
    }
    case 'one-slice':
      return ((sliceUs ?? 0) / 1000) * random.uniform() + noise;
    case 'drain':
    case 'abort-retry':
      return STEP_MS * (1 - phase) + noise;
    case 'unlimited':
      return STEP_MS * (3 - phase) + noise;
    case 'second-device':
      return 2 * random.uniform() + noise;
    case 'no-preemption':
      return 480 * random.uniform() + noise;
    default:
      return mode satisfies never;
  }
}

function retained({ mode, sliceUs, inFlightUs }: Plan, random: Random): number {
  const noise = 0.004 * random.normal();
  switch (mode) {
    case 'held':
      return 1 - 22 / (sliceUs ?? 1) - 20 / (inFlightUs ?? 1) + noise;
    case 'spilled':
      return 0.91 + noise;
    case 'dropped':
      return 0.71 + noise;
    case 'abort-retry':
      return 0.48 + noise;
    case 'one-slice':
      return 0.93 + noise;
    case 'second-device':
      return 0.9 + noise;
    case 'drain':
      return 1.003;
    case 'unlimited':
      return 1.006;
    case 'no-preemption':
      return 0.83 + noise;
    default:
      return mode satisfies never;
  }
}

function violationsOf(yields: readonly number[], bounds: readonly number[], random: Random): Violation[] {
  const over = yields.flatMap((ms, index) => {
    const bound = bounds[index] ?? Infinity;
    return ms > bound ? [{ yield_ms: ms, bound_ms: bound }] : [];
  });
  return over
    .toSorted((a, b) => b.yield_ms - b.bound_ms - (a.yield_ms - a.bound_ms))
    .map((times, index) => {
      if (index % 5 === 4) return { ...times, kernel: 'host', predicted_us: 0, real_us: 0 };
      const kernel = KERNELS[random.int(0, KERNELS.length - 1)] ?? 'matmul_tile';
      const late = 1000 * (times.yield_ms - times.bound_ms);
      return { ...times, kernel, predicted_us: 1800, real_us: 1800 + late * 1.1 };
    });
}

function wasteOf({ mode, hint = false }: Plan, n: number): PreemptCell['wasted'] {
  const hintMs = hint ? 0.4 * n : 0;
  return {
    recompute_ms: mode === 'dropped' ? 6 * n : 0,
    discarded_ms: mode === 'abort-retry' ? 14 * n : 0,
    idle_ms: hintMs + (mode === 'one-slice' ? 3 * n : mode === 'spilled' ? 2 * n : 0.15 * n),
    hint_idle_ms: hintMs,
  };
}
