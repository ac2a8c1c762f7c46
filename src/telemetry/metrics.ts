import { assert } from '../lib/assert.js';

/** What a metric is called, what it is counted in, and what it means in one sentence. */
export interface MetricInfo {
  readonly name: string;
  readonly unit: string;
  readonly meaning: string;
}

/**
 * Every metric Offbeat logs. The names follow ROLL (Alibaba's RL library) where it has one, so that existing
 * dashboards read them. The documentation's table is made from this list.
 */
export const METRICS = [
  { name: 'rollout/score/mean', unit: 'reward', meaning: 'Mean reward of the rollouts of this step.' },
  { name: 'rollout/score/max', unit: 'reward', meaning: 'Best reward among them.' },
  { name: 'rollout/score/min', unit: 'reward', meaning: 'Worst reward among them.' },
  {
    name: 'rollout/response_length/mean',
    unit: 'tokens',
    meaning: 'Mean number of sampled tokens a rollout.',
  },
  { name: 'rollout/response_length/max', unit: 'tokens', meaning: 'Longest response of this step.' },
  { name: 'rollout/response_length/min', unit: 'tokens', meaning: 'Shortest response of this step.' },
  { name: 'rollout/prompt_length/mean', unit: 'tokens', meaning: 'Mean number of prompt tokens a rollout.' },
  {
    name: 'rollout/turns/mean',
    unit: 'turns',
    meaning: 'Mean number of turns a rollout, in tasks of several.',
  },
  {
    name: 'rollout/environment_ms/mean',
    unit: 'ms',
    meaning: "Mean time a rollout's environment took, its waits included, in tasks of several turns.",
  },
  {
    name: 'rollout/truncated',
    unit: 'rollouts',
    meaning:
      'Rollouts of several turns that were cut off: by their environment, or for want of turns or room.',
  },
  {
    name: 'rollout/long_round',
    unit: '0 or 1',
    meaning:
      'Whether the step trained prompts that were deferred before; under a policy of short and long rounds.',
  },
  {
    name: 'rollout/aborted',
    unit: 'rollouts',
    meaning: 'Rollouts that a short round had started and had no need of.',
  },
  {
    name: 'rollout/deferred',
    unit: 'prompts',
    meaning: 'Prompts that wait for a long round when the step is done.',
  },
  {
    name: 'val/score/mean',
    unit: 'reward',
    meaning: 'Mean reward on held-out prompts, on steps that measure it.',
  },
  { name: 'critic/rewards/mean', unit: 'reward', meaning: 'Mean reward the loss saw, after any shaping.' },
  {
    name: 'critic/advantages/mean',
    unit: 'reward',
    meaning: 'Mean advantage over the trained tokens; in PPO before whitening.',
  },
  {
    name: 'critic/values/mean',
    unit: 'reward',
    meaning: "Mean of the critic's values of the trained tokens, before it was trained on them.",
  },
  { name: 'critic/returns/mean', unit: 'reward', meaning: 'Mean of what those values should have been.' },
  {
    name: 'critic/vf_explained_var',
    unit: 'fraction',
    meaning: 'How much of the variance of the returns those values foresaw; 0 is no better than a constant.',
  },
  {
    name: 'critic/vf_loss',
    unit: 'reward²',
    meaning: "The critic's loss, averaged over the trained tokens.",
  },
  {
    name: 'critic/vf_clipfrac',
    unit: 'fraction',
    meaning: 'Share of the trained tokens whose value had moved too far to be pulled on.',
  },
  {
    name: 'critic/grad_norm',
    unit: 'norm',
    meaning: "Length of the critic's whole gradient before clipping.",
  },
  { name: 'critic/lr', unit: 'rate', meaning: "The critic's learning rate of this step." },
  {
    name: 'actor/loss',
    unit: 'nats',
    meaning: 'The loss that was minimised, averaged over the trained tokens.',
  },
  {
    name: 'actor/kl',
    unit: 'nats/token',
    meaning: 'How far the weights have moved from the reference, by their log-probabilities.',
  },
  { name: 'actor/entropy', unit: 'nats/token', meaning: 'How undecided the model is about its next token.' },
  {
    name: 'actor/ratio_mean',
    unit: 'ratio',
    meaning: 'Mean of new over old probability of the trained tokens; 1 when they are exactly on policy.',
  },
  { name: 'actor/ratio_max', unit: 'ratio', meaning: 'Largest such ratio.' },
  {
    name: 'actor/clip_fraction',
    unit: 'fraction',
    meaning: 'Share of the trained tokens whose ratio was clipped.',
  },
  { name: 'actor/grad_norm', unit: 'norm', meaning: 'Length of the whole gradient before clipping.' },
  { name: 'actor/lr', unit: 'rate', meaning: 'Learning rate of this step.' },
  { name: 'tokens/decoded', unit: 'tokens', meaning: 'Tokens sampled so far in the run.' },
  { name: 'tokens/trained', unit: 'tokens', meaning: 'Sampled tokens that have reached a gradient so far.' },
  {
    name: 'tokens/per_second',
    unit: 'tokens/s',
    meaning: 'Tokens sampled a second of wall time in this step.',
  },
  {
    name: 'staleness/mean',
    unit: 'versions',
    meaning: 'Mean number of versions between sampling a trained rollout and training on it.',
  },
  { name: 'staleness/max', unit: 'versions', meaning: 'Largest such number in this step.' },
  { name: 'preempt/count', unit: 'times', meaning: 'Times generation gave the device up in this step.' },
  {
    name: 'preempt/time_to_yield_ms/p50',
    unit: 'ms',
    meaning: 'Median time from asking for the device to being able to start on it, in this step.',
  },
  { name: 'preempt/time_to_yield_ms/max', unit: 'ms', meaning: 'Longest such time in this step.' },
  {
    name: 'preempt/resume_ms/p50',
    unit: 'ms',
    meaning: "Median time from getting the device back to generation's first new token, in this step.",
  },
  { name: 'weights/version', unit: 'version', meaning: 'Version of the weights after this step.' },
  { name: 'weights/bytes_sent', unit: 'bytes', meaning: 'Bytes of weights that crossed the host so far.' },
  { name: 'time/step_s', unit: 's', meaning: 'Wall time of this step.' },
  {
    name: 'time/generation_wait_s',
    unit: 's',
    meaning: 'Time the step waited for enough finished rollouts.',
  },
  { name: 'time/train_s', unit: 's', meaning: 'Time from the first forward pass to the new weights.' },
  {
    name: 'time/reward_s',
    unit: 's',
    meaning: 'Time the step waited for rewards after its last rollout ended.',
  },
  {
    name: 'reward/failed',
    unit: 'rollouts',
    meaning: 'Rollouts whose reward threw, hung or was not a number.',
  },
  { name: 'scheduler/cycles', unit: 'cycles', meaning: 'Plans the scheduler has made so far.' },
] as const satisfies readonly MetricInfo[];

export type MetricName = (typeof METRICS)[number]['name'];

/**
 * One line of metrics.jsonl: an optimizer step (1 is the first; 0 stands for before training), the seconds since the
 * run began, and what was measured. JSON has no NaN: a value that is not finite is written as null.
 */
export type MetricsRecord = { readonly step: number; readonly time_s: number } & {
  readonly [name in MetricName]?: number;
};

const NAMES: ReadonlySet<string> = new Set(METRICS.map((metric) => metric.name));

/** Fails on a name that the registry does not know, so that the documentation stays true. */
export function assertMetricNames(record: MetricsRecord): void {
  for (const name of Object.keys(record)) {
    assert(name === 'step' || name === 'time_s' || NAMES.has(name), `metric ${name} is not in the registry`);
  }
}

/** The registry's entry of a metric. */
export function metricInfo(name: MetricName): MetricInfo {
  const info = METRICS.find((metric) => metric.name === name);
  assert(info, `metric ${name} is not in the registry`);
  return info;
}

/** The registry as a Markdown table. */
export function metricsTable(): string {
  const rows = METRICS.map(({ name, unit, meaning }) => `| \`${name}\` | ${unit} | ${meaning} |`);
  return ['| metric | unit | meaning |', '| --- | --- | --- |', ...rows, ''].join('\n');
}
