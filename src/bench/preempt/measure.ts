import { laneSettings, type LaneSettings } from '../../lanes/settings.js';
import { nowMs } from '../../lib/clock.js';
import type { Random } from '../../lib/prng.js';
import { type CellPlan, settingsOf } from './grid.js';
import { train } from './high-priority.js';
import { pauseUntil } from './pause.js';
import { DEFAULT_BUDGETS } from './report/cells.js';
import type { Rig } from './rig.js';
import type { Request } from './samples.js';
import { reduceSegment, type Segment } from './segment.js';
import { median } from './statistics.js';

/** A hint comes as early as what is in flight may need, and at least so long before the request. */
const HINT_MS_MIN = 2;
/** A stage that does not come after its hint would hold generation back no longer than this. */
const HINT_HOLDS_MS = 100;
/** Steps of low priority between a change of configuration and the first measurement. */
const SETTLE_STEPS = 16;
/** Where steps take long, a few must do. */
const SETTLE_MS_MAX = 500;
const SETTLE_STEPS_MIN = 2;
/** A request comes at a uniform random moment of so many steps: over several, every phase is as likely as any other. */
const WINDOW_STEPS = 8;
const WINDOW_MS_MIN = 2;
/** The same where there are no steps. */
const SOLO_WINDOW_MS = 10;
const STEP_TIMEOUT_MS = 2_000;
/** However late it is, a segment has so many requests. */
const REQUESTS_MIN = 2;
const UNLIMITED = laneSettings({ sliceUs: Infinity, inFlightUs: Infinity });
/** As a run has it: cut, so that the device begins while the host still puts the rest together. */
const USUAL = laneSettings(DEFAULT_BUDGETS);

/** How a segment is measured. */
export interface Pacing {
  readonly requestsMax: number;
  /** Slices whose times are kept. */
  readonly slicesKeptMax: number;
  /** No request begins after it; Infinity: all are made. */
  readonly untilMs: number;
  readonly random: Random;
  readonly interrupted: AbortSignal;
}

export interface Unchunked {
  readonly tokens: number;
  readonly wallMs: number;
  /** Between the tokens of one step and those of the next. */
  readonly gapsMs: readonly number[];
}

/** Preempts low priority again and again under one configuration. */
export async function measureCell(rig: Rig, plan: CellPlan, pacing: Pacing): Promise<Segment> {
  const stepMs = await settle(rig, settingsOf(plan));
  const windowMs = Math.max(WINDOW_MS_MIN, WINDOW_STEPS * stepMs);
  return record(rig, plan, pacing, () =>
    repeat(pacing, () => preempt(rig, plan, windowMs * pacing.random.uniform())),
  );
}

/** High priority alone on the device: what it takes, and how long an empty device takes to begin. */
export async function measureSolo(rig: Rig, pacing: Pacing): Promise<Segment> {
  await rig.load.clear();
  await rig.lane.request({ kind: 'configure', settings: USUAL });
  const alone = async (): Promise<Request> => {
    await pauseUntil(nowMs() + SOLO_WINDOW_MS * pacing.random.uniform());
    const requestedMs = nowMs();
    await train(rig.lane, rig.training, requestedMs);
    return { requestedMs, answeredMs: nowMs(), resumedMs: null };
  };
  return record(rig, null, pacing, () => repeat(pacing, alone));
}

/** Low priority alone, uncut, until `untilMs` or interrupted. */
export async function measureUnchunked(
  rig: Rig,
  untilMs: number,
  interrupted: AbortSignal,
): Promise<Unchunked> {
  await settle(rig, UNLIMITED);
  rig.load.beginCounting();
  const fromMs = nowMs();
  do await rig.load.nextTokens(STEP_TIMEOUT_MS);
  while (nowMs() < untilMs && !interrupted.aborted);
  const wallMs = nowMs() - fromMs;
  return { tokens: rig.load.counts.tokens, wallMs, gapsMs: rig.load.gapsMs };
}

/** Low priority from an empty engine, for a few steps alone: nothing of the cell before is left. Gives ms a step. */
async function settle({ lane, load }: Rig, settings: LaneSettings): Promise<number> {
  await load.clear();
  await lane.request({ kind: 'configure', settings });
  load.start();
  load.beginCounting();
  const untilMs = nowMs() + SETTLE_MS_MAX;
  for (let step = 0; step < SETTLE_STEPS; step++) {
    if (step >= SETTLE_STEPS_MIN && nowMs() >= untilMs) break;
    await load.nextTokens(STEP_TIMEOUT_MS);
  }
  return median(load.gapsMs) ?? 0;
}

async function repeat(pacing: Pacing, request: () => Promise<Request>): Promise<Request[]> {
  const requests: Request[] = [];
  const isOver = (): boolean =>
    pacing.interrupted.aborted || (requests.length >= REQUESTS_MIN && nowMs() >= pacing.untilMs);
  while (requests.length < pacing.requestsMax && !isOver()) requests.push(await request());
  return requests;
}

/** Does `work` and gathers all that happens meanwhile, on the lanes and to the load. */
async function record(
  rig: Rig,
  plan: CellPlan | null,
  { slicesKeptMax }: Pacing,
  work: () => Promise<Request[]>,
): Promise<Segment> {
  const { first: past } = await rig.takeRecords();
  rig.load.beginCounting();
  const fromMs = nowMs();
  const requests = await work();
  const wallMs = nowMs() - fromMs;
  const counts = rig.load.counts;
  const { first, second } = await rig.takeRecords();
  return reduceSegment({
    plan,
    requests,
    records: {
      preemptions: first.preemptions,
      undisturbed: [...first.undisturbed, ...(second?.undisturbed ?? [])],
      hintIdleMs: first.hintIdleMs,
    },
    slices: first.slices,
    slicesKeptMax,
    wallMs,
    counts,
    cpuMs: first.cpuMs === null || past.cpuMs === null ? null : first.cpuMs - past.cpuMs,
  });
}

/** One preemption, from the pause before it to the first new token after it. */
async function preempt(rig: Rig, plan: CellPlan, pauseMs: number): Promise<Request> {
  const leadMs = plan.hint ? Math.max(HINT_MS_MIN, plan.inFlightUs / 1000) : 0;
  const atMs = nowMs() + leadMs + pauseMs;
  if (plan.hint) await hint(rig, atMs, leadMs);
  await pauseUntil(atMs);
  const requestedMs = nowMs();
  if (plan.mode === 'no-preemption') await rig.load.drain();
  const lane = rig.trainingLane(plan.mode === 'second-device');
  const answered = train(lane, rig.training, requestedMs);
  // Behind the step in the lane's mailbox: all it still meets are the steps that are on the device.
  const aborted = plan.mode === 'abort-retry' ? rig.load.abort() : null;
  await Promise.all([answered, aborted]);
  const answeredMs = nowMs();
  if (plan.mode === 'second-device') return { requestedMs, answeredMs, resumedMs: null };
  if (plan.mode === 'abort-retry') rig.load.retry();
  if (plan.mode === 'no-preemption') rig.load.start();
  const hasResumed = await rig.load.nextTokens(STEP_TIMEOUT_MS);
  return { requestedMs, answeredMs, resumedMs: hasResumed ? nowMs() : null };
}

async function hint({ lane }: Rig, expectedMs: number, leadMs: number): Promise<void> {
  await pauseUntil(expectedMs - leadMs);
  await lane.request({ kind: 'hint', expectedMs, untilMs: expectedMs + HINT_HOLDS_MS });
}
