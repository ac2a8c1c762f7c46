import { assert } from '../lib/assert.js';

/**
 * Equal-time segments after ParaFlex (stage-aligned parallelism, SoCC 2025). From the title and what is said of it:
 * models of different size that share devices block each other at the head of the line where their stages take
 * unequal time, so the stages are cut to equal time. Our own: the arithmetic here, for one device on which the work of
 * any model may be cut between two dispatches.
 */

/** Bounds of a segment, in µs. */
export interface SegmentBounds {
  readonly minUs: number;
  readonly maxUs: number;
}

/**
 * The segment of a lane in whole µs: a decode step of the fastest engine there, so that this step is a segment of its
 * own and waits for no more than one of every other engine.
 *
 * @param stepsMs of its engines, each alone on the device
 */
export function alignedSegmentUs(stepsMs: readonly number[], { minUs, maxUs }: SegmentBounds): number {
  assert(stepsMs.length > 0, 'no step to align to');
  return Math.min(maxUs, Math.max(minUs, Math.ceil(Math.min(...stepsMs) * 1000)));
}

/** In how many segments work of this length is done, and how long each is: all alike, none longer than `segment`. */
export function evenSegments(
  work: number,
  segment: number,
): { readonly count: number; readonly length: number } {
  const count = Math.max(1, Math.ceil(work / segment));
  return { count, length: work / count };
}
