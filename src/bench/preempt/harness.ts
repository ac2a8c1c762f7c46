import { cpus } from 'node:os';
import { basename, resolve } from 'node:path';
import { nowMs } from '../../lib/clock.js';
import { UserError } from '../../lib/errors.js';
import { Random } from '../../lib/prng.js';
import { loadCheckpoint } from '../../model/checkpoint.js';
import { cellPlans, planText, type CellPlan } from './grid.js';
import { trainingText } from './high-priority.js';
import { loadText } from './load-shape.js';
import { measureCell, measureSolo, measureUnchunked, type Pacing, type Unchunked } from './measure.js';
import type { BenchOptions } from './options.js';
import type { PreemptResult } from './result.js';
import { Rig } from './rig.js';
import { roundOf, roundsFor, TimeBudget, type Turn } from './schedule.js';
import type { Segment } from './segment.js';
import { cellOf, median, type RatedSegment, SLICES_SHOWN_MAX, yieldQuantiles } from './statistics.js';
import { warmUp } from './warm-up.js';

/** Of a limited time, the share that warming up may take. */
const WARM_UP_SHARE = 0.25;

export interface BenchEvents {
  /** A part of the work begins. */
  readonly onPhase: (text: string) => void;
}

/** All that was measured in one round. */
interface Round {
  readonly unchunked: Unchunked[];
  readonly solo: Segment[];
  readonly cells: { readonly plan: CellPlan; readonly segment: Segment }[];
}

/**
 * Measures preemption: how long a training step waits for generation to yield, and what it costs generation, for every
 * cell of a grid and against what people do instead. Cells take turns in rounds, each round with its own baselines, so
 * that a machine that gets slower or faster meanwhile does not show as a difference between them.
 *
 * @param interrupted When it aborts, the result holds what was measured until then.
 * @throws UserError for a checkpoint or an adapter that cannot be used, or when nothing was measured.
 */
export async function measurePreemption(
  options: BenchOptions,
  { onPhase }: BenchEvents,
  interrupted: AbortSignal,
): Promise<PreemptResult> {
  const startedMs = nowMs();
  // What the process has taken so far counts too: a person waits from Enter on.
  const beginMs = startedMs - process.uptime() * 1000;
  const endMs = options.wallMsMax === null ? Infinity : beginMs + options.wallMsMax;
  const plans = cellPlans(options.grid);
  const hasSecond = plans.some(({ mode }) => mode === 'second-device');
  // Before the device: a folder that cannot be used is told at once.
  const { config } = await loadCheckpoint(options.model);
  onPhase('opening devices');
  const rig = await Rig.open({ ...options, config, hasSecond });
  try {
    onPhase('warming up: kernels are compiled, the cost model learns');
    const random = new Random(options.seed).fork('requests');
    const untilMs = startedMs + (endMs - startedMs) * WARM_UP_SHARE;
    await warmUp(rig, plans, { untilMs, random, interrupted });
    const rounds = await measureRounds(rig, plans, options, { endMs, random, interrupted, onPhase });
    return resultOf(options, plans, rounds, {
      rig,
      wallMs: nowMs() - startedMs,
      isInterrupted: interrupted.aborted,
    });
  } finally {
    onPhase('closing devices');
    await rig.close();
  }
}

interface RoundsOptions extends Pick<Pacing, 'random' | 'interrupted'>, BenchEvents {
  readonly endMs: number;
}

async function measureRounds(
  rig: Rig,
  plans: readonly CellPlan[],
  { preemptionsMax, wallMsMax }: BenchOptions,
  { endMs, random, interrupted, onPhase }: RoundsOptions,
): Promise<Round[]> {
  const count = roundsFor(preemptionsMax, wallMsMax !== null);
  const order = Array.from({ length: count }, (_, index) => roundOf(plans, index === 0 ? null : random));
  const time = new TimeBudget(endMs, order.flat());
  const requestsMax = Math.ceil(preemptionsMax / count);
  const slicesKeptMax = Math.ceil(SLICES_SHOWN_MAX / count);
  const rounds: Round[] = [];
  for (const [index, turns] of order.entries()) {
    const round: Round = { unchunked: [], solo: [], cells: [] };
    rounds.push(round);
    onPhase(`round ${index + 1}/${count}: ${plans.length} cells`);
    for (const turn of turns) {
      if (interrupted.aborted || nowMs() >= endMs) return rounds;
      const untilMs = time.untilMs(turn);
      await take(rig, turn, round, { requestsMax, slicesKeptMax, untilMs, random, interrupted });
    }
  }
  return rounds;
}

/** Rates need about this long, however much time there is. */
const UNCHUNKED_MS_MAX = 1_500;

async function take(rig: Rig, turn: Turn, round: Round, pacing: Pacing): Promise<void> {
  switch (turn.kind) {
    case 'unchunked': {
      const untilMs = Math.min(pacing.untilMs, nowMs() + UNCHUNKED_MS_MAX);
      round.unchunked.push(await measureUnchunked(rig, untilMs, pacing.interrupted));
      return;
    }
    case 'solo':
      round.solo.push(await measureSolo(rig, pacing));
      return;
    case 'cell':
      round.cells.push({ plan: turn.plan, segment: await measureCell(rig, turn.plan, pacing) });
      return;
    default:
      turn satisfies never;
  }
}

interface Circumstances {
  readonly rig: Rig;
  readonly wallMs: number;
  readonly isInterrupted: boolean;
}

function resultOf(
  { seed, model }: BenchOptions,
  plans: readonly CellPlan[],
  rounds: readonly Round[],
  { rig, wallMs, isInterrupted }: Circumstances,
): PreemptResult {
  const solo = rounds.flatMap((round) => round.solo.flatMap(({ samples }) => samples));
  const jitter = yieldQuantiles(solo.map(({ yieldMs }) => yieldMs));
  const hp = yieldQuantiles(solo.map(({ hpMs }) => hpMs));
  const unchunked = rounds.flatMap((round) => round.unchunked);
  const stepMs = median(unchunked.flatMap(({ gapsMs }) => gapsMs));
  const baseline = {
    hpMs: hp.p50 ?? 0,
    heldMs: median(solo.map(({ heldMs }) => heldMs)) ?? 0,
    jitterMs: jitter.p99 ?? 0,
  };
  const cells = plans.flatMap((plan) => cellOf(plan, segmentsOf(plan, rounds), baseline) ?? []);
  if (cells.length === 0 || solo.length === 0) {
    throw new UserError(
      'it ended before anything was measured: let it run for longer, or on a machine less busy',
    );
  }
  return {
    format: 'offbeat-bench-preempt/1',
    adapter: rig.adapter,
    host: { cpus: cpus().length, cpu_model: cpus()[0]?.model ?? 'unknown', node: process.version },
    seed,
    model: basename(resolve(model)),
    low_priority: loadText(rig.shape),
    high_priority: trainingText(rig.training),
    interrupted: isInterrupted,
    left_out: plans.filter((plan) => segmentsOf(plan, rounds).length === 0).map(planText),
    host_jitter_ms: baseline.jitterMs,
    host_jitter: jitter,
    solo: { hp_ms: hp },
    unchunked: { lp_tokens_per_s: rateOf(unchunked), decode_step_ms: stepMs ?? 0 },
    cells,
    wall_s: wallMs / 1000,
  };
}

/** A cell's segments, each with what low priority alone did in the same round. */
function segmentsOf(plan: CellPlan, rounds: readonly Round[]): RatedSegment[] {
  return rounds.flatMap(({ unchunked, cells }) =>
    cells.flatMap((cell) =>
      cell.plan === plan ? [{ ...cell.segment, unchunkedTokensPerS: rateOf(unchunked) }] : [],
    ),
  );
}

function rateOf(unchunked: readonly Unchunked[]): number {
  const tokens = unchunked.reduce((sum, part) => sum + part.tokens, 0);
  const wallMs = unchunked.reduce((sum, part) => sum + part.wallMs, 0);
  return wallMs > 0 ? (1000 * tokens) / wallMs : 0;
}
