import { z } from 'zod';
import { SEGMENT_US_MAX } from '../check.js';
import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import { alignedSegmentUs, type SegmentBounds } from '../segments.js';
import { engineOn, isUsable, type JobState, type LaneState, type Snapshot } from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { wholeNumber } from './options.js';
import { sitTogether } from './sit-together.js';
import { byTier, placeStages } from './stage-placement.js';

const optionsSchema = z.strictObject({
  /** Shorter segments than this cost more in submissions than they save in waiting. */
  segment_us_min: wholeNumber(50, SEGMENT_US_MAX).default(200),
  /** Engines on a lane, where that leaves no job without any: each makes all others wait for a segment more. */
  engines_max: wholeNumber(1, 1000).default(2),
});

type Options = z.output<typeof optionsSchema>;

/** A segment stays while the one wanted is within this factor of it: steps grow and shrink with every sequence. */
const DRIFT_MAX = 1.25;

/**
 * Models of different size served together, after ParaFlex: engines share their lanes' time, each with all its slots,
 * and where several sit on a lane their forward passes are cut into segments of equal time that alternate. A segment is
 * as long as a decode step of the fastest engine there, by the engines' own reports, so a token of a small model never
 * waits for more than one segment of a big one's prefill. On such lanes every engine gets the same share of time,
 * whatever its job's weight.
 *
 * From ParaFlex, of which only the title and its idea were at hand: aligning what different models do to stages of
 * equal time. Ours: the cut at any dispatch instead of at layers, on one device instead of a pipeline, and who sits
 * where. Stages by tier.
 */
export const stageAligned: PolicyDefinition<Options> = {
  name: 'stageAligned',
  after: 'ParaFlex',
  summary: 'engines share lanes in segments as long as a decode step of the smallest model there',
  isWorkConserving: true,
  turnsMax: 1,
  options: optionsSchema,
  create: (options) => (snapshot) => plan(snapshot, options),
};

function plan(snapshot: Snapshot, options: Options): Plan {
  const draft = new Draft(snapshot);
  placeStages(draft, byTier(snapshot.requests));
  const allotment = new Allotment(draft);
  const seated = sitTogether(allotment, contenders(draft), options.engines_max);
  reach(allotment);
  const bounds = { minUs: options.segment_us_min, maxUs: SEGMENT_US_MAX };
  for (const lane of snapshot.lanes) align(draft, lane, seated.get(lane.id) ?? [], bounds);
  return draft.plan();
}

/** Orders the lane's segments when they are no longer what its engines need. */
function align(draft: Draft, lane: LaneState, jobs: readonly JobState[], bounds: SegmentBounds): void {
  if (!isUsable(lane)) return;
  const steps = jobs.length < 2 ? [] : jobs.flatMap((job) => engineOn(job, lane.id)?.stepMs ?? []);
  if (steps.length === 0) {
    if (lane.segment !== null) draft.segment(lane.id, null, 'no two engines alternate here');
    return;
  }
  const sliceUs = alignedSegmentUs(steps, bounds);
  const presentUs = lane.segment?.sliceUs ?? 0;
  if (sliceUs <= presentUs * DRIFT_MAX && presentUs <= sliceUs * DRIFT_MAX) return;
  // One on the device and one behind it: the device does not stand still, and nobody waits for more.
  draft.segment(
    lane.id,
    { sliceUs, inFlightUs: 2 * sliceUs },
    `a decode step of the fastest of ${jobs.length}`,
  );
}
