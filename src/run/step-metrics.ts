import type { MetricName, MetricsRecord } from '../telemetry/metrics.js';
import { mean, quantiles } from '../telemetry/quantiles.js';
import { resumeMs, timeToYieldMs, type PreemptionRecord } from '../telemetry/records.js';
import type { CriticReport } from './algorithm.js';
import { isTruncated } from './episodes.js';
import type { StepReport } from './job-loop.js';
import type { Rollout } from './rollouts.js';

export interface RunCounters {
  readonly timeS: number;
  readonly decoded: number;
  /** Decoded since the step before. */
  readonly decodedInStep: number;
  readonly trained: number;
  readonly version: number;
  readonly bytesSent: number;
  readonly cycles: number;
  /** The loss has a KL term: without one nothing is compared with a reference. */
  readonly hasReference: boolean;
  /** Preemptions since the step before. */
  readonly preemptions: readonly PreemptionRecord[];
}

/** One line of metrics.jsonl. A metric that the step does not have is left out. */
export function stepMetrics(report: StepReport, counters: RunCounters): MetricsRecord {
  const rollouts = report.groups.flatMap((group) => group.rollouts);
  const rewards = rollouts.flatMap(({ reward }) => (reward === null || reward.failed ? [] : [reward.reward]));
  const lengths = rollouts.map(({ generated }) => generated.tokenIds.length);
  const { batch, result, seconds } = report;
  const yields = quantiles(counters.preemptions.map(timeToYieldMs));
  const resumes = quantiles(counters.preemptions.map(resumeMs).filter((ms) => ms !== null));
  const entries: Partial<Record<MetricName, number | null>> = {
    'rollout/score/mean': mean(rewards),
    'rollout/score/max': rewards.length === 0 ? null : Math.max(...rewards),
    'rollout/score/min': rewards.length === 0 ? null : Math.min(...rewards),
    'rollout/response_length/mean': mean(lengths),
    'rollout/response_length/max': lengths.length === 0 ? null : Math.max(...lengths),
    'rollout/response_length/min': lengths.length === 0 ? null : Math.min(...lengths),
    'rollout/prompt_length/mean': mean(rollouts.map(promptLength)),
    'val/score/mean': report.heldoutReward,
    'critic/rewards/mean': mean(rewards),
    'critic/advantages/mean': report.advantageMean,
    'actor/lr': report.learningRate,
    'tokens/decoded': counters.decoded,
    'tokens/trained': counters.trained,
    'tokens/per_second': counters.decodedInStep / seconds.step,
    'staleness/mean': batch.stalenessMean,
    'staleness/max': batch.stalenessMax,
    'preempt/count': counters.preemptions.length,
    'preempt/time_to_yield_ms/p50': yields.p50,
    'preempt/time_to_yield_ms/max': yields.max,
    'preempt/resume_ms/p50': resumes.p50,
    'weights/version': counters.version,
    'weights/bytes_sent': counters.bytesSent,
    'time/step_s': seconds.step,
    'time/generation_wait_s': seconds.generationWait,
    'time/train_s': seconds.train,
    'time/reward_s': seconds.rewardWait,
    'reward/failed': rollouts.filter(({ reward }) => reward?.failed === true).length,
    'scheduler/cycles': counters.cycles,
  };
  if (result !== null) {
    entries['actor/loss'] = result.loss;
    if (counters.hasReference) entries['actor/kl'] = result.kl;
    entries['actor/entropy'] = result.entropy;
    entries['actor/ratio_mean'] = result.meanRatio;
    entries['actor/ratio_max'] = result.maxRatio;
    entries['actor/clip_fraction'] = result.clipFraction;
    entries['actor/grad_norm'] = result.gradNorm;
  }
  if (report.critic !== null) Object.assign(entries, criticMetrics(report.critic));
  return {
    step: report.step,
    time_s: counters.timeS,
    ...present({ ...entries, ...turnMetrics(rollouts), ...roundMetrics(report) }),
  };
}

/** Of rollouts of several turns; nothing where there are none. */
function turnMetrics(rollouts: readonly Rollout[]): Partial<Record<MetricName, number | null>> {
  const records = rollouts.flatMap(({ episode }) => episode?.record ?? []);
  if (records.length === 0) return {};
  return {
    'rollout/turns/mean': mean(records.map(({ turns }) => turns.length)),
    'rollout/environment_ms/mean': mean(records.map(({ environmentMs }) => environmentMs)),
    'rollout/truncated': records.filter(isTruncated).length,
  };
}

/** Of short and long rounds; nothing where the step started what it takes. */
function roundMetrics({ round }: StepReport): Partial<Record<MetricName, number | null>> {
  if (round.kind === 'plain') return {};
  const started = round.started.flatMap(({ rollouts }) => rollouts);
  return {
    'rollout/long_round': round.kind === 'long' ? 1 : 0,
    'rollout/aborted': started.filter(({ fate }) => fate === 'aborted').length,
    'rollout/deferred': round.deferredPrompts,
  };
}

function criticMetrics(critic: CriticReport): Partial<Record<MetricName, number | null>> {
  return {
    'critic/values/mean': critic.valueMean,
    'critic/returns/mean': critic.returnMean,
    'critic/vf_explained_var': critic.explainedVariance,
    'critic/vf_loss': critic.loss,
    'critic/vf_clipfrac': critic.clipFraction,
    'critic/grad_norm': critic.gradNorm,
    'critic/lr': critic.learningRate,
  };
}

function present(entries: Partial<Record<MetricName, number | null>>): Partial<Record<MetricName, number>> {
  return Object.fromEntries(
    Object.entries(entries).filter(([, value]) => value !== null && Number.isFinite(value)),
  );
}

function promptLength({ group }: Rollout): number {
  return group.promptTokenIds.length;
}
