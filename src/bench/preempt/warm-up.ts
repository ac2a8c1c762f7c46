import { nowMs } from '../../lib/clock.js';
import type { CellPlan } from './grid.js';
import { measureCell, measureSolo, measureUnchunked, type Pacing } from './measure.js';
import type { Rig } from './rig.js';
import type { Segment } from './segment.js';
import { median } from './statistics.js';

const PASSES_MAX = 4;
const REQUESTS_PER_PASS = 6;
const SLICES_PER_PASS = 200;
const UNCHUNKED_MS = 500;
/** Predictions have settled once another pass makes them better by less than so much. */
const SETTLED = 0.9;

/**
 * Goes through everything that will be measured until predictions settle: drivers compile a kernel on its first use,
 * and the cost model learns each kernel at the sizes that each budget cuts it to.
 */
export async function warmUp(
  rig: Rig,
  plans: readonly CellPlan[],
  pacing: Omit<Pacing, 'requestsMax' | 'slicesKeptMax'>,
): Promise<void> {
  const { untilMs, interrupted } = pacing;
  await measureUnchunked(rig, nowMs() + UNCHUNKED_MS, interrupted);
  let error: number | null = null;
  for (let pass = 0; pass < PASSES_MAX; pass++) {
    const paced = { ...pacing, requestsMax: REQUESTS_PER_PASS, slicesKeptMax: SLICES_PER_PASS };
    const segments: Segment[] = [await measureSolo(rig, paced)];
    for (const plan of plans) {
      if (interrupted.aborted || nowMs() >= untilMs) return;
      segments.push(await measureCell(rig, plan, paced));
    }
    const before = error;
    error = predictionError(segments);
    if (before !== null && error !== null && error > SETTLED * before) return;
  }
}

/** Median |ln(real / predicted)| of low priority's slices. */
export function predictionError(segments: readonly Segment[]): number | null {
  const errors = segments.flatMap(({ slices }) =>
    slices.flatMap(({ predictedUs, realUs }) =>
      predictedUs > 0 && realUs > 0 ? [Math.abs(Math.log(realUs / predictedUs))] : [],
    ),
  );
  return median(errors);
}
