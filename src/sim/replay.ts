import { isDeepStrictEqual } from 'node:util';
import { reduce } from '../scheduler/events.js';
import type { Policy } from '../scheduler/plan.js';
import { decide, type PlanRecord } from '../scheduler/scheduler.js';
import { createSnapshot } from '../scheduler/state.js';

/** The first cycle that came out otherwise. */
export interface Divergence {
  readonly cycle: number;
  readonly recorded: PlanRecord['plan'];
  readonly replayed: PlanRecord['plan'];
}

/**
 * Decides everything again from the events alone, as recorded by a live run or a simulated one, from the first cycle on.
 *
 * @returns null when every plan is the same again.
 */
export function replay(records: readonly PlanRecord[], policy: Policy, laneCount: number): Divergence | null {
  const [first] = records;
  if (first === undefined) return null;
  let snapshot = createSnapshot(laneCount, first.events[0]?.timeMs ?? first.timeMs);
  for (const { cycle, events, plan } of records) {
    for (const { timeMs, event } of events) snapshot = reduce(snapshot, event, timeMs);
    const decision = decide(snapshot, policy);
    if (!isDeepStrictEqual(decision.plan, plan)) return { cycle, recorded: plan, replayed: decision.plan };
    snapshot = decision.next;
  }
  return null;
}
