import type { Random } from '#src/lib/prng.js';
import { reduce, type SchedulerEvent } from '#src/scheduler/events.js';
import type { Plan, Policy } from '#src/scheduler/plan.js';
import { decide } from '#src/scheduler/scheduler.js';
import { createSnapshot, type Snapshot } from '#src/scheduler/state.js';
import { randomEvent } from './world.js';

export interface Cycle {
  readonly where: string;
  readonly before: Snapshot;
  readonly events: readonly SchedulerEvent[];
  readonly plan: Plan;
  readonly next: Snapshot;
}

/** Like `expect`, at a price that allows a hundred thousand of them. */
export function hold(condition: boolean, message: () => string): void {
  if (!condition) throw new Error(message());
}

/** So many cycles of a random world under the policy, which breaks no invariant. The time is the number of the event. */
export function randomCycles(policy: Policy, random: Random, cycles: number, world: string): Cycle[] {
  let snapshot = createSnapshot(random.int(1, 5), 0);
  return Array.from({ length: cycles }, (_, index) => {
    const where = `${world}, cycle ${index}`;
    const events: SchedulerEvent[] = [];
    for (let draws = random.int(1, 4); draws > 0; draws--) {
      const event = randomEvent(snapshot, random);
      if (event === null) continue;
      snapshot = reduce(snapshot, event, snapshot.timeMs + 1);
      events.push(event);
    }
    const before = snapshot;
    const { plan, violations, next } = decide(before, policy);
    hold(violations.length === 0, () => `${where}: ${JSON.stringify(violations)}`);
    snapshot = next;
    return { where, before, events, plan, next };
  });
}
