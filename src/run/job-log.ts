import { basename } from 'node:path';
import type { Logger } from 'pino';
import { nowMs } from '../lib/clock.js';
import type { Tokenizer } from '../model/tokenizer.js';
import type { RewardResult } from '../tasks/reward-result.js';
import type { JobFolder } from '../telemetry/job-folder.js';
import type { MetricsRecord } from '../telemetry/metrics.js';
import { preemptionSummary } from '../telemetry/preemption-summary.js';
import type { StepProgress } from '../telemetry/progress.js';
import { mean } from '../telemetry/quantiles.js';
import { timeToYieldMs } from '../telemetry/records.js';
import type { HeldoutPoint } from '../telemetry/report.js';
import type { SharedRecords } from '../telemetry/shared-records.js';
import type { Summary } from '../telemetry/summary.js';
import type { RunConfig } from './config.js';
import type { DurableCritic } from './durable-critic.js';
import type { DurableTrainer } from './durable-trainer.js';
import type { Fleet } from './fleet.js';
import type { StepReport } from './job-loop.js';
import type { JobConductor } from './job-conductor.js';
import type { TokenLedger } from './ledger.js';
import { rolloutRecord } from './rollout-record.js';
import type { Group, Rollout, RolloutPool } from './rollouts.js';
import { stepMetrics } from './step-metrics.js';
import type { WeightsAccount } from './weights-account.js';

export interface JobLogParts {
  readonly job: string;
  readonly config: RunConfig;
  readonly tokenizer: Tokenizer;
  readonly folder: JobFolder;
  readonly logger: Logger;
  readonly onStep: (progress: StepProgress) => void;
  readonly ledger: TokenLedger;
  readonly records: SharedRecords;
}

/** What a job's numbers are read from. */
export interface JobSources {
  readonly fleet: Fleet;
  readonly pool: RolloutPool;
  readonly conductor: JobConductor;
  readonly trainer: DurableTrainer;
  readonly critic: DurableCritic | null;
  readonly weights: WeightsAccount;
  /** Plans made so far, for all jobs. */
  readonly cycles: () => number;
}

/** When a job was there, on lib/clock. */
export interface JobSpan {
  readonly arrivedMs: number;
  readonly finishedMs: number;
}

/** Everything a job says of itself: progress, metrics and rollouts as it goes, its summary at the end. */
export class JobLog {
  readonly metrics: MetricsRecord[] = [];
  readonly heldoutPoints: HeldoutPoint[] = [];
  /** Trained tokens by how many versions before the trained one they were sampled. */
  readonly stalenessTokens = new Map<number, number>();
  readonly #stepRewards: number[] = [];
  /** What earlier steps have already told. */
  #told = { decoded: 0, preemptions: 0 };

  constructor(private readonly parts: JobLogParts) {}

  heldout(step: number, score: number | null): void {
    if (score !== null) this.heldoutPoints.push({ step, score });
  }

  scored(rollout: Rollout, result: RewardResult, startedMs: number): void {
    const { logger, job, records } = this.parts;
    const finishedMs = nowMs();
    const failure = result.failed ? `${result.reason}: ${result.message}` : null;
    if (failure !== null) logger.warn({ rollout: rollout.id }, `reward failed: ${failure}`);
    records.all.rewards.push({ job, rollout: String(rollout.id), startedMs, finishedMs, failure });
  }

  step(report: StepReport, { pool, conductor, weights, cycles }: JobSources): void {
    const { folder, config, ledger, job, records } = this.parts;
    const own = records.of(job).preemptions.items;
    const preemptions = own.slice(this.#told.preemptions);
    const record = stepMetrics(report, {
      timeS: (nowMs() - records.all.startMs) / 1000,
      decoded: pool.decoded,
      decodedInStep: pool.decoded - this.#told.decoded,
      trained: ledger.trained,
      version: conductor.version,
      bytesSent: weights.bytesSent,
      cycles: cycles(),
      hasReference: config.algorithm.klCoefficient > 0,
      preemptions,
    });
    this.#told = { decoded: pool.decoded, preemptions: own.length };
    this.metrics.push(record);
    folder.appendMetrics(record);
    this.appendRollouts(report.round.started);
    this.#countStaleness(report, conductor.version - 1);
    const reward = record['rollout/score/mean'] ?? null;
    if (reward !== null) this.#stepRewards.push(reward);
    this.parts.onStep({
      step: report.step,
      steps: config.steps,
      reward,
      tokensPerSecond: record['tokens/per_second'] ?? 0,
      loss: report.result?.loss ?? null,
      kl: config.algorithm.klCoefficient > 0 ? (report.result?.kl ?? null) : null,
      entropy: report.result?.entropy ?? null,
      timeToYieldMs: preemptions.length === 0 ? null : Math.max(...preemptions.map(timeToYieldMs)),
      version: conductor.version,
    });
  }

  /** Rollouts as they are: of a step that has been told of, or of those that never will be. */
  appendRollouts(groups: readonly Group[]): void {
    const { folder, tokenizer } = this.parts;
    for (const { rollouts } of groups) {
      for (const rollout of rollouts) folder.appendRollout(rolloutRecord(rollout, tokenizer));
    }
  }

  /** The lanes must have told all they know. */
  summary(stepsDone: number, sources: JobSources, { arrivedMs, finishedMs }: JobSpan): Summary {
    const { config, ledger, records, job } = this.parts;
    const { fleet, pool, trainer, weights } = sources;
    const own = records.of(job);
    const { vendor, architecture, description, software } = fleet.adapterOf(0);
    const seconds = (finishedMs - arrivedMs) / 1000;
    const heldoutAt = (step: number): number | null =>
      this.heldoutPoints.find((point) => point.step === step)?.score ?? null;
    return {
      adapter: { vendor, architecture, description, software },
      model: basename(config.model.path),
      seed: config.seed,
      steps: stepsDone,
      reward: {
        first5: mean(this.#stepRewards.slice(0, 5)),
        last5: mean(this.#stepRewards.slice(-5)),
        heldout_before: heldoutAt(0),
        heldout_after: heldoutAt(config.steps),
      },
      tokens: ledger.counts(pool.decoded),
      tokens_per_second: pool.decoded / seconds,
      preemption: preemptionSummary(own, {
        slice_budget_us: config.lanes.sliceBudgetUs,
        in_flight_budget_us: config.lanes.inFlightBudgetUs,
        largest_dispatch_us: fleet.largestDispatchUs,
      }),
      weights: weights.summary,
      lanes: { rebuilt: fleet.rebuilt, steps_repeated: trainer.stepsRepeated },
      starved_seconds: own.starvedMs / 1000,
      wall_seconds: seconds,
    };
  }

  #countStaleness({ batch }: StepReport, trainedVersion: number): void {
    for (const { rollouts } of batch.updates) {
      for (const { fate, generated } of rollouts) {
        if (fate !== 'trained') continue;
        for (const version of generated.versions) {
          const age = trainedVersion - version;
          this.stalenessTokens.set(age, (this.stalenessTokens.get(age) ?? 0) + 1);
        }
      }
    }
  }
}
