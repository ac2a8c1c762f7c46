import { describe, expect, it } from 'vitest';
import type { Admission } from '#src/engine/admission.js';
import { Random } from '#src/lib/prng.js';
import { check, INVARIANTS, type Invariant } from '#src/scheduler/check.js';
import { reduce } from '#src/scheduler/events.js';
import type { Plan, WakeOrder } from '#src/scheduler/plan.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { decide } from '#src/scheduler/scheduler.js';
import {
  bytesFree,
  createSnapshot,
  engineOn,
  isUsable,
  mayLiveOn,
  type EngineState,
  type JobState,
  type LaneId,
  type Segment,
  type Snapshot,
  type StageRequest,
} from '#src/scheduler/state.js';
import { randomEvent } from './world.js';

const priority = policyNamed('priority');

const reason = 'corrupted';
const GOOD_SEGMENT: Segment = { sliceUs: 500, inFlightUs: 1000 };

/** What a corruption may draw from: everything is in order of the snapshot, so a seed gives the same plan again. */
class Scene {
  readonly jobs: readonly JobState[];
  readonly live: readonly JobState[];
  readonly #named: ReadonlySet<string>;

  constructor(
    readonly snapshot: Snapshot,
    readonly plan: Plan,
    readonly random: Random,
  ) {
    this.jobs = [...snapshot.jobs.values()];
    this.live = this.jobs.filter((job) => !job.finished);
    this.#named = new Set(
      [...plan.wake, ...plan.sleep, ...plan.resize].map(({ job, lane }) => `${job} ${lane}`),
    );
  }

  pick<T>(items: readonly T[]): T | null {
    return items.length === 0 ? null : this.random.pick(items);
  }

  /** Orders for one lane in use. */
  segment(...segments: readonly Segment[]): Plan | null {
    const lane = this.pick(this.snapshot.lanes.filter(({ id }) => this.usable(id)))?.id;
    if (lane === undefined) return null;
    return { ...this.plan, segments: segments.map((segment) => ({ lane, segment, reason })) };
  }

  usable(lane: LaneId): boolean {
    const state = this.snapshot.lanes[lane];
    return state !== undefined && isUsable(state);
  }

  /** Engines that no order names. */
  engines(status: EngineState['status'], jobs = this.jobs): { job: string; lane: LaneId }[] {
    return jobs.flatMap((job) =>
      job.engines
        .filter((engine) => engine.status === status && !this.#named.has(`${job.id} ${engine.lane}`))
        .map((engine) => ({ job: job.id, lane: engine.lane })),
    );
  }

  /** Orders to wake an engine that sleeps and that nobody named: right in all but what `where` asks for. */
  wakes(where: (job: JobState, lane: LaneId) => boolean): WakeOrder[] {
    return this.live.flatMap((job) =>
      job.engineLanes
        .filter(
          (lane) =>
            engineOn(job, lane) === undefined && !this.#named.has(`${job.id} ${lane}`) && where(job, lane),
        )
        .map((lane) => ({ job: job.id, lane, slots: 1, version: job.version, reason })),
    );
  }

  addWake(wake: WakeOrder | null): Plan | null {
    return wake === null ? null : { ...this.plan, wake: [...this.plan.wake, wake] };
  }

  addSleep(engine: { job: string; lane: LaneId } | null, moveTo: 'queue' | LaneId = 'queue'): Plan | null {
    if (engine === null) return null;
    return { ...this.plan, sleep: [...this.plan.sleep, { ...engine, moveTo, reason }] };
  }

  addResize(engine: { job: string; lane: LaneId } | null, slots = 1): Plan | null {
    if (engine === null) return null;
    return { ...this.plan, resize: [...this.plan.resize, { ...engine, slots, reason }] };
  }

  /** A rule that any engine with a cache can keep, if it has so many tokens. */
  admission(kvTokensMax: number): Admission {
    return { kvTokensMax, segments: [{ fromTokens: 0, sequencesMax: 3 }] };
  }

  /** An engine of a job that is not over, which no order names. */
  awakeToStay(): { job: string; lane: LaneId } | null {
    return this.pick(this.engines('awake', this.live));
  }

  addAdmission(
    engine: { job: string; lane: LaneId } | null,
    admission: Admission | null,
    plan = this.plan,
  ): Plan | null {
    if (engine === null) return null;
    const { job, lane } = engine;
    return { ...plan, admission: [...(plan.admission ?? []), { job, lane, admission, reason }] };
  }

  /** Grants a request that waits, in place of its reservation. */
  addGrant(request: StageRequest | null): Plan | null {
    if (request === null) return null;
    const reservations = this.plan.reservations.filter((other) => other.request !== request.id);
    return { ...this.plan, reservations, grant: [...this.plan.grant, { request: request.id, reason }] };
  }

  waiting(): StageRequest[] {
    const granted = new Set(this.plan.grant.map((order) => order.request));
    return this.snapshot.requests.filter((request) => !granted.has(request.id));
  }
}

type Corruption = (scene: Scene) => Plan | null;

function repeatOne(scene: Scene): Plan | null {
  const parts = (['wake', 'sleep', 'grant', 'reservations'] as const).filter(
    (part) => scene.plan[part].length > 0,
  );
  const part = scene.pick(parts);
  if (part === null) return null;
  const orders: readonly unknown[] = scene.plan[part];
  return { ...scene.plan, [part]: [...orders, scene.random.pick(orders)] };
}

/** At least one way to break each invariant, each leaving all others whole. */
const CORRUPTIONS: Readonly<Record<Exclude<Invariant, 0>, readonly Corruption[]>> = {
  1: [repeatOne],
  2: [
    (scene) => scene.addSleep({ job: 'nobody', lane: 0 }),
    (scene) => scene.addWake({ job: 'nobody', lane: 0, slots: 1, version: 0, reason }),
    (scene) => {
      const finished = scene.jobs.filter((job) => job.finished);
      return scene.addResize(scene.pick(scene.engines('waking', finished)));
    },
  ],
  3: [
    (scene) => {
      const isLive = ({ job }: { job: string }): boolean => scene.live.some((live) => live.id === job);
      const sleep = scene.pick(scene.plan.sleep.filter(isLive));
      return sleep === null ? null : scene.addResize({ job: sleep.job, lane: sleep.lane });
    },
    (scene) => {
      const wake = scene.pick(scene.plan.wake);
      return wake === null ? null : scene.addSleep({ job: wake.job, lane: wake.lane });
    },
  ],
  4: [
    (scene) => scene.addWake(scene.pick(scene.wakes((_, lane) => !scene.usable(lane)))),
    (scene) => {
      const stranded = scene.waiting().filter((request) => request.lanes.some((lane) => !scene.usable(lane)));
      return scene.addGrant(scene.pick(stranded));
    },
  ],
  5: [
    (scene) => scene.addSleep(scene.pick(scene.engines('waking'))),
    (scene) => scene.addResize(scene.pick(scene.engines('waking', scene.live))),
    (scene) => scene.addResize(scene.pick(scene.engines('fallingAsleep', scene.live))),
    (scene) => {
      const engine = scene.pick(scene.engines('awake', scene.live).filter(({ lane }) => scene.usable(lane)));
      const version = engine === null ? undefined : scene.snapshot.jobs.get(engine.job)?.version;
      return engine === null || version === undefined
        ? null
        : scene.addWake({ ...engine, slots: 1, version, reason });
    },
  ],
  6: [
    (scene) => {
      const job = scene.pick(scene.live);
      if (job === null) return null;
      const lane = scene.random.pick([-1, 0.5, NaN, scene.snapshot.lanes.length]);
      return scene.addWake({ job: job.id, lane, slots: 1, version: job.version, reason });
    },
    (scene) => {
      const job = scene.pick(scene.live);
      const lane = scene.pick(scene.snapshot.lanes.filter(({ id }) => job !== null && !mayLiveOn(job, id)));
      if (job === null || lane === null) return null;
      return scene.addWake({ job: job.id, lane: lane.id, slots: 1, version: job.version, reason });
    },
    (scene) => {
      const [first, ...others] = scene.plan.reservations;
      if (first === undefined) return null;
      return { ...scene.plan, reservations: [{ ...first, lanes: [...first.lanes, -1] }, ...others] };
    },
  ],
  7: [
    (scene) => {
      const [first, ...others] = scene.plan.wake;
      const job = first && scene.snapshot.jobs.get(first.job);
      if (first === undefined || job === undefined) return null;
      const slots = scene.random.pick([0, -1, 0.5, NaN, Infinity, job.slotsMax + 1]);
      return { ...scene.plan, wake: [{ ...first, slots }, ...others] };
    },
    (scene) =>
      scene.addResize(scene.pick(scene.engines('awake', scene.live)), scene.random.pick([-1, 1.5, NaN, 1e9])),
  ],
  8: [
    (scene) => ({
      ...scene.plan,
      grant: [...scene.plan.grant, { request: scene.snapshot.lastRequest + 1, reason }],
    }),
    (scene) => {
      const held = scene.pick(scene.snapshot.grants);
      return held === null
        ? null
        : { ...scene.plan, grant: [...scene.plan.grant, { request: held.request, reason }] };
    },
    (scene) => {
      const request = scene.pick([...scene.plan.reservations, ...scene.plan.grant])?.request;
      if (request === undefined) return null;
      const isGranted = scene.plan.grant.some((order) => order.request === request);
      const grant = isGranted ? scene.plan.grant : [...scene.plan.grant, { request, reason }];
      const kept = { request, lanes: [], reason };
      const reservations = isGranted ? [...scene.plan.reservations, kept] : scene.plan.reservations;
      return { ...scene.plan, grant, reservations };
    },
  ],
  9: [(scene) => scene.addSleep(scene.pick(scene.engines('fallingAsleep')))],
  10: [
    (scene) => {
      const held = new Set(scene.snapshot.grants.flatMap((grant) => grant.lanes));
      const blocked = scene
        .waiting()
        .filter((request) => request.lanes.some((lane) => held.has(lane)))
        .filter((request) => request.lanes.every((lane) => scene.usable(lane)));
      return scene.addGrant(scene.pick(blocked));
    },
    (scene) => {
      const behind = scene.waiting().filter((request) => {
        const others = scene.plan.reservations.filter((order) => order.request !== request.id);
        const isKept = others.some((order) => order.lanes.some((lane) => request.lanes.includes(lane)));
        return isKept && request.lanes.every((lane) => scene.usable(lane));
      });
      return scene.addGrant(scene.pick(behind));
    },
    (scene) => {
      const [first, ...others] = scene.plan.reservations.filter((order) => order.lanes.length > 0);
      const second = first && others.find((order) => order.request !== first.request);
      if (first === undefined || second === undefined) return null;
      const both = { ...second, lanes: [...second.lanes, ...first.lanes] };
      const reservations = scene.plan.reservations.map((order) => (order === second ? both : order));
      return { ...scene.plan, reservations };
    },
  ],
  11: [
    (scene) => scene.addSleep(scene.pick(scene.wakes(() => true))),
    (scene) => scene.addResize(scene.pick(scene.wakes(() => true))),
  ],
  12: [
    (scene) => {
      const free = bytesFree(scene.snapshot);
      const tooBig = scene.wakes((job, lane) => scene.usable(lane) && job.engineBytes > (free[lane] ?? 0));
      return scene.addWake(scene.pick(tooBig));
    },
    (scene) => {
      const free = bytesFree(scene.snapshot);
      const owned = [...scene.snapshot.grants, ...scene.plan.reservations].flatMap((owner) => owner.lanes);
      const granted = scene.snapshot.requests.filter((request) => !scene.waiting().includes(request));
      const isTaken = (lane: LaneId): boolean =>
        owned.includes(lane) || granted.some((request) => request.lanes.includes(lane));
      const tooBig = scene.waiting().filter((request) => {
        const { lanes, bytes } = request;
        return (
          lanes.some((lane) => bytes > (free[lane] ?? 0)) &&
          lanes.every((lane) => scene.usable(lane) && !isTaken(lane))
        );
      });
      return scene.addGrant(scene.pick(tooBig));
    },
  ],
  13: [
    (scene) => {
      const [first, ...others] = scene.plan.sleep;
      return first === undefined
        ? null
        : { ...scene.plan, sleep: [{ ...first, moveTo: first.lane }, ...others] };
    },
    (scene) => scene.addSleep(scene.pick(scene.engines('awake')), -1),
    (scene) => {
      const waking = scene.pick(scene.engines('waking'));
      const awake = scene.pick(scene.engines('awake').filter((engine) => engine.job === waking?.job));
      return waking === null ? null : scene.addSleep(awake, waking.lane);
    },
  ],
  14: [
    (scene) => {
      const [first, ...others] = scene.plan.wake;
      if (first === undefined) return null;
      const version = first.version + scene.random.pick([-1, 1]);
      return { ...scene.plan, wake: [{ ...first, version }, ...others] };
    },
  ],
  15: [
    (scene) => scene.addAdmission(scene.pick(scene.engines('waking')), scene.admission(64)),
    (scene) => {
      const sleep = scene.pick(scene.plan.sleep);
      return sleep === null ? null : scene.addAdmission(sleep, null);
    },
    (scene) =>
      scene.addAdmission(scene.awakeToStay(), scene.admission(scene.random.pick([1e9, 1, NaN, 64.5]))),
    (scene) => {
      const segments = scene.random.pick([
        [{ fromTokens: 1, sequencesMax: 1 }],
        [{ fromTokens: 0, sequencesMax: 0 }],
        [
          { fromTokens: 0, sequencesMax: 1 },
          { fromTokens: 0, sequencesMax: 1 },
        ],
      ]);
      return scene.addAdmission(scene.awakeToStay(), { ...scene.admission(64), segments });
    },
    (scene) => {
      const engine = scene.awakeToStay();
      return scene.addAdmission(engine, null, scene.addAdmission(engine, null) ?? scene.plan);
    },
  ],
  16: [
    (scene) => scene.segment(GOOD_SEGMENT, GOOD_SEGMENT),
    (scene) => scene.segment({ sliceUs: scene.random.pick([0, -5, 0.5, NaN, 1e7]), inFlightUs: 1e7 }),
    (scene) => scene.segment({ sliceUs: 500, inFlightUs: scene.random.pick([499, 1001, Infinity]) }),
    (scene) => {
      const lane = scene.pick(scene.snapshot.lanes.filter(({ id }) => !scene.usable(id)));
      return lane && { ...scene.plan, segments: [{ lane: lane.id, segment: GOOD_SEGMENT, reason }] };
    },
    (scene) => ({ ...scene.plan, segments: [{ lane: -1, segment: null, reason }] }),
  ],
  // Its other ways: rounds.test.ts.
  17: [(scene) => ({ ...scene.plan, rounds: [{ job: 'nobody', rounds: null, reason }] })],
};

describe('check', () => {
  it('finds every corruption of a good plan, under its own number and no other', () => {
    const found = new Map<string, number>();
    for (let seed = 0; seed < 100; seed++) {
      const random = new Random(seed).fork('corruption');
      let snapshot = createSnapshot(random.int(2, 5), 0);
      for (let cycle = 0; cycle < 100; cycle++) {
        for (let draws = random.int(1, 4); draws > 0; draws--) {
          const event = randomEvent(snapshot, random);
          if (event !== null) snapshot = reduce(snapshot, event, cycle);
        }
        const { plan, violations, next } = decide(snapshot, priority);
        if (violations.length > 0)
          throw new Error(`seed ${seed}, cycle ${cycle}: ${JSON.stringify(violations)}`);
        for (const [number, corruptions] of Object.entries(CORRUPTIONS)) {
          corruptions.forEach((corrupt, way) => {
            const corrupted = corrupt(new Scene(snapshot, plan, random));
            if (corrupted === null) return;
            const numbers = new Set(check(snapshot, corrupted).map((violation) => `${violation.invariant}`));
            const key = `${number}.${way}`;
            if (numbers.size !== 1 || !numbers.has(number)) {
              throw new Error(`seed ${seed}, cycle ${cycle}: ${key} was found as ${[...numbers].join(', ')}`);
            }
            found.set(key, (found.get(key) ?? 0) + 1);
          });
        }
        snapshot = next;
      }
    }
    for (const [number, corruptions] of Object.entries(CORRUPTIONS)) {
      corruptions.forEach((_, way) =>
        expect(found.get(`${number}.${way}`) ?? 0, `${number}.${way}`).toBeGreaterThan(20),
      );
    }
  });

  it('says of each what is wrong, with names and numbers', () => {
    const snapshot = createSnapshot(2, 5);
    const wake = [{ job: 'a', lane: 0, slots: 1, version: 0, reason }];
    expect(
      check(snapshot, { wake, sleep: [], resize: [], grant: [], reservations: [], reviewAtMs: 5 }),
    ).toEqual([
      {
        invariant: 0,
        message: 'it is past 5 ms, when the policy wants to be asked again',
        context: { reviewAtMs: 5, timeMs: 5 },
      },
      { invariant: 2, message: 'wake: there is no job a', context: { order: wake[0] } },
    ]);
    expect(Object.keys(INVARIANTS).map(Number)).toEqual(Array.from({ length: 18 }, (_, number) => number));
  });
});
