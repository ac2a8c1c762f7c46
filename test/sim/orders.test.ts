import { describe, expect, it } from 'vitest';
import type { Plan, Policy } from '#src/scheduler/plan.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { replay } from '#src/sim/replay.js';
import { simulate } from '#src/sim/simulate.js';
import { job, lanes, scenario } from './scenarios.js';

const priority = policyNamed('priority');

/** `priority`, changed by the test while a's engine is awake on that lane, and asked again at a time it names. */
function changed(
  reviewsMs: readonly number[],
  lane: number,
  change: (plan: Plan, timeMs: number) => Partial<Plan>,
): Policy {
  return (snapshot) => {
    const plan = priority(snapshot);
    const reviewAtMs = reviewsMs.find((ms) => ms > snapshot.timeMs);
    const own = snapshot.jobs.get('a');
    const engine = own?.engines.find((state) => state.lane === lane);
    const changes =
      engine?.status === 'awake' && own?.finished === false ? change(plan, snapshot.timeMs) : {};
    return { ...plan, ...changes, ...(reviewAtMs === undefined ? {} : { reviewAtMs }) };
  };
}

describe('orders that priority never gives', () => {
  it('an engine of 0 slots holds its sequences where they are, and goes on without reading anything again', async () => {
    const hold = changed([20, 45], 0, (_, timeMs) => ({
      resize: [{ job: 'a', lane: 0, slots: timeMs >= 20 && timeMs < 45 ? 0 : 8, reason: 'test' }],
    }));
    const outcome = await simulate(scenario([job('a')]), hold);
    expect(outcome.firstViolation).toBeNull();
    expect(outcome.makespanMs).toBeCloseTo(166 + 25, 6);
    expect(outcome.jobs[0]).toMatchObject({ tokensRecomputed: 0, tokens: { decoded: 10, trained: 10 } });
    const generation = outcome.busy.find(({ kind }) => kind === 'generation');
    expect(generation?.ms).toBeCloseTo(50, 6);
    expect(replay(outcome.plans, hold, 1)).toBeNull();
  });

  it('with fewer slots the newest sequence waits', async () => {
    const narrow = changed([20], 0, (_, timeMs) => ({
      resize: timeMs >= 20 ? [{ job: 'a', lane: 0, slots: 1, reason: 'test' }] : [],
    }));
    const outcome = await simulate(scenario([job('a')]), narrow);
    // One ends at 50 ms; the other has its third to fifth token after that.
    expect(outcome.makespanMs).toBeCloseTo(80 + 116, 6);
  });

  it('sequences of an engine put to sleep can move to another, which reads all they have again', async () => {
    const sleepOnce = changed([20], 1, ({ sleep }, timeMs) => ({
      sleep: timeMs === 20 ? [{ job: 'a', lane: 1, moveTo: 0, reason: 'test' }] : sleep,
    }));
    const move: Policy = (snapshot) => {
      const plan = sleepOnce(snapshot);
      return snapshot.timeMs < 20 ? plan : { ...plan, wake: plan.wake.filter(({ lane }) => lane === 0) };
    };
    const spec = job('a', { slotsMax: 1, engineLanes: [0, 1] });
    const outcome = await simulate(scenario([spec], { lanes: lanes(2) }), move);
    expect(outcome.firstViolation).toBeNull();
    // Each lane has two tokens of its sequence by 20 ms; the one that moved waits for the slot and needs 30 ms then.
    expect(outcome.makespanMs).toBeCloseTo(80 + 116, 6);
    expect(outcome.jobs[0]).toMatchObject({ tokensRecomputed: 5, tokens: { decoded: 10, trained: 10 } });
  });
});
