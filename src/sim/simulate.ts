import { setImmediate as turn } from 'node:timers/promises';
import { assert, at } from '../lib/assert.js';
import type { Policy } from '../scheduler/plan.js';
import { type Effects, Scheduler } from '../scheduler/scheduler.js';
import { SimClock, Timer } from './clock.js';
import { Desk } from './desk.js';
import { laneSpeeds, scheduleLosses } from './faults.js';
import { SimJob } from './job.js';
import { SimLane } from './lane.js';
import type { SimOutcome } from './outcome.js';
import { SimRecords } from './records.js';
import { assertScenario, type SimScenario } from './scenario.js';
import type { World } from './world.js';

export interface SimOptions {
  /** The policy's name, for the outcome. */
  readonly policyName?: string;
  /** See `DeskOptions`; 0 tells and plans for every event by itself. */
  readonly coalesceMs?: number;
  readonly progressMs?: number;
  /** Ends then at the latest. */
  readonly horizonMs?: number;
  /** See `RecordLimits`. */
  readonly spansMax?: number;
  readonly recordsMax?: number;
  readonly lanesMax?: number;
  readonly planEventsMax?: number;
}

const MONTH_MS = 30 * 86_400_000;

/**
 * Runs a scenario under a policy: the live scheduler, its checks and the policy are the very same code, only lanes and
 * clock are simulated. The same scenario, policy and options always give the same outcome.
 *
 * @throws UserError for a scenario that cannot be.
 */
export function simulate(
  scenario: SimScenario,
  policy: Policy,
  options: SimOptions = {},
): Promise<SimOutcome> {
  assertScenario(scenario);
  return new Simulation(scenario, policy, options).run();
}

class Simulation {
  readonly #clock = new SimClock();
  readonly #records: SimRecords;
  readonly #desk: Desk;
  readonly #lanes: SimLane[] = [];
  readonly #scheduler: Scheduler;
  readonly #jobs = new Map<string, SimJob>();
  readonly #review = new Timer('scheduler', () => this.#tick());
  #unfinished: number;
  #failure: Error | null = null;

  constructor(
    private readonly scenario: SimScenario,
    policy: Policy,
    private readonly options: SimOptions,
  ) {
    const { coalesceMs = 0, progressMs = 0 } = options;
    const { spansMax = 100_000, recordsMax = 50_000, lanesMax = Infinity } = options;
    const { planEventsMax: eventsMax = 1_000_000 } = options;
    this.#records = new SimRecords({ spansMax, recordsMax, lanesMax, eventsMax, samplesMax: 100_000 });
    this.#desk = new Desk(this.#clock, { coalesceMs, progressMs }, () => this.#scheduler);
    this.#scheduler = new Scheduler(policy, this.#effects(), scenario.lanes.length);
    const { seed, costs, faults = {} } = scenario;
    const world: World = {
      seed,
      costs,
      faults,
      clock: this.#clock,
      scheduler: this.#scheduler,
      desk: this.#desk,
      records: this.#records,
    };
    const speeds = laneSpeeds(scenario);
    for (const [id, { bytesCapacity }] of scenario.lanes.entries()) {
      this.#lanes.push(new SimLane(id, at(speeds, id), bytesCapacity, world));
    }
    this.#unfinished = scenario.jobs.length;
    for (const spec of scenario.jobs)
      this.#jobs.set(spec.id, new SimJob(spec, world, this.#lanes, () => this.#unfinished--));
  }

  async run(): Promise<SimOutcome> {
    const { horizonMs = MONTH_MS } = this.options;
    for (const lane of this.#lanes) this.#laneReady(lane);
    scheduleLosses(this.scenario, this.#clock, this.#lanes, (lane, returnMs) => this.#lose(lane, returnMs));
    for (const job of this.#jobs.values()) {
      this.#clock.after(job.spec.arrivesMs, () => job.arrive());
      const { leavesMs } = job.spec;
      if (leavesMs !== undefined)
        this.#clock.after(Math.max(leavesMs, job.spec.arrivesMs), () => job.leave());
    }
    while (this.#clock.step(horizonMs)) {
      if (!this.#desk.hasTold) continue;
      await this.#settle();
      if (this.#unfinished === 0) break;
    }
    this.#scheduler.close();
    return this.#outcome();
  }

  /** Lets the scheduler's promises run their course; no simulated time passes. */
  async #settle(): Promise<void> {
    await turn();
    this.#desk.settled();
    if (this.#failure !== null) throw this.#failure;
  }

  #effects(): Effects {
    return {
      nowMs: () => this.#clock.nowMs,
      wake: (order) => new Promise((resolve) => this.#job(order.job).wake(order, resolve)),
      sleep: (order) => new Promise((resolve) => this.#job(order.job).sleep(order, resolve)),
      resize: (order) => {
        this.#job(order.job).resize(order.lane, order.slots);
        return Promise.resolve();
      },
      segment: ({ lane, segment }) => {
        at(this.#lanes, lane).align(segment);
        return Promise.resolve();
      },
      admit: ({ job, lane, admission }) => {
        this.#job(job).admit(lane, admission);
        return Promise.resolve();
      },
      rounds: ({ job, rounds }) => this.#job(job).tellRounds(rounds),
      reviewAt: (timeMs) => this.#clock.set(this.#review, timeMs),
      record: (record) => this.#records.plan(record),
      violation: (violations) => {
        const [{ invariant, message } = { invariant: 0, message: '' }] = violations;
        this.#records.firstViolation ??= `invariant ${invariant}: ${message}`;
        this.#records.violations++;
      },
      failed: (error) => {
        this.#failure ??= error;
      },
    };
  }

  #tick(): void {
    this.#desk.tell(() => this.#scheduler.dispatch({ kind: 'tick' }));
  }

  #laneReady({ id, bytesCapacity }: SimLane): void {
    this.#desk.tell(() => this.#scheduler.dispatch({ kind: 'laneReady', lane: id, bytesCapacity }));
  }

  /** A lane that is lost already stays so until it comes back by itself. */
  #lose(lane: SimLane, returnMs: number): void {
    if (!lane.isUp) return;
    lane.isUp = false;
    lane.epoch++;
    this.#records.lanesLost++;
    lane.align(null);
    for (const id of [...lane.engines.keys()]) this.#job(id).laneLost(lane.id);
    lane.holder?.laneLost();
    this.#desk.tell(() => this.#scheduler.dispatch({ kind: 'laneLost', lane: lane.id, reason: 'a fault' }));
    this.#clock.after(returnMs, () => {
      lane.isUp = true;
      this.#laneReady(lane);
      lane.holder?.laneReturned();
    });
  }

  #job(id: string): SimJob {
    const job = this.#jobs.get(id);
    assert(job !== undefined, `no job ${id}`);
    return job;
  }

  #outcome(): SimOutcome {
    const records = this.#records;
    const endedMs = this.#clock.nowMs;
    const isStuck = this.#clock.isEmpty;
    const jobs = [...this.#jobs.values()];
    // What still runs ends here, so that the timeline has it.
    for (const { engines } of this.#lanes) for (const engine of engines.values()) engine.close();
    for (const job of jobs) job.close();
    const isDone = this.#unfinished === 0;
    const first = Math.min(...jobs.map((job) => job.startedMs ?? Infinity));
    const last = Math.max(...jobs.map((job) => job.finishedMs ?? -Infinity));
    return {
      policy: this.options.policyName ?? 'unnamed',
      seed: this.scenario.seed,
      ended: isDone ? 'done' : isStuck ? 'stuck' : 'horizon',
      endedMs,
      makespanMs: isDone ? last - first : null,
      jobs: jobs.map((job) => job.outcome()),
      busy: records.busy,
      timeline: {
        spans: records.spans.items,
        dropped: records.spans.dropped,
        stages: records.stages.items,
        awake: records.awake.items,
        preemptions: records.preemptions.items,
        versions: records.versions.items,
      },
      plans: records.plans,
      plansDropped: records.plansDropped,
      violations: records.violations,
      firstViolation: records.firstViolation,
      yieldMs: records.yieldMs.items,
      lanesLost: records.lanesLost,
      stagesRepeated: records.stagesRepeated,
    };
  }
}
