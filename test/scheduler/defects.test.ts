import { describe, expect, it } from 'vitest';
import type { SchedulerEvent } from '#src/scheduler/events.js';
import type { Plan } from '#src/scheduler/plan.js';
import { POLICIES, policyNamed } from '#src/scheduler/policies/index.js';
import { OVERTAKEN_MAX } from '#src/scheduler/policies/stage-placement.js';
import { decide } from '#src/scheduler/scheduler.js';
import { engineOn, type Snapshot } from '#src/scheduler/state.js';
import { added, after, asks, awake, jobSpec, lanesUp, released, settled, wants } from './world.js';

/**
 * RLix's defects, as they were reproduced with its own code, over every policy there is. A policy that does not claim
 * one away is named here with the reason; any other that is registered is tested.
 */
const NOT_CLAIMED: Readonly<Record<string, ReadonlyMap<string, string>>> = {
  P1: new Map(),
  P2: new Map([['serial', 'the other job waits until the first finishes, whatever it asks for']]),
  P3: new Map([
    ['serial', 'the job that came first keeps everything'],
    ['static', 'lanes are dealt whatever runs on them'],
  ]),
  P4: new Map(),
};

const claiming = (defect: string): string[] =>
  [...POLICIES.keys()].filter((name) => NOT_CLAIMED[defect]?.has(name) !== true);

interface Cycle {
  readonly plan: Plan;
  readonly snapshot: Snapshot;
}

/** One cycle, everything it ordered carried out. */
function next(snapshot: Snapshot, name: string): Cycle {
  const decision = decide(snapshot, policyNamed(name));
  expect(decision.violations).toEqual([]);
  return { plan: decision.plan, snapshot: settled(decision.next) };
}

/** One cycle, everything it ordered carried out but that the engines of one job take for ever to wake. */
function asIf(name: string, snapshot: Snapshot, slow: string): Cycle {
  const decision = decide(snapshot, policyNamed(name));
  expect(decision.violations).toEqual([]);
  const events = [...decision.next.jobs.values()].flatMap(({ id, engines }) =>
    engines.flatMap(({ lane, status, version }): SchedulerEvent[] => {
      if (status === 'fallingAsleep') return [{ kind: 'fellAsleep', job: id, lane }];
      return status === 'waking' && id !== slow ? [{ kind: 'wokeUp', job: id, lane, version }] : [];
    }),
  );
  return { plan: decision.plan, snapshot: after(decision.next, ...events) };
}

function rest(snapshot: Snapshot, name: string): Snapshot {
  let rested = snapshot;
  for (let cycle = 0; cycle < 8; cycle++) rested = next(rested, name).snapshot;
  return rested;
}

const report = (job: string, lane: number, running: number) =>
  ({ kind: 'progress', job, lane, running, version: 0, tokens: 0 }) as const;
const generates = (snapshot: Snapshot, job: string, lane: number): boolean => {
  const state = snapshot.jobs.get(job);
  return ((state && engineOn(state, lane)?.slots) ?? 0) > 0;
};
const isGranted = (snapshot: Snapshot, request: number): boolean =>
  snapshot.grants.some((grant) => grant.request === request);

describe.each(claiming('P1'))(
  'P1, preempting for a request that still would not fit, is not in %s',
  (name) => {
    it('while another trains on one of its lanes', () => {
      // C wants to train on lanes 0 and 1; B trains on lane 1; A generates on lane 0 and would have to leave.
      let snapshot = after(
        lanesUp(2, 100),
        added(jobSpec('A', { engineBytes: 80 })),
        added(jobSpec('B', { trainerLane: 1, engineLanes: [] })),
        added(jobSpec('C', { engineLanes: [] })),
        wants('A', 4),
      );
      snapshot = rest(awake(snapshot, 'A', 0, 4), name);
      snapshot = rest(after(snapshot, asks('B', 'actorTraining', [1])), name);
      snapshot = after(snapshot, asks('C', 'actorTraining', [0, 1], 50));
      for (let round = 0; round < 20; round++) {
        const cycle = next(after(snapshot, report('A', 0, round % 4), wants('A', 4 + (round % 2))), name);
        expect([...cycle.plan.sleep, ...cycle.plan.wake]).toEqual([]);
        snapshot = cycle.snapshot;
      }
      if (!isGranted(snapshot, 1)) return;
      // Once B gives its lane back, one preemption is enough.
      const asleep = next(released(snapshot), name);
      expect(asleep.plan.sleep.map((order) => order.job)).toEqual(['A']);
      expect(next(asleep.snapshot, name).plan.grant.map((order) => order.request)).toEqual([2]);
    });

    it('while another trains on two of the four lanes it wants to initialise', () => {
      const half = (id: string, home: number, lanes: number[]) =>
        added(jobSpec(id, { trainerLane: home, engineLanes: lanes, engineBytes: 80 }));
      let snapshot = after(lanesUp(4, 100), half('P1', 0, [0, 1]), half('P2', 2, [2, 3]), wants('P2', 8));
      snapshot = rest(awake(awake(snapshot, 'P2', 2, 4), 'P2', 3, 4), name);
      snapshot = rest(after(snapshot, asks('P1', 'actorTraining', [0, 1])), name);
      snapshot = after(snapshot, added(jobSpec('P3', { engineLanes: [] })));
      // A newcomer may have the lanes dealt anew; after that nothing moves.
      snapshot = rest(after(snapshot, asks('P3', 'init', [0, 1, 2, 3], 50)), name);
      for (let round = 0; round < 20; round++) {
        const cycle = next(after(snapshot, wants('P2', 8 - (round % 3))), name);
        expect([...cycle.plan.sleep, ...cycle.plan.wake, ...cycle.plan.grant]).toEqual([]);
        snapshot = cycle.snapshot;
      }
    });

    it('while an engine on one of its lanes is still waking, which cannot leave before it is awake', () => {
      let snapshot = after(
        lanesUp(2, 100),
        added(jobSpec('A', { engineLanes: [0], engineBytes: 80 })),
        added(jobSpec('B', { engineLanes: [1], engineBytes: 80 })),
        added(jobSpec('C', { engineLanes: [] })),
        wants('A', 4),
        wants('B', 4),
      );
      for (let cycle = 0; cycle < 4; cycle++) snapshot = asIf(name, snapshot, 'A').snapshot;
      snapshot = after(snapshot, asks('C', 'init', [0, 1], 50));
      for (let round = 0; round < 5; round++) {
        const cycle = asIf(name, after(snapshot, wants('B', 4 + (round % 2))), 'A');
        expect(cycle.plan.sleep).toEqual([]);
        snapshot = cycle.snapshot;
      }
    });
  },
);

describe.each(claiming('P2'))(
  'P2, a tier starved by two alternating streams of another, is not in %s',
  (name) => {
    it('when the one that waits is the higher', () => {
      const jobs = ['low', 'high'].map((id) => added(jobSpec(id, { engineLanes: [] })));
      let snapshot = after(lanesUp(2), ...jobs);
      snapshot = next(
        after(snapshot, asks('low', 'oldLogProbs', [0]), asks('low', 'oldLogProbs', [1])),
        name,
      ).snapshot;
      snapshot = after(snapshot, asks('high', 'init', [0, 1]));
      let rounds = 0;
      for (; !isGranted(snapshot, 3); rounds++) {
        const [oldest] = snapshot.grants;
        if (oldest === undefined) throw new Error('nothing runs');
        const again = asks('low', 'oldLogProbs', oldest.lanes);
        snapshot = next(
          after(snapshot, { kind: 'stageReleased', request: oldest.request }, again),
          name,
        ).snapshot;
        expect(rounds).toBeLessThan(2);
      }
      // Both low stages that ran when `high` asked have ended, and none has begun since.
      expect(rounds).toBe(2);
      expect(snapshot.grants).toHaveLength(1);
    });

    it('when the one that waits is the lower', () => {
      let snapshot = after(lanesUp(1), added(jobSpec('low')), added(jobSpec('high')));
      snapshot = next(after(snapshot, asks('high', 'actorTraining', [0])), name).snapshot;
      snapshot = after(snapshot, asks('low', 'valueCompute', [0]));
      for (let rounds = 0; !isGranted(snapshot, 2); rounds++) {
        expect(rounds).toBeLessThanOrEqual(OVERTAKEN_MAX);
        snapshot = next(released(after(snapshot, asks('high', 'actorTraining', [0]))), name).snapshot;
      }
    });
  },
);

describe.each(claiming('P3'))('P3, victims chosen blindly, is not in %s', (name) => {
  it.each([0, 1, 2, 3])('when the straggler runs on lane %i', (straggler) => {
    const lanes = [0, 1, 2, 3];
    const where = { engineLanes: lanes, engineBytes: 60 };
    let snapshot = after(
      lanesUp(4, 100),
      added(jobSpec('A', { ...where, trainerLane: null })),
      added(jobSpec('B', { ...where, trainerLane: straggler === 0 ? 1 : 0 })),
      wants('A', 1),
      wants('B', 100),
    );
    for (const lane of lanes) snapshot = awake(snapshot, 'A', lane, lane === straggler ? 1 : 0);
    snapshot = rest(snapshot, name);
    expect(lanes.filter((lane) => generates(snapshot, 'A', lane))).toEqual([straggler]);
    expect(lanes.filter((lane) => generates(snapshot, 'B', lane))).toEqual(
      lanes.filter((lane) => lane !== straggler),
    );
  });
});

describe.each([...POLICIES.keys()])('a stage that needs room, under %s', (name) => {
  it('takes it from the engine that loses least', () => {
    const where = { trainerLane: null, engineLanes: [0], engineBytes: 40 };
    let snapshot = after(
      lanesUp(1, 100),
      added(jobSpec('A', where)),
      added(jobSpec('B', where)),
      added(jobSpec('C', { engineLanes: [] })),
      wants('A', 8),
      wants('B', 8),
    );
    snapshot = rest(awake(awake(snapshot, 'A', 0, 4), 'B', 0, 1), name);
    const here = [...snapshot.jobs.values()].flatMap(({ id, engines }) => (engines.length > 0 ? [id] : []));
    for (const id of here) snapshot = after(snapshot, report(id, 0, id === 'A' ? 4 : 1));
    const { plan } = next(after(snapshot, asks('C', 'init', [0], 50)), name);
    // Where only one is awake there is room enough.
    expect(plan.sleep.map(({ job }) => job)).toEqual(here.length === 2 ? ['B'] : []);
  });
});

describe.each(claiming('P4'))('P4, a finished job that keeps a lane, is not in %s', (name) => {
  it('whether it is done for good or for this step', () => {
    const where = { engineLanes: [0, 1], engineBytes: 60 };
    let snapshot = after(
      lanesUp(2, 100),
      added(jobSpec('A', where)),
      added(jobSpec('B', { ...where, trainerLane: 1 })),
      wants('A', 8),
    );
    snapshot = awake(awake(snapshot, 'A', 0, 4), 'A', 1, 4);
    snapshot = rest(
      after(snapshot, report('A', 0, 0), report('A', 1, 0), wants('A', 0), wants('B', 50)),
      name,
    );
    expect(generates(snapshot, 'A', 1)).toBe(false);
    // Nobody is planned for in vain, either.
    const { plan } = next(snapshot, name);
    expect([...plan.wake, ...plan.sleep, ...plan.resize]).toEqual([]);

    snapshot = next(
      after(snapshot, asks('A', 'actorTraining', [0]), asks('A', 'actorTraining', [0])),
      name,
    ).snapshot;
    expect([snapshot.grants.length, snapshot.requests.length]).toEqual([1, 1]);
    snapshot = rest(after(snapshot, { kind: 'jobFinished', job: 'A' }), name);
    expect(snapshot.jobs.has('A')).toBe(false);
    expect([snapshot.grants, snapshot.requests]).toEqual([[], []]);
    expect(generates(snapshot, 'B', 1)).toBe(true);
  });
});
