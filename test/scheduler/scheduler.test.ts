import { describe, expect, it } from 'vitest';
import { reduce, type SchedulerEvent } from '#src/scheduler/events.js';
import {
  EMPTY_PLAN,
  type Policy,
  type ResizeOrder,
  type SegmentOrder,
  type SleepOrder,
  type WakeOrder,
} from '#src/scheduler/plan.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { decide, Scheduler, StageRefused, type Effects, type PlanRecord } from '#src/scheduler/scheduler.js';
import { createSnapshot, type Snapshot } from '#src/scheduler/state.js';
import { added, jobSpec, lines, wants } from './world.js';

const priority = policyNamed('priority');

/** An order that its lane has not answered yet. */
interface Pending<Order> {
  readonly order: Order;
  answer(version?: number): Promise<void>;
  refuse(reason: string): Promise<void>;
}

/** Lanes that answer when the test says so, on a clock that goes on by 1 ms a reading. */
class FakeLanes implements Effects {
  readonly waking: Pending<WakeOrder>[] = [];
  readonly fallingAsleep: Pending<SleepOrder>[] = [];
  readonly resizing: Pending<ResizeOrder>[] = [];
  readonly aligning: Pending<SegmentOrder>[] = [];
  readonly records: PlanRecord[] = [];
  readonly violations: string[] = [];
  readonly failures: string[] = [];
  readonly reviews: number[] = [];
  #timeMs = 0;

  nowMs(): number {
    return this.#timeMs++;
  }

  wake(order: WakeOrder): Promise<number> {
    return pending(this.waking, order, (version) => version ?? order.version);
  }

  sleep(order: SleepOrder): Promise<void> {
    return pending(this.fallingAsleep, order, () => undefined);
  }

  resize(order: ResizeOrder): Promise<void> {
    return pending(this.resizing, order, () => undefined);
  }

  segment(order: SegmentOrder): Promise<void> {
    return pending(this.aligning, order, () => undefined);
  }

  admit(): Promise<void> {
    return Promise.resolve();
  }

  rounds(): void {
    // No job here has rounds.
  }

  reviewAt(timeMs: number): void {
    this.reviews.push(timeMs);
  }

  record(record: PlanRecord): void {
    this.records.push(record);
  }

  violation(violations: readonly { invariant: number; message: string }[]): void {
    for (const { invariant, message } of violations) this.violations.push(`${invariant}: ${message}`);
  }

  failed(error: Error): void {
    this.failures.push(error.message);
  }
}

function pending<Order, Answer>(
  list: Pending<Order>[],
  order: Order,
  answerOf: (version?: number) => Answer,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    list.push({
      order,
      answer: (version) => (resolve(answerOf(version)), turn()),
      refuse: (reason) => (reject(new Error(reason)), turn()),
    });
  });
}

/** Lets everything that is due happen. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function start(laneCount: number, policy: Policy = priority): { lanes: FakeLanes; scheduler: Scheduler } {
  const lanes = new FakeLanes();
  const scheduler = new Scheduler(policy, lanes, laneCount);
  for (let lane = 0; lane < laneCount; lane++)
    scheduler.dispatch({ kind: 'laneReady', lane, bytesCapacity: 100 });
  return { lanes, scheduler };
}

const engines = (scheduler: Scheduler, job: string): string[] =>
  (scheduler.snapshot.jobs.get(job)?.engines ?? []).map(
    (engine) => `${engine.lane} ${engine.status} v${engine.version}`,
  );

describe('Scheduler', () => {
  it('plans once for all events of a task, after it', async () => {
    const { lanes, scheduler } = start(2);
    scheduler.dispatch(added(jobSpec('a', { engineLanes: [0, 1] })));
    scheduler.dispatch(wants('a', 8));
    expect(lanes.records).toEqual([]);
    await turn();
    expect(lanes.records).toHaveLength(1);
    expect(lanes.records[0]).toMatchObject({ cycle: 1, violations: [] });
    expect(lanes.records[0]?.events.map(({ event }) => event.kind)).toEqual([
      'laneReady',
      'laneReady',
      'jobAdded',
      'demandChanged',
    ]);
    expect(lanes.waking.map(({ order }) => order.lane)).toEqual([0, 1]);
    expect(engines(scheduler, 'a')).toEqual(['0 waking v0', '1 waking v0']);
    await turn();
    expect(lanes.records).toHaveLength(1);
  });

  it('grants a stage while a wake is still under way, and the next one on release', async () => {
    const { lanes, scheduler } = start(1);
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    expect(lanes.waking).toHaveLength(1);
    const first = await scheduler.request({ job: 'a', stage: 'actorTraining', lanes: [0] });
    const order: string[] = [];
    const second = scheduler.request({ job: 'a', stage: 'oldLogProbs', lanes: [0] }).then((grant) => {
      order.push('granted');
      return grant;
    });
    await turn();
    order.push('released');
    scheduler.release(first);
    await expect(second).resolves.toMatchObject({ job: 'a', stage: 'oldLogProbs', lanes: [0], request: 2 });
    expect(order).toEqual(['released', 'granted']);
    expect(engines(scheduler, 'a')).toEqual(['0 waking v0']);
  });

  it('takes the answers of lanes as events: awake with the version loaded, asleep when its memory is free', async () => {
    const { lanes, scheduler } = start(2);
    scheduler.dispatch(added(jobSpec('a', { engineLanes: [0, 1], engineBytes: 60 })));
    scheduler.dispatch(wants('a', 8));
    await turn();
    scheduler.dispatch({ kind: 'versionPublished', job: 'a', version: 4 });
    await lanes.waking[1]?.answer(4);
    expect(engines(scheduler, 'a')).toEqual(['0 waking v0', '1 awake v4']);
    scheduler.dispatch({ kind: 'laneReserved', lane: 1 });
    await turn();
    expect(engines(scheduler, 'a')).toEqual(['0 waking v0', '1 fallingAsleep v4']);
    await lanes.fallingAsleep[0]?.answer();
    expect(engines(scheduler, 'a')).toEqual(['0 waking v0']);
  });

  it('counts a lane that refuses an order as lost; others carry on, and it may come back', async () => {
    const { lanes, scheduler } = start(2);
    scheduler.dispatch(added(jobSpec('a', { engineLanes: [0, 1] })));
    scheduler.dispatch(wants('a', 8));
    await turn();
    await lanes.waking[1]?.refuse('device lost');
    await lanes.waking[0]?.answer();
    expect(scheduler.snapshot.lanes.map((lane) => lane.health)).toEqual(['ready', 'lost']);
    expect(engines(scheduler, 'a')).toEqual(['0 awake v0']);
    const told = lanes.records.flatMap((record) => record.events.map(({ event }) => event));
    expect(told).toContainEqual({ kind: 'laneLost', lane: 1, reason: 'waking a: device lost' });
    scheduler.dispatch({ kind: 'laneReady', lane: 1, bytesCapacity: 100 });
    await turn();
    expect(engines(scheduler, 'a')).toEqual(['0 awake v0', '1 waking v0']);
    expect(lanes.failures).toEqual([]);
  });

  it('does not listen to what a lane says after it was lost, nor take it for its replacement', async () => {
    const { lanes, scheduler } = start(1);
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    scheduler.dispatch({ kind: 'laneLost', lane: 0, reason: 'test' });
    await lanes.waking[0]?.refuse('thread has exited');
    scheduler.dispatch({ kind: 'laneReady', lane: 0, bytesCapacity: 100 });
    await turn();
    scheduler.dispatch({ kind: 'laneLost', lane: 0, reason: 'test' });
    scheduler.dispatch({ kind: 'laneReady', lane: 0, bytesCapacity: 100 });
    await turn();
    expect(lanes.waking).toHaveLength(3);
    await lanes.waking[1]?.refuse('thread has exited');
    expect(scheduler.snapshot.lanes[0]?.health).toBe('ready');
    expect(engines(scheduler, 'a')).toEqual(['0 waking v0']);
    await lanes.waking[2]?.answer();
    expect(engines(scheduler, 'a')).toEqual(['0 awake v0']);
    expect(lanes.failures).toEqual([]);
  });

  it('throws a bad plan away, names the invariant, and goes on under what was planned before', async () => {
    let isBad = false;
    const { lanes, scheduler } = start(1, (snapshot) => {
      if (!isBad) return priority(snapshot);
      return { ...priority(snapshot), grant: [{ request: 99, reason: 'why not' }] };
    });
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    const held = await scheduler.request({ job: 'a', stage: 'init', lanes: [0] });
    isBad = true;
    scheduler.release(held);
    const request = scheduler.request({ job: 'a', stage: 'actorTraining', lanes: [0] });
    await turn();
    expect(lanes.violations).toEqual(['8: grant: no request 99 waits']);
    expect(lanes.records.at(-1)?.violations).toHaveLength(1);
    expect(scheduler.snapshot.requests).toHaveLength(1);
    expect(engines(scheduler, 'a')).toEqual(['0 waking v0']);
    isBad = false;
    scheduler.dispatch({ kind: 'tick' });
    await expect(request).resolves.toMatchObject({ stage: 'actorTraining' });
  });

  it('takes a policy that throws, or answers with something else, for one that breaks invariant 0', async () => {
    let answer: Policy = () => {
      throw new Error('no idea');
    };
    const { lanes, scheduler } = start(1, (snapshot) => answer(snapshot));
    await turn();
    // What a policy written without types may do.
    answer = () => JSON.parse('{"wake":[]}') as ReturnType<Policy>;
    scheduler.dispatch({ kind: 'tick' });
    await turn();
    answer = () => EMPTY_PLAN;
    scheduler.dispatch({ kind: 'tick' });
    await turn();
    expect(lanes.violations).toHaveLength(2);
    expect(lanes.violations[0]).toBe('0: the policy gave no plan: no idea');
    expect(lanes.violations[1]).toMatch(/^0: the policy gave no plan: .*not iterable|undefined/);
    expect(lanes.failures).toEqual([]);
  });

  it('gives a policy its memory back, and passes on when it wants to be asked again', async () => {
    const seen: unknown[] = [];
    const { lanes, scheduler } = start(1, (snapshot) => {
      seen.push(snapshot.memory);
      const turns = typeof snapshot.memory === 'number' ? snapshot.memory + 1 : 1;
      return { ...EMPTY_PLAN, memory: turns, reviewAtMs: snapshot.timeMs + 50 };
    });
    await turn();
    scheduler.dispatch({ kind: 'tick' });
    await turn();
    expect(seen).toEqual([null, 1]);
    expect(lanes.reviews).toEqual(lanes.records.map((record) => record.timeMs + 50));
  });

  it('refuses what a job still waits for when it finishes, and takes back what it holds', async () => {
    const { lanes, scheduler } = start(1);
    scheduler.dispatch(added(jobSpec('a')));
    scheduler.dispatch(added(jobSpec('b')));
    const held = await scheduler.request({ job: 'a', stage: 'init', lanes: [0] });
    const waiting = scheduler.request({ job: 'a', stage: 'actorTraining', lanes: [0] });
    const other = scheduler.request({ job: 'b', stage: 'valueCompute', lanes: [0] });
    scheduler.dispatch({ kind: 'jobFinished', job: 'a' });
    await expect(waiting).rejects.toThrow(StageRefused);
    await expect(other).resolves.toMatchObject({ job: 'b' });
    scheduler.release(held);
    const again = await other;
    scheduler.release(again);
    expect(() => scheduler.release(again)).toThrow('request 3 holds nothing');
    expect(lanes.failures).toEqual([]);
  });

  it('gives a stage back however the work in it ends', async () => {
    const { scheduler } = start(1);
    scheduler.dispatch(added(jobSpec('a')));
    const ask = { job: 'a', stage: 'actorTraining', lanes: [0] } as const;
    const failing = scheduler.during(ask, () => Promise.reject(new Error('diverged')));
    await expect(failing).rejects.toThrow('diverged');
    expect(scheduler.snapshot.grants).toEqual([]);
    const seen = await scheduler.during(ask, (grant) =>
      Promise.resolve([grant.request, scheduler.snapshot.grants.length]),
    );
    expect(seen).toEqual([2, 1]);
    expect(scheduler.snapshot.grants).toEqual([]);
  });

  it('throws at whoever reports what cannot be, and keeps its state', async () => {
    const { scheduler } = start(1);
    scheduler.dispatch(added(jobSpec('a', { version: 2 })));
    const before = scheduler.snapshot;
    const impossible: [SchedulerEvent, string][] = [
      [{ kind: 'laneReady', lane: 0, bytesCapacity: 1 }, 'lane 0 came up twice'],
      [{ kind: 'laneLost', lane: 7, reason: '' }, 'index 7 of 1'],
      [{ kind: 'laneUnreserved', lane: 0 }, 'lane 0 is not reserved'],
      [added(jobSpec('a')), 'job a is there already'],
      [{ kind: 'versionPublished', job: 'a', version: 2 }, 'a: version 2 after 2'],
      [{ kind: 'wokeUp', job: 'a', lane: 0, version: 2 }, 'a is asleep on lane 0'],
      [{ kind: 'stageReleased', request: 1 }, 'request 1 holds nothing'],
      [{ kind: 'jobFinished', job: 'b' }, 'no job b'],
      [wants('a', 1, 2), 'a: 2 runnable of 1'],
    ];
    for (const [event, message] of impossible) expect(() => scheduler.dispatch(event)).toThrow(message);
    expect(scheduler.snapshot).toBe(before);
    await expect(scheduler.request({ job: 'a', stage: 'init', lanes: [] })).rejects.toThrow(
      "a's init asks for lanes",
    );
    await expect(scheduler.request({ job: 'a', stage: 'init', lanes: [0, 0] })).rejects.toThrow(
      'asks for lanes 0, 0',
    );
    await expect(scheduler.request({ job: 'a', stage: 'init', lanes: [3] })).rejects.toThrow('no lane 3');
  });

  it('refuses everything once closed, and ignores late answers', async () => {
    const { lanes, scheduler } = start(1);
    scheduler.dispatch(added(jobSpec('a')));
    await turn();
    const held = await scheduler.request({ job: 'a', stage: 'init', lanes: [0] });
    const waiting = scheduler.request({ job: 'a', stage: 'init', lanes: [0] });
    scheduler.close();
    await expect(waiting).rejects.toThrow('the scheduler is closed');
    await expect(scheduler.request({ job: 'a', stage: 'init', lanes: [0] })).rejects.toThrow(StageRefused);
    const cycles = lanes.records.length;
    scheduler.release(held);
    await lanes.waking[0]?.refuse('closing');
    expect(lanes.records).toHaveLength(cycles);
    expect(lanes.failures).toEqual([]);
  });

  it('closes on a bug, in an effect or in an answer, and says so', async () => {
    const broken = start(1);
    broken.lanes.record = () => {
      throw new Error('the trace is full');
    };
    broken.scheduler.dispatch(added(jobSpec('a')));
    await expect(broken.scheduler.request({ job: 'a', stage: 'init', lanes: [0] })).rejects.toThrow(
      'the trace is full',
    );
    expect(broken.lanes.failures).toEqual(['the trace is full']);

    const torn = start(1);
    torn.scheduler.dispatch(added(jobSpec('a', { version: 3 })));
    await turn();
    await torn.lanes.waking[0]?.answer(2);
    expect(torn.lanes.failures).toEqual(['assertion failed: told to load version 3, loaded 2']);
  });

  it('decides in a replay of its records what it decided live', async () => {
    const { lanes, scheduler } = start(3);
    for (const [index, id] of ['a', 'b', 'c'].entries()) {
      scheduler.dispatch(added(jobSpec(id, { trainerLane: index, engineLanes: [0, 1, 2], engineBytes: 40 })));
      scheduler.dispatch(wants(id, 9));
    }
    const job = async (id: string, lane: number): Promise<void> => {
      for (let step = 1; step <= 5; step++) {
        const both = step % 2 === 0 ? [0, 1, 2] : [lane];
        await scheduler.during({ job: id, stage: 'actorTraining', lanes: both, bytes: 50 }, turn);
        scheduler.dispatch({ kind: 'versionPublished', job: id, version: step });
        scheduler.dispatch(wants(id, 9 - step));
      }
      scheduler.dispatch({ kind: 'jobFinished', job: id });
    };
    let isDone = false;
    const jobs = Promise.all([job('a', 0), job('b', 1), job('c', 2)]).finally(() => (isDone = true));
    while (!isDone) {
      await lanes.waking.shift()?.answer();
      await lanes.fallingAsleep.shift()?.answer();
      await turn();
    }
    await jobs;
    while (lanes.waking.length + lanes.fallingAsleep.length > 0) {
      await lanes.waking.shift()?.answer();
      await lanes.fallingAsleep.shift()?.answer();
    }
    expect(scheduler.snapshot.jobs.size).toBe(0);

    let snapshot: Snapshot = createSnapshot(3, 0);
    for (const record of lanes.records) {
      for (const { timeMs, event } of record.events) snapshot = reduce(snapshot, event, timeMs);
      const decision = decide(snapshot, priority);
      expect(decision.plan, `cycle ${record.cycle}: ${lines(record.plan).join('; ')}`).toEqual(record.plan);
      snapshot = decision.next;
    }
    expect(snapshot).toEqual(scheduler.snapshot);
    expect(lanes.records.filter((record) => record.plan.sleep.length > 0).length).toBeGreaterThan(2);
  });
});
