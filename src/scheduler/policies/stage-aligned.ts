import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { SEGMENT_US_MAX } from '../check.js';
import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import { alignedSegmentUs, type SegmentBounds } from '../segments.js';
import { isUsable, type LaneState, type Snapshot } from '../state.js';
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
  const steps = stepsMs(allotment);
  for (const lane of snapshot.lanes) {
    const engines = seated.get(lane.id)?.length ?? 0;
    align(draft, lane, { engines, stepMs: at(steps, lane.id) }, bounds);
  }
  return draft.plan();
}

/** By lane: a decode step of the fastest engine that is there and shall generate, in ms; Infinity where none has told. */
function stepsMs(allotment: Allotment): Float64Array {
  const { lanes, jobs } = allotment.draft.snapshot;
  const least = new Float64Array(lanes.length).fill(Infinity);
  for (const job of jobs.values()) {
    for (const { lane, stepMs } of job.engines) {
      if (stepMs === null || stepMs >= at(least, lane) || allotment.slots(job, lane) === 0) continue;
      least[lane] = stepMs;
    }
  }
  return least;
}

/** Who is to generate on a lane: how many engines, and a step of the fastest of them in ms. */
interface Company {
  readonly engines: number;
  readonly stepMs: number;
}

/** Orders the lane's segments when they are no longer what its engines need. */
function align(draft: Draft, lane: LaneState, { engines, stepMs }: Company, bounds: SegmentBounds): void {
  if (!isUsable(lane)) return;
  if (engines < 2 || stepMs === Infinity) {
    if (lane.segment !== null) draft.segment(lane.id, null, 'no two engines alternate here');
    return;
  }
  const sliceUs = alignedSegmentUs([stepMs], bounds);
  const presentUs = lane.segment?.sliceUs ?? 0;
  if (sliceUs <= presentUs * DRIFT_MAX && presentUs <= sliceUs * DRIFT_MAX) return;
  // One on the device and one behind it: the device does not stand still, and nobody waits for more.
  draft.segment(lane.id, { sliceUs, inFlightUs: 2 * sliceUs }, `a decode step of the fastest of ${engines}`);
}
