import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { nowMs } from '#src/lib/clock.js';
import { JobReporter } from '#src/run/job-reporter.js';
import { TokenPace } from '#src/run/token-pace.js';
import { EMPTY_PLAN, type Plan } from '#src/scheduler/plan.js';
import { type Effects, type PlanRecord, Scheduler } from '#src/scheduler/scheduler.js';
import type { SchedulerEvent } from '#src/scheduler/events.js';
import type { Demand, JobSpec } from '#src/scheduler/state.js';
import { jobSpec } from '../scheduler/world.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A job whose engine is awake on lane 0, and what the scheduler is told of it. */
class Desk {
  readonly records: PlanRecord[] = [];
  readonly pace = new TokenPace();
  readonly reporter: JobReporter;
  readonly scheduler: Scheduler;
  demand: Demand = { rollouts: 0, runnable: 0, tokensRemaining: 0 };
  running = 0;

  private constructor(job: JobSpec) {
    const wake: Plan['wake'] = [{ job: job.id, lane: 0, slots: 4, version: 0, reason: 'test' }];
    let isFirst = true;
    const policy = (): Plan => {
      const plan = isFirst ? { ...EMPTY_PLAN, wake } : EMPTY_PLAN;
      isFirst = false;
      return plan;
    };
    this.scheduler = new Scheduler(policy, this.#effects(), 1);
    this.reporter = new JobReporter(job, {
      scheduler: this.scheduler,
      pool: this.#pool(),
      pace: this.pace,
      held: new Map(),
      deferredPrompts: () => 0,
    });
  }

  static async open(spec: Partial<JobSpec> = {}): Promise<Desk> {
    const desk = new Desk(jobSpec('a', spec));
    desk.scheduler.dispatch({ kind: 'laneReady', lane: 0, bytesCapacity: Infinity });
    desk.scheduler.dispatch({ kind: 'jobAdded', job: jobSpec('a', spec) });
    await turn();
    expect(desk.scheduler.snapshot.jobs.get('a')?.engines[0]?.status).toBe('awake');
    desk.records.length = 0;
    return desk;
  }

  get told(): SchedulerEvent[] {
    return this.records.flatMap(({ events }) => events.map(({ event }) => event));
  }

  wants(rollouts: number): void {
    this.demand = { rollouts, runnable: rollouts, tokensRemaining: 10 * rollouts };
    this.running = Math.min(4, rollouts);
    this.reporter.changed();
  }

  /** Each of its sequences samples a token. */
  samples(stepMs: number | null): void {
    const ids = Uint32Array.from({ length: this.running }, (_, id) => id);
    const values = new Float32Array(ids.length);
    const update = { ids, tokenIds: ids, logprobs: values, rawLogprobs: values, version: 0, finished: [] };
    this.pace.hear(0, update, stepMs);
    this.reporter.heard(0);
  }

  #pool(): ConstructorParameters<typeof JobReporter>[1]['pool'] {
    const desk = this as Desk;
    return {
      get demand() {
        return desk.demand;
      },
      get runnable() {
        return desk.demand.runnable;
      },
      runningOn: () => desk.running,
      takeEnded: () => [],
    };
  }

  #effects(): Effects {
    const done = (): Promise<void> => Promise.resolve();
    const fail = (what: unknown): never => expect.fail(String(what));
    return {
      nowMs,
      wake: ({ version }) => Promise.resolve(version),
      sleep: done,
      resize: done,
      segment: done,
      admit: done,
      rounds: () => undefined,
      reviewAt: () => undefined,
      record: (record) => this.records.push(record),
      violation: fail,
      failed: fail,
    };
  }
}

describe('what the scheduler is told of a job', () => {
  it('is told once, however much changed in a turn of the event loop', async () => {
    const desk = await Desk.open();
    for (let rollouts = 1; rollouts <= 50; rollouts++) desk.wants(rollouts);
    await turn();
    expect(desk.records).toHaveLength(1);
    const job = desk.scheduler.snapshot.jobs.get('a');
    expect(job?.demand.rollouts).toBe(50);
    expect(job?.engines[0]?.running).toBe(4);
  });

  it('waits for what comes soon after, unless work ends or begins', async () => {
    const desk = await Desk.open();
    desk.wants(50);
    await turn();
    for (let rollouts = 49; rollouts > 20; rollouts--) {
      desk.wants(rollouts);
      await turn();
    }
    const cycles = desk.records.length;
    expect(cycles).toBeLessThan(10);
    desk.wants(0);
    await turn();
    expect(desk.records).toHaveLength(cycles + 1);
    expect(desk.scheduler.snapshot.jobs.get('a')?.demand.rollouts).toBe(0);
  });

  it('is told in the end without anything more happening', async () => {
    const desk = await Desk.open();
    desk.wants(9);
    await turn();
    desk.wants(8);
    desk.wants(7);
    await sleep(50);
    expect(desk.scheduler.snapshot.jobs.get('a')?.demand.rollouts).toBe(7);
  });

  it('holds the latency every 100 ms while somebody waits for its tokens, and no more often', async () => {
    const desk = await Desk.open({ tokenLatencyMs: 30 });
    desk.wants(2);
    await turn();
    desk.records.length = 0;
    const startMs = nowMs();
    while (nowMs() < startMs + 450) {
      desk.samples(null);
      await sleep(2);
    }
    const reports = desk.told.filter(({ kind }) => kind === 'progress');
    expect(reports.length).toBeGreaterThanOrEqual(2);
    expect(reports.length).toBeLessThanOrEqual(5);
    for (const report of reports) expect(report).toHaveProperty('tokenLatencyMs');
  });

  it('holds a step when it becomes known or another, and nothing where that is no news', async () => {
    const desk = await Desk.open();
    desk.wants(2);
    await turn();
    const reportsAfter = async (stepMs: number | null): Promise<number> => {
      desk.records.length = 0;
      await sleep(110);
      desk.samples(stepMs);
      await turn();
      return desk.records.length;
    };
    expect(await reportsAfter(null)).toBe(0);
    expect(await reportsAfter(2)).toBe(1);
    expect(desk.scheduler.snapshot.jobs.get('a')?.engines[0]?.stepMs).toBe(2);
    expect(await reportsAfter(2.1)).toBe(0);
    expect(await reportsAfter(3)).toBe(1);
  });

  it('is nothing any more once it is closed', async () => {
    const desk = await Desk.open();
    desk.wants(3);
    desk.reporter.close();
    desk.wants(2);
    await sleep(30);
    expect(desk.records).toEqual([]);
  });
});
