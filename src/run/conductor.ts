import { errorText } from '../lib/errors.js';
import { nowMs } from '../lib/clock.js';
import { policyNamed } from '../scheduler/policies/index.js';
import type { SleepOrder, WakeOrder } from '../scheduler/plan.js';
import { type Effects, type PlanRecord, Scheduler } from '../scheduler/scheduler.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import type { JobSpec } from '../scheduler/state.js';
import type { RunRecords } from '../telemetry/run-records.js';
import type { Fleet } from './fleet.js';
import type { RolloutPool } from './rollouts.js';
import type { WeightsAccount } from './weights-account.js';

export interface ConductorParts {
  readonly fleet: Fleet;
  readonly pool: RolloutPool;
  readonly records: RunRecords;
  readonly weights: WeightsAccount;
  /** The policy broke an invariant; the run goes on under the plan before. */
  readonly onViolation: (text: string) => void;
  readonly onFailed: (error: Error) => void;
}

/**
 * Carries out the scheduler's plans on live lanes, and tells it what happens there. The scheduler decides; the
 * conductor waves.
 */
export class Conductor {
  readonly scheduler: Scheduler;
  /** Newest version an engine may be given. */
  #version = 0;
  #cycles = 0;
  /** Resolves once there are weights to wake with. */
  readonly #hasWeights: Promise<void>;
  #weightsExist: () => void = () => undefined;

  constructor(
    policy: string,
    private readonly job: JobSpec,
    private readonly parts: ConductorParts,
  ) {
    this.#hasWeights = new Promise((resolve) => {
      this.#weightsExist = resolve;
    });
    const { fleet } = parts;
    this.scheduler = new Scheduler(policyNamed(policy), this.#effects(), fleet.lanes.length);
    for (const { lane } of fleet.lanes) {
      this.scheduler.dispatch({ kind: 'laneReady', lane, bytesCapacity: Infinity });
    }
    this.scheduler.dispatch({ kind: 'jobAdded', job });
  }

  get cycles(): number {
    return this.#cycles;
  }

  get version(): number {
    return this.#version;
  }

  /** Weights of version 0 are on the trainer (and in the store): engines may wake. */
  weightsReady(): void {
    this.#weightsExist();
  }

  /** Demand or room changed: rollouts are placed, and the scheduler hears of it. */
  update(): void {
    const { pool, fleet } = this.parts;
    const { id } = this.job;
    pool.place(this.#placeable());
    this.scheduler.dispatch({ kind: 'demandChanged', job: id, demand: pool.demand });
    for (const engine of this.scheduler.snapshot.jobs.get(id)?.engines ?? []) {
      const running = pool.runningOn(engine.lane);
      if (engine.running === running || !fleet.awake.includes(engine.lane)) continue;
      this.scheduler.dispatch({
        kind: 'progress',
        job: id,
        lane: engine.lane,
        running,
        version: engine.version,
      });
    }
  }

  /** Holds a stage on the trainer's lane while `work` runs; `work` is told when the stage was asked for. */
  async stage<T>(stage: ExclusiveStage, work: (requestedMs: number) => Promise<T>): Promise<T> {
    const requestedMs = nowMs();
    const job = this.job.id;
    const grant = await this.scheduler.request({ job, stage, lanes: [0] });
    const grantedMs = nowMs();
    try {
      return await work(requestedMs);
    } finally {
      this.parts.records.stages.push({ job, stage, requestedMs, grantedMs, releasedMs: nowMs() });
      this.scheduler.release(grant);
    }
  }

  /**
   * The trainer's present weights become `version`: this lane's engine gets them by a device copy, engines awake on
   * other lanes pull them, those asleep get nothing until they wake.
   */
  async publish(version: number): Promise<void> {
    const { fleet, weights } = this.parts;
    const startedMs = nowMs();
    const store = fleet.store?.shared ?? null;
    await fleet.trainer.request({ kind: 'publish', version, store });
    this.#version = version;
    weights.published((nowMs() - startedMs) / 1000);
    // The job was added with its first version: only later ones are news.
    if (version > this.job.version)
      this.scheduler.dispatch({ kind: 'versionPublished', job: this.job.id, version });
    for (const lane of this.#placeable()) if (lane !== 0) void this.#pull(lane);
  }

  close(): void {
    this.scheduler.close();
  }

  async #pull(lane: number): Promise<void> {
    const startedMs = nowMs();
    try {
      const { bytes } = await this.parts.fleet.pull(lane);
      this.parts.weights.pulled(bytes, (nowMs() - startedMs) / 1000);
    } catch (error) {
      // The lane fell asleep or broke meanwhile; whoever watches it knows.
      this.parts.onViolation(`lane ${lane} did not pull: ${errorText(error)}`);
    }
  }

  /** Awake by the scheduler's plan too: an engine on its way to sleep takes nothing new. */
  #placeable(): number[] {
    const engines = this.scheduler.snapshot.jobs.get(this.job.id)?.engines ?? [];
    const { awake } = this.parts.fleet;
    return engines
      .filter(({ lane, status }) => status === 'awake' && awake.includes(lane))
      .map(({ lane }) => lane);
  }

  #effects(): Effects {
    const { records, onFailed } = this.parts;
    return {
      nowMs,
      wake: (order) => this.#wake(order),
      sleep: (order) => this.#sleep(order),
      resize: () => Promise.resolve(),
      reviewAt: () => undefined,
      record: (record) => {
        this.#cycles = record.cycle;
        const changes = planChanges(record);
        if (changes.length > 0) records.plans.push({ cycle: record.cycle, atMs: record.timeMs, changes });
      },
      violation: (violations) => {
        this.parts.onViolation(
          violations.map(({ invariant, message }) => `invariant ${invariant}: ${message}`).join('; '),
        );
      },
      failed: onFailed,
    };
  }

  async #wake(order: WakeOrder): Promise<number> {
    await this.#hasWeights;
    const { fleet, weights } = this.parts;
    const startedMs = nowMs();
    const version = await fleet.wake(order.lane, this.#version);
    if (order.lane !== 0) weights.pulled(fleet.weightBytes, (nowMs() - startedMs) / 1000);
    // The scheduler learns of it when this returns; rollouts are placed right after.
    setImmediate(() => this.update());
    return version;
  }

  async #sleep(order: SleepOrder): Promise<void> {
    const { fleet, pool } = this.parts;
    pool.comeBack(order.lane, await fleet.sleep(order.lane));
  }
}

function planChanges({ plan }: PlanRecord): string[] {
  return [
    ...plan.wake.map(
      ({ job, lane, slots, reason }) => `wake ${job} engine on lane ${lane}, ${slots} slots: ${reason}`,
    ),
    ...plan.sleep.map(({ job, lane, reason }) => `put ${job} engine on lane ${lane} to sleep: ${reason}`),
    ...plan.grant.map(({ request, reason }) => `grant request ${request}: ${reason}`),
  ];
}
