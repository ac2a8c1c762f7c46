import { assert } from '../lib/assert.js';
import { bytesText, msText, numberText, percentText, scoreText, secondsText } from './format.js';
import type { Quantiles } from './quantiles.js';

/** Where every sampled token went. */
export interface TokenCounts {
  readonly decoded: number;
  /** Reached a gradient. */
  readonly trained: number;
  /** Their rollout was stopped before its end. */
  readonly aborted: number;
  /** Their rollout was older than the staleness bound allows. */
  readonly expired: number;
  /** Their rollout or group was finished but not used: a failed reward, or no advantage to learn from. */
  readonly filtered: number;
  /** Their rollout was unfinished, or finished and waiting, when the run ended. */
  readonly in_flight: number;
}

/** summary.json: one run in numbers. A null was not measured in this run. */
export interface Summary {
  readonly adapter: {
    readonly vendor: string;
    readonly architecture: string;
    readonly description: string;
    /** The device is a program on the CPU: its timings say nothing about a GPU's. */
    readonly software: boolean;
  };
  readonly model: string;
  readonly seed: number;
  /** Optimizer steps taken. */
  readonly steps: number;
  /** Means over the first and the last five steps, and over the held-out prompts before and after training. */
  readonly reward: {
    readonly first5: number | null;
    readonly last5: number | null;
    readonly heldout_before: number | null;
    readonly heldout_after: number | null;
  };
  readonly tokens: TokenCounts;
  /** Decoded tokens over wall time, training included. */
  readonly tokens_per_second: number;
  readonly preemption: {
    readonly count: number;
    readonly time_to_yield_ms: Quantiles;
    readonly resume_ms: Quantiles;
    readonly tokens_recomputed: number;
    /** Longest a slice may be predicted to take. */
    readonly slice_budget_us: number;
    /** Most predicted work that may be submitted and unfinished. */
    readonly in_flight_budget_us: number;
    /** Longest single dispatch of a resident that yields. */
    readonly largest_dispatch_us: number;
  };
  readonly weights: {
    readonly publishes: number;
    /** Bytes of weights that crossed the host. */
    readonly bytes_sent: number;
    /** Bytes that sending every version to every engine would have taken. */
    readonly bytes_broadcast: number;
    readonly seconds: number;
  };
  readonly wall_seconds: number;
}

/** decoded − (trained + aborted + expired + filtered + in flight): zero when no token was lost or counted twice. */
export function tokensUnaccounted(tokens: TokenCounts): number {
  return (
    tokens.decoded - (tokens.trained + tokens.aborted + tokens.expired + tokens.filtered + tokens.in_flight)
  );
}

/** Fails unless every sampled token is in exactly one place. */
export function assertTokensAddUp(tokens: TokenCounts): void {
  for (const [name, count] of Object.entries(tokens)) {
    assert(Number.isSafeInteger(count) && count >= 0, `tokens.${name} is ${count}, not a count`);
  }
  assert(tokensUnaccounted(tokens) === 0, `token counts do not add up: ${JSON.stringify(tokens)}`);
}

/**
 * What the trainer may have to wait for: the work in flight plus the largest single dispatch, which nothing can cut.
 * In milliseconds, by prediction.
 */
export function yieldBudgetMs(preemption: Summary['preemption']): number {
  return (preemption.in_flight_budget_us + preemption.largest_dispatch_us) / 1000;
}

/** The summary in a few lines for the end of a run. */
export function summaryText(summary: Summary): string {
  const { reward, tokens, preemption, weights, adapter } = summary;
  const yields = preemption.time_to_yield_ms;
  const resumes = preemption.resume_ms;
  const lines = [
    [
      'reward',
      `${scoreText(reward.first5)} → ${scoreText(reward.last5)}, mean of the first and of the last 5 steps`,
    ],
    [
      'held-out',
      `${scoreText(reward.heldout_before)} → ${scoreText(reward.heldout_after)}, before and after`,
    ],
    ['tokens', `${tokenText(tokens)}; ${numberText(summary.tokens_per_second)} tokens/s`],
    [
      'time to yield',
      `p50 ${msText(yields.p50)}, p99 ${msText(yields.p99)}, max ${msText(yields.max)} over ${yields.n} preemptions`,
    ],
    [
      'resume',
      `p50 ${msText(resumes.p50)}, max ${msText(resumes.max)}; ${numberText(preemption.tokens_recomputed)} tokens recomputed`,
    ],
    [
      'weights',
      `${numberText(weights.publishes)} versions, ${bytesText(weights.bytes_sent)} sent; ` +
        `a broadcast would have sent ${bytesText(weights.bytes_broadcast)}`,
    ],
    [
      'ran',
      `${numberText(summary.steps)} steps of ${summary.model} in ${secondsText(summary.wall_seconds)}, seed ${summary.seed}`,
    ],
    [
      'adapter',
      `${adapter.description}${adapter.software ? ' (software: timings are not those of a GPU)' : ''}`,
    ],
  ];
  return lines.map(([name, text]) => `${(name ?? '').padEnd(14)}${text ?? ''}\n`).join('');
}

function tokenText(tokens: TokenCounts): string {
  const share = tokens.decoded === 0 ? '' : ` (${percentText(tokens.trained / tokens.decoded)})`;
  return `${numberText(tokens.decoded)} decoded, ${numberText(tokens.trained)} trained on${share}`;
}
