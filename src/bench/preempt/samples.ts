import { assert } from '../../lib/assert.js';
import {
  ALLOWANCE_MS,
  type Blame,
  boundMs,
  lawfulYieldMs,
  type PreemptionRecord,
  resumeMs,
  timeToYieldMs,
  type UndisturbedRecord,
} from '../../telemetry/records.js';
import { claimsLaw, type CellPlan } from './grid.js';

/** A high-priority step as the host saw it; times on `nowMs`. */
export interface Request {
  /** When high priority wanted the device. */
  readonly requestedMs: number;
  /** When the step's result was here. */
  readonly answeredMs: number;
  /** When the first new token of low priority was here; null where none was waited for, or came. */
  readonly resumedMs: number | null;
}

/** One preemption with all that is known of it; milliseconds. */
export interface Sample {
  /** Request → first dispatch could start, by the device's clock where it tells. */
  readonly yieldMs: number;
  readonly yieldHostMs: number;
  readonly isDeviceClock: boolean;
  readonly detectionMs: number;
  /** What the law allows; null where none is claimed. */
  readonly boundMs: number | null;
  readonly phase: number | null;
  /** Request → result. */
  readonly hpMs: number;
  readonly resumeMs: number | null;
  /** How long high priority had the device. */
  readonly heldMs: number;
  readonly blame: Blame | null;
  readonly tokensRecomputed: number;
}

export interface YieldRecords {
  readonly preemptions: readonly PreemptionRecord[];
  readonly undisturbed: readonly UndisturbedRecord[];
}

/**
 * Puts the lanes' records beside the requests they belong to, by the moment of the request, which both carry to the
 * last bit. `unrecorded` counts requests without one.
 */
export function joinSamples(
  plan: CellPlan | null,
  requests: readonly Request[],
  { preemptions, undisturbed }: YieldRecords,
): { readonly samples: Sample[]; readonly unrecorded: number } {
  const preempting = new Map(preemptions.map((record) => [record.requestedMs, record]));
  const alone = new Map(undisturbed.map((record) => [record.requestedMs, record]));
  const samples = requests.flatMap((request) => {
    const preemption = preempting.get(request.requestedMs);
    if (preemption !== undefined) return [preemptingSample(plan, request, preemption)];
    const record = alone.get(request.requestedMs);
    return record === undefined ? [] : [undisturbedSample(plan, request, record)];
  });
  return { samples, unrecorded: requests.length - samples.length };
}

function preemptingSample(
  plan: CellPlan | null,
  { requestedMs, answeredMs }: Request,
  record: PreemptionRecord,
): Sample {
  const yieldMs = lawfulYieldMs(record);
  assert(Number.isFinite(yieldMs), 'a step was answered before it began');
  const isLawful = plan !== null && claimsLaw(plan);
  return {
    yieldMs,
    yieldHostMs: timeToYieldMs(record),
    isDeviceClock: record.yieldedDeviceMs !== null,
    detectionMs: record.detectedMs - requestedMs,
    boundMs: isLawful ? boundMs(record) : null,
    phase: record.phase,
    hpMs: answeredMs - requestedMs,
    resumeMs: resumeMs(record),
    heldMs: (record.releasedMs ?? answeredMs) - requestedMs - yieldMs,
    blame: isLawful ? record.blame : null,
    tokensRecomputed: record.tokensRecomputed,
  };
}

/** Nothing of low priority was on the device: because there was none, or it had all come to its end. */
function undisturbedSample(
  plan: CellPlan | null,
  { requestedMs, answeredMs, resumedMs }: Request,
  { detectedMs, begunMs }: UndisturbedRecord,
): Sample {
  const yieldMs = begunMs - requestedMs;
  const isLawful = plan !== null && claimsLaw(plan);
  return {
    yieldMs,
    yieldHostMs: yieldMs,
    isDeviceClock: true,
    detectionMs: detectedMs - requestedMs,
    boundMs: isLawful ? detectedMs - requestedMs + plan.inFlightUs / 1000 + ALLOWANCE_MS : null,
    phase: null,
    hpMs: answeredMs - requestedMs,
    resumeMs: resumedMs === null ? null : resumedMs - answeredMs,
    heldMs: answeredMs - begunMs,
    blame: null,
    tokensRecomputed: 0,
  };
}
