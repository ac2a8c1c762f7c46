import type { CellPlan } from '#src/bench/preempt/grid.js';
import type { Sample } from '#src/bench/preempt/samples.js';
import type { RatedSegment } from '#src/bench/preempt/statistics.js';
import type { PreemptionRecord, SliceRecord, UndisturbedRecord } from '#src/telemetry/records.js';

export const HELD: CellPlan = { mode: 'held', sliceUs: 2000, inFlightUs: 4000, hint: false };
export const UNLIMITED: CellPlan = {
  mode: 'unlimited',
  sliceUs: Infinity,
  inFlightUs: Infinity,
  hint: false,
};

/** A preemption that keeps the law: 1 ms to detect it, 3 to yield, 10 held, 2 to resume. */
export function preemption(requestedMs: number, changes: Partial<PreemptionRecord> = {}): PreemptionRecord {
  return {
    lane: 0,
    job: 'bench',
    asker: 'main',
    stage: 'actorTraining',
    requestedMs,
    detectedMs: requestedMs + 1,
    yieldedMs: requestedMs + 3.5,
    yieldedDeviceMs: requestedMs + 3,
    releasedMs: requestedMs + 13,
    resumedMs: requestedMs + 15,
    leavingMs: 0,
    budgetMs: 4.5,
    inFlightUs: 3000,
    phase: 0.25,
    blame: null,
    kv: { held: 4, spilled: 0, dropped: 0 },
    tokensRecomputed: 0,
    ...changes,
  };
}

export function undisturbed(requestedMs: number): UndisturbedRecord {
  return {
    lane: 0,
    stage: 'actorTraining',
    requestedMs,
    detectedMs: requestedMs + 0.5,
    begunMs: requestedMs + 2,
  };
}

export function slice(resident: SliceRecord['resident'], startedMs: number, finishedMs: number): SliceRecord {
  const predictedUs = 900 * (finishedMs - startedMs);
  return {
    lane: 0,
    job: 'bench',
    resident,
    submittedMs: startedMs,
    startedMs,
    finishedMs,
    predictedUs,
    dispatches: 3,
  };
}

export function sample(changes: Partial<Sample> = {}): Sample {
  return {
    yieldMs: 3,
    yieldHostMs: 3.5,
    isDeviceClock: true,
    detectionMs: 1,
    boundMs: 5.5,
    phase: 0.25,
    hpMs: 14,
    resumeMs: 2,
    heldMs: 10,
    blame: null,
    tokensRecomputed: 0,
    ...changes,
  };
}

/** A second in which high priority held the device for as long as its samples say. */
export function segment(samples: readonly Sample[], changes: Partial<RatedSegment> = {}): RatedSegment {
  return {
    samples,
    unrecorded: 0,
    wallMs: 1000,
    tokens: 800,
    tokensDiscarded: 0,
    rows: 1000,
    rowsDiscarded: 0,
    lowMs: 500,
    idleMs: 20,
    hintIdleMs: 5,
    cpuMs: 30,
    slices: [],
    unchunkedTokensPerS: 1000,
    ...changes,
  };
}
