import { basename } from 'node:path';
import type { Logger } from 'pino';
import { nowMs } from '../lib/clock.js';
import type { Tokenizer } from '../model/tokenizer.js';
import type { RewardResult } from '../tasks/reward-result.js';
import type { MetricsRecord } from '../telemetry/metrics.js';
import type { Progress } from '../telemetry/progress.js';
import { preemptionSummary } from '../telemetry/preemption-summary.js';
import { mean } from '../telemetry/quantiles.js';
import { timeToYieldMs } from '../telemetry/records.js';
import { type HeldoutPoint, reportHtml } from '../telemetry/report.js';
import type { RunFolder } from '../telemetry/run-folder.js';
import type { RunRecords } from '../telemetry/run-records.js';
import { runTrace } from '../telemetry/run-trace.js';
import type { Summary } from '../telemetry/summary.js';
import type { Conductor } from './conductor.js';
import { formatConfig, type RunConfig } from './config.js';
import type { DurableCritic } from './durable-critic.js';
import type { DurableTrainer } from './durable-trainer.js';
import type { Fleet } from './fleet.js';
import type { StepReport } from './grpo-job.js';
import type { TokenLedger } from './ledger.js';
import { rolloutRecord } from './rollout-record.js';
import type { Group, Rollout, RolloutPool } from './rollouts.js';
import { stepMetrics } from './step-metrics.js';
import type { WeightsAccount } from './weights-account.js';

export interface RunLogParts {
  readonly config: RunConfig;
  readonly tokenizer: Tokenizer;
  readonly folder: RunFolder;
  readonly logger: Logger;
  readonly progress: Progress;
  readonly ledger: TokenLedger;
  readonly job: string;
  readonly records: RunRecords;
}

/** What the run's numbers are read from. */
export interface RunSources {
  readonly fleet: Fleet;
  readonly pool: RolloutPool;
  readonly conductor: Conductor;
  readonly trainer: DurableTrainer;
  readonly critic: DurableCritic | null;
  readonly weights: WeightsAccount;
}

/** Everything a run says of itself: progress, metrics and rollouts as it goes, summary, trace and report at its end. */
export class RunLog {
  readonly #startedAt = new Date();
  readonly #metrics: MetricsRecord[] = [];
  readonly #heldout: HeldoutPoint[] = [];
  readonly #stepRewards: number[] = [];
  /** What earlier steps have already told. */
  #told = { decoded: 0, preemptions: 0 };

  constructor(private readonly parts: RunLogParts) {}

  heldout(step: number, score: number | null): void {
    if (score !== null) this.#heldout.push({ step, score });
  }

  scored(rollout: Rollout, result: RewardResult, startedMs: number): void {
    const { logger, job } = this.parts;
    const finishedMs = nowMs();
    const failure = result.failed ? `${result.reason}: ${result.message}` : null;
    if (failure !== null) logger.warn({ rollout: rollout.id }, `reward failed: ${failure}`);
    this.parts.records.rewards.push({ job, rollout: String(rollout.id), startedMs, finishedMs, failure });
  }

  step(report: StepReport, { pool, conductor, weights }: RunSources): void {
    const { folder, progress, config, ledger } = this.parts;
    const preemptions = this.parts.records.preemptions.items.slice(this.#told.preemptions);
    const record = stepMetrics(report, {
      timeS: (nowMs() - this.parts.records.startMs) / 1000,
      decoded: pool.decoded,
      decodedInStep: pool.decoded - this.#told.decoded,
      trained: ledger.trained,
      version: conductor.version,
      bytesSent: weights.bytesSent,
      cycles: conductor.cycles,
      hasReference: config.algorithm.klCoefficient > 0,
      preemptions,
    });
    this.#told = { decoded: pool.decoded, preemptions: this.parts.records.preemptions.items.length };
    this.#metrics.push(record);
    folder.appendMetrics(record);
    this.#appendRollouts(report.groups);
    const reward = record['rollout/score/mean'] ?? null;
    if (reward !== null) this.#stepRewards.push(reward);
    progress.step({
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

  /**
   * Writes summary, trace and report; the lanes must have told all they know. `unreported` are the groups that no
   * step has told of: their rollouts are written as they are, so that the tokens of all rollouts are those decoded.
   */
  async write(stepsDone: number, unreported: readonly Group[], sources: RunSources): Promise<Summary> {
    const { config, folder } = this.parts;
    const endMs = nowMs();
    // In one go with the summary's count, since lanes at work go on sending tokens.
    this.#appendRollouts(unreported);
    const summary = this.#summary(stepsDone, sources, endMs);
    await folder.writeSummary(summary);
    await folder.writeTrace(runTrace(this.parts.records, { endMs }).chunks());
    await folder.writeReport(
      reportHtml({
        summary,
        metrics: this.#metrics,
        heldout: this.#heldout,
        records: this.parts.records,
        endMs,
        startedAt: this.#startedAt,
        config: formatConfig(config),
      }),
    );
    return summary;
  }

  #appendRollouts(groups: readonly Group[]): void {
    const { folder, tokenizer } = this.parts;
    for (const { rollouts } of groups) {
      for (const rollout of rollouts) folder.appendRollout(rolloutRecord(rollout, tokenizer));
    }
  }

  #summary(stepsDone: number, { fleet, pool, trainer, weights }: RunSources, endMs: number): Summary {
    const { config, ledger } = this.parts;
    const { vendor, architecture, description, software } = fleet.adapter;
    const seconds = (endMs - this.parts.records.startMs) / 1000;
    const heldoutAt = (step: number): number | null =>
      this.#heldout.find((point) => point.step === step)?.score ?? null;
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
      preemption: preemptionSummary(this.parts.records, {
        slice_budget_us: config.lanes.sliceBudgetUs,
        in_flight_budget_us: config.lanes.inFlightBudgetUs,
        largest_dispatch_us: fleet.largestDispatchUs,
      }),
      weights: weights.summary,
      lanes: { rebuilt: fleet.rebuilt, steps_repeated: trainer.stepsRepeated },
      starved_seconds: this.parts.records.starvedMs / 1000,
      wall_seconds: seconds,
    };
  }
}
