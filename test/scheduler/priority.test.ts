import { describe, expect, it } from 'vitest';
import { commit, isIdle, type Plan } from '#src/scheduler/plan.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { OVERTAKEN_MAX } from '#src/scheduler/policies/stage-placement.js';
import { decide } from '#src/scheduler/scheduler.js';
import { STAGES, tierOf } from '#src/scheduler/stages.js';
import type { Snapshot } from '#src/scheduler/state.js';
import { added, after, asks, awake, jobSpec, lanesUp, lines, released, settled, wants } from './world.js';

const priority = policyNamed('priority');

/** One cycle, everything it ordered carried out. */
function next(snapshot: Snapshot): { plan: Plan; snapshot: Snapshot } {
  const decision = decide(snapshot, priority);
  expect(decision.violations).toEqual([]);
  return { plan: decision.plan, snapshot: settled(decision.next) };
}

const planOf = (snapshot: Snapshot): string[] => lines(next(snapshot).plan);

describe('stages', () => {
  it('have the tiers of RLix', () => {
    expect(STAGES.map((stage) => [stage, tierOf(stage)])).toEqual([
      ['init', 0],
      ['actorTraining', 1],
      ['criticTraining', 2],
      ['oldLogProbs', 3],
      ['refLogProbs', 4],
      ['valueCompute', 5],
      ['generation', 6],
    ]);
  });

  it('are granted by tier, whatever the order of arrival', () => {
    const stages = STAGES.filter((stage) => stage !== 'generation');
    const backwards = stages.toReversed().map((stage) => asks('a', stage, [0]));
    let snapshot = after(lanesUp(1), added(jobSpec('a', { engineLanes: [] })), ...backwards);
    const granted: string[] = [];
    for (let step = 0; step < stages.length; step++) {
      snapshot = next(snapshot).snapshot;
      expect(snapshot.grants).toHaveLength(1);
      granted.push(...snapshot.grants.map((grant) => grant.stage));
      snapshot = released(snapshot);
    }
    expect(granted).toEqual(stages);
  });

  it('are granted in order of arrival within a tier', () => {
    let snapshot = after(lanesUp(1), added(jobSpec('a')), added(jobSpec('b')));
    snapshot = after(
      snapshot,
      asks('b', 'oldLogProbs', [0]),
      asks('a', 'oldLogProbs', [0]),
      asks('b', 'oldLogProbs', [0]),
    );
    const granted: number[] = [];
    for (let step = 0; step < 3; step++) {
      snapshot = next(snapshot).snapshot;
      granted.push(...snapshot.grants.map((grant) => grant.request));
      snapshot = released(snapshot);
    }
    expect(granted).toEqual([1, 2, 3]);
  });

  it('get all their lanes or none: init waits for the trainer that has one of them, and keeps the other', () => {
    let snapshot = after(
      lanesUp(2),
      added(jobSpec('a')),
      added(jobSpec('b', { trainerLane: 1, engineLanes: [1] })),
    );
    snapshot = next(after(snapshot, asks('a', 'actorTraining', [0]))).snapshot;
    snapshot = after(snapshot, asks('b', 'init', [0, 1]), asks('b', 'valueCompute', [1]));
    const { plan } = next(snapshot);
    expect(lines(plan)).toEqual(['keep 1 for 2', 'keep nothing for 3']);
    expect(plan.reservations.map((order) => order.reason)).toEqual([
      "a's actorTraining holds lane 0",
      "lane 1 is kept for b's init",
    ]);
    expect(planOf(released(snapshot))).toEqual(['grant 2', 'keep nothing for 3']);
  });

  it('run beside each other on different lanes', () => {
    const snapshot = after(
      lanesUp(2),
      added(jobSpec('a')),
      asks('a', 'actorTraining', [0]),
      asks('a', 'criticTraining', [1]),
    );
    expect(planOf(snapshot)).toEqual(['grant 1', 'grant 2', 'wake a on 0 with 4 at v0']);
  });

  it('wait for a lane that is reserved or lost without keeping their other lanes from anyone', () => {
    let snapshot = after(lanesUp(2), added(jobSpec('a', { engineLanes: [] })), {
      kind: 'laneReserved',
      lane: 1,
    });
    snapshot = after(snapshot, asks('a', 'init', [0, 1]), asks('a', 'valueCompute', [0]));
    const { plan } = next(snapshot);
    expect(lines(plan)).toEqual(['grant 2', 'keep nothing for 1']);
    expect(plan.reservations[0]?.reason).toBe('lane 1 is reserved');
  });

  it('do not put an engine to sleep where memory holds both', () => {
    const snapshot = awake(after(lanesUp(1), added(jobSpec('a')), wants('a', 4)), 'a', 0, 4);
    expect(planOf(after(snapshot, asks('a', 'actorTraining', [0], 10)))).toEqual(['grant 1']);
  });
});

describe('generation', () => {
  const two = jobSpec('a', { engineLanes: [0, 1] });

  it("is awake on the trainer's lane even without demand, and elsewhere while sequences have no slot", () => {
    const snapshot = after(lanesUp(2), added(two));
    expect(planOf(snapshot)).toEqual(['wake a on 0 with 4 at v0']);
    expect(planOf(after(snapshot, wants('a', 4)))).toEqual(['wake a on 0 with 4 at v0']);
    expect(planOf(after(snapshot, wants('a', 5)))).toEqual([
      'wake a on 0 with 4 at v0',
      'wake a on 1 with 4 at v0',
    ]);
  });

  it('wakes with the newest version only', () => {
    const publish = [1, 2, 7].map((version) => ({ kind: 'versionPublished', job: 'a', version }) as const);
    expect(planOf(after(lanesUp(2), added(two), ...publish))).toEqual(['wake a on 0 with 4 at v7']);
  });

  it('leaves a reserved lane, and comes back after it', () => {
    let snapshot = after(lanesUp(2), added(two), wants('a', 8));
    snapshot = next(snapshot).snapshot;
    const reserved = after(
      snapshot,
      { kind: 'progress', job: 'a', lane: 1, running: 3, version: 0, tokens: 0 },
      {
        kind: 'laneReserved',
        lane: 1,
      },
    );
    const { plan, snapshot: asleep } = next(reserved);
    expect(lines(plan)).toEqual(['sleep a on 1']);
    expect(plan.sleep[0]).toMatchObject({ moveTo: 'queue', reason: 'its lane is reserved' });
    expect(planOf(asleep)).toEqual([]);
    const back = after(
      asleep,
      { kind: 'versionPublished', job: 'a', version: 3 },
      { kind: 'laneUnreserved', lane: 1 },
    );
    expect(planOf(back)).toEqual(['wake a on 1 with 4 at v3']);
  });

  it('does not nap while rollouts that fit nowhere else wait for their environment', () => {
    const snapshot = next(after(lanesUp(2), added(two), wants('a', 8))).snapshot;
    expect(planOf(after(snapshot, wants('a', 5, 0)))).toEqual([]);
    expect(planOf(after(snapshot, wants('a', 4, 4)))).toEqual(['sleep a on 1']);
  });

  it('never sleeps for want of demand while something runs', () => {
    const snapshot = next(after(lanesUp(2), added(two), wants('a', 8))).snapshot;
    const running = after(
      snapshot,
      { kind: 'progress', job: 'a', lane: 1, running: 1, version: 0, tokens: 0 },
      wants('a', 1),
    );
    expect(planOf(running)).toEqual([]);
  });

  it('spreads over the emptiest lanes, jobs taking turns', () => {
    const lanes = [0, 1, 2, 3, 4];
    const jobs = ['a', 'b'].map((id) => added(jobSpec(id, { engineLanes: lanes, slotsMax: 2 })));
    const snapshot = after(lanesUp(5), ...jobs, wants('a', 6), wants('b', 6));
    expect(planOf(snapshot)).toEqual([
      'wake a on 0 with 2 at v0',
      'wake b on 0 with 2 at v0',
      'wake a on 1 with 2 at v0',
      'wake b on 2 with 2 at v0',
      'wake a on 3 with 2 at v0',
      'wake b on 4 with 2 at v0',
    ]);
  });

  it('wakes only where its bytes fit', () => {
    const big = jobSpec('a', { engineLanes: [0, 1, 2], engineBytes: 60 });
    const other = jobSpec('b', { trainerLane: 1, engineLanes: [], trainerBytes: 50 });
    const snapshot = after(lanesUp(3, 100), added(other), added(big), wants('a', 100));
    expect(planOf(snapshot)).toEqual(['wake a on 0 with 4 at v0', 'wake a on 2 with 4 at v0']);
  });

  it('makes room at home: an idle visitor leaves at once, a running one only for sequences without a slot', () => {
    const visitor = jobSpec('v', { trainerLane: null, engineBytes: 60 });
    const host = jobSpec('h', { engineBytes: 60 });
    const base = after(lanesUp(1, 100), added(visitor), added(host), wants('v', 4));
    expect(planOf(awake(base, 'v', 0, 0))).toEqual(['sleep v on 0']);
    expect(planOf(awake(base, 'v', 0, 2))).toEqual([]);
    expect(planOf(after(awake(base, 'v', 0, 2), wants('h', 1)))).toEqual(['sleep v on 0']);
    const { snapshot } = next(awake(base, 'v', 0, 0));
    expect(planOf(snapshot)).toEqual(['wake h on 0 with 4 at v0']);
  });

  it('keeps the room it makes at home from everyone else', () => {
    const guest = (id: string, engineBytes: number) => jobSpec(id, { trainerLane: null, engineBytes });
    const host = jobSpec('h', { engineBytes: 80 });
    const jobs = [guest('v', 60), guest('u', 40), host].map(added);
    const snapshot = awake(after(lanesUp(1, 100), ...jobs, wants('v', 4), wants('u', 4)), 'v', 0, 0);
    expect(planOf(snapshot)).toEqual(['sleep v on 0']);
  });

  it('gets all its slots back after a policy that gave fewer', () => {
    const snapshot = awake(after(lanesUp(2), added(two)), 'a', 0, 0, 1);
    expect(planOf(snapshot)).toEqual(['resize a on 0 to 4']);
    const small = awake(after(lanesUp(1, 100), added(jobSpec('a', { engineBytes: 60 }))), 'a', 0, 0, 1);
    expect(planOf(after(small, asks('a', 'init', [0], 50)))).toEqual(['sleep a on 0', 'keep 0 for 1']);
  });
});

describe('memory for a stage', () => {
  const visitor = (id: string, engineBytes: number) => jobSpec(id, { trainerLane: null, engineBytes });
  const trainer = jobSpec('t', { engineLanes: [] });

  it('comes from the engines that lose least, and from no more than needed', () => {
    let snapshot = after(lanesUp(1, 100), added(trainer));
    const engines = [
      ['busy', 40, 3],
      ['small', 10, 1],
      ['large', 40, 1],
    ] as const;
    for (const [id, bytes, running] of engines) {
      snapshot = awake(after(snapshot, added(visitor(id, bytes)), wants(id, 4)), id, 0, running);
    }
    expect(planOf(after(snapshot, asks('t', 'actorTraining', [0], 50)))).toEqual([
      'sleep large on 0',
      'keep 0 for 1',
    ]);
    expect(planOf(after(snapshot, asks('t', 'actorTraining', [0], 60)))).toEqual([
      'sleep large on 0',
      'sleep small on 0',
      'keep 0 for 1',
    ]);
    // Large alone is not enough, and with busy it is: small need not go.
    expect(planOf(after(snapshot, asks('t', 'actorTraining', [0], 85)))).toEqual([
      'sleep large on 0',
      'sleep busy on 0',
      'keep 0 for 1',
    ]);
  });

  it('is kept until the request has it', () => {
    let snapshot = awake(
      after(lanesUp(1, 100), added(trainer), added(visitor('v', 80)), wants('v', 4)),
      'v',
      0,
      4,
    );
    const asleep = next(after(snapshot, asks('t', 'actorTraining', [0], 50)));
    expect(lines(asleep.plan)).toEqual(['sleep v on 0', 'keep 0 for 1']);
    const granted = next(asleep.snapshot);
    expect(lines(granted.plan)).toEqual(['grant 1']);
    expect(planOf(granted.snapshot)).toEqual([]);
    expect(planOf(released(granted.snapshot))).toEqual(['wake v on 0 with 4 at v0']);
    snapshot = after(snapshot, asks('t', 'actorTraining', [0], 101));
    const { plan } = next(snapshot);
    expect(lines(plan)).toEqual(['keep nothing for 1']);
    expect(plan.reservations[0]?.reason).toBe('lane 0 can never free 101 bytes');
  });

  it('moves nobody while an engine on another of its lanes is still waking', () => {
    const both = (id: string) => jobSpec(id, { trainerLane: null, engineLanes: [0, 1], engineBytes: 80 });
    let snapshot = awake(after(lanesUp(2, 100), added(trainer), added(both('v')), wants('v', 8)), 'v', 0, 4);
    snapshot = commit(snapshot, priority(snapshot));
    expect(snapshot.jobs.get('v')?.engines.map((engine) => engine.status)).toEqual(['awake', 'waking']);
    snapshot = after(snapshot, asks('t', 'init', [0, 1], 50));
    expect(lines(priority(snapshot))).toEqual(['keep 0,1 for 1']);
    expect(lines(priority(settled(snapshot)))).toEqual(['sleep v on 0', 'sleep v on 1', 'keep 0,1 for 1']);
  });
});

describe("RLix's defects", () => {
  it('P1: nothing is preempted for a request that still would not fit', () => {
    // C wants to train on lanes 0 and 1; B trains on lane 1; A generates on lane 0 and would have to leave.
    let snapshot = after(
      lanesUp(2, 100),
      added(jobSpec('A', { engineBytes: 80 })),
      added(jobSpec('B', { trainerLane: 1, engineLanes: [] })),
      added(jobSpec('C', { engineLanes: [] })),
      wants('A', 4),
    );
    snapshot = next(awake(snapshot, 'A', 0, 4)).snapshot;
    snapshot = next(after(snapshot, asks('B', 'actorTraining', [1]))).snapshot;
    snapshot = after(snapshot, asks('C', 'actorTraining', [0, 1], 50));
    for (let round = 0; round < 20; round++) {
      const running = round % 4;
      const report = { kind: 'progress', job: 'A', lane: 0, running, version: 0, tokens: 0 } as const;
      const cycle = next(after(snapshot, report, wants('A', 4 + (round % 2))));
      expect(lines(cycle.plan)).toEqual(['keep 0 for 2']);
      snapshot = cycle.snapshot;
    }
    const asleep = next(released(snapshot));
    expect(lines(asleep.plan)).toEqual(['sleep A on 0', 'keep 0,1 for 2']);
    expect(planOf(asleep.snapshot)).toEqual(['grant 2']);
  });

  it('P2: two alternating streams of a low tier do not starve a high one', () => {
    let snapshot = after(
      lanesUp(2),
      added(jobSpec('low', { engineLanes: [] })),
      added(jobSpec('high', { engineLanes: [] })),
    );
    snapshot = next(
      after(snapshot, asks('low', 'oldLogProbs', [0]), asks('low', 'oldLogProbs', [1])),
    ).snapshot;
    snapshot = after(snapshot, asks('high', 'init', [0, 1]));
    const granted: number[] = [];
    while (!granted.includes(3)) {
      const [oldest] = snapshot.grants;
      if (oldest === undefined) throw new Error('nothing runs');
      const again = asks('low', 'oldLogProbs', oldest.lanes);
      const cycle = next(after(snapshot, { kind: 'stageReleased', request: oldest.request }, again));
      granted.push(...cycle.plan.grant.map((order) => order.request));
      snapshot = cycle.snapshot;
      expect(snapshot.lastRequest).toBeLessThanOrEqual(5);
    }
    // Both low stages that ran when `high` asked have ended, and none has begun since.
    expect(granted).toEqual([3]);
  });

  it('P2: nor does an endless stream of a high tier starve a low one', () => {
    let snapshot = after(lanesUp(1), added(jobSpec('low')), added(jobSpec('high')));
    snapshot = next(after(snapshot, asks('high', 'actorTraining', [0]))).snapshot;
    snapshot = after(snapshot, asks('low', 'valueCompute', [0]));
    let rounds = 0;
    while (!snapshot.grants.some((grant) => grant.job === 'low')) {
      snapshot = next(released(after(snapshot, asks('high', 'actorTraining', [0])))).snapshot;
      rounds++;
      expect(rounds).toBeLessThanOrEqual(OVERTAKEN_MAX + 1);
    }
    expect(rounds).toBe(OVERTAKEN_MAX + 1);
  });

  it('P3: the engine that runs the straggler stays, whichever lane it is on', () => {
    for (const straggler of [1, 2, 3]) {
      let snapshot = after(
        lanesUp(4, 100),
        added(jobSpec('A', { trainerLane: null, engineLanes: [0, 1, 2, 3], engineBytes: 60 })),
        added(jobSpec('B', { trainerLane: 0, engineLanes: [0, 1, 2, 3], engineBytes: 60 })),
        wants('A', 1),
        wants('B', 100),
      );
      for (const lane of [0, 1, 2, 3]) snapshot = awake(snapshot, 'A', lane, lane === straggler ? 1 : 0);
      const others = [0, 1, 2, 3].filter((lane) => lane !== straggler).toReversed();
      const cycle = next(snapshot);
      expect(lines(cycle.plan)).toEqual(others.map((lane) => `sleep A on ${lane}`));
      expect(planOf(cycle.snapshot).sort()).toEqual(
        others.map((lane) => `wake B on ${lane} with 4 at v0`).sort(),
      );
    }
  });

  it('P4: a finished job keeps nothing, and a job whose rollouts are all done keeps only its home', () => {
    let snapshot = after(
      lanesUp(2, 100),
      added(jobSpec('A', { engineLanes: [0, 1], engineBytes: 60 })),
      added(jobSpec('B', { trainerLane: 1, engineLanes: [0, 1], engineBytes: 60 })),
      wants('A', 8),
    );
    snapshot = awake(awake(snapshot, 'A', 0, 4), 'A', 1, 4);
    const done = [0, 1].map(
      (lane) => ({ kind: 'progress', job: 'A', lane, running: 0, version: 0, tokens: 0 }) as const,
    );
    snapshot = after(snapshot, ...done, wants('A', 0), wants('B', 50));
    const idle = next(snapshot);
    expect(lines(idle.plan)).toEqual(['sleep A on 1']);
    const taken = next(idle.snapshot);
    expect(lines(taken.plan)).toEqual(['wake B on 1 with 4 at v0']);
    expect(isIdle(next(taken.snapshot).plan)).toBe(true);

    const holding = next(
      after(taken.snapshot, asks('A', 'actorTraining', [0]), asks('A', 'actorTraining', [0])),
    ).snapshot;
    expect([holding.grants.length, holding.requests.length]).toEqual([1, 1]);
    const finished = next(after(holding, { kind: 'jobFinished', job: 'A' }));
    expect(lines(finished.plan)).toEqual(['sleep A on 0']);
    expect(finished.snapshot.jobs.has('A')).toBe(false);
    expect([finished.snapshot.grants, finished.snapshot.requests]).toEqual([[], []]);
    expect(planOf(finished.snapshot)).toEqual(['wake B on 0 with 4 at v0']);
  });
});
