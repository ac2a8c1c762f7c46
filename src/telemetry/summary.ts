import { assert } from '../lib/assert.js';
import {
  bytesText,
  cautiousPercentText,
  msText,
  numberText,
  percentText,
  scoreText,
  secondsText,
} from './format.js';
import type { LawBreach, PreemptionSummary } from './preemption-summary.js';

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
  readonly preemption: PreemptionSummary;
  readonly weights: {
    readonly publishes: number;
    /** Bytes of weights that crossed the host. */
    readonly bytes_sent: number;
    /** Bytes that sending every version to every engine would have taken. */
    readonly bytes_broadcast: number;
    readonly seconds: number;
  };
  readonly lanes: {
    /** Lanes that were lost and opened again. */
    readonly rebuilt: number;
    /** Optimizer steps that were taken again because the trainer's lane was lost in the middle. */
    readonly steps_repeated: number;
  };
  /** Time in which generation had work and others kept its device for over a second without a break, over all lanes. */
  readonly starved_seconds: number;
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
    ['law', lawText(preemption)],
    [
      'resume',
      `p50 ${msText(resumes.p50)}, max ${msText(resumes.max)}; ${numberText(preemption.tokens_recomputed)} tokens recomputed`,
    ],
    [
      'weights',
      `${numberText(weights.publishes)} versions, ${bytesText(weights.bytes_sent)} sent; ` +
        `a broadcast would have sent ${bytesText(weights.bytes_broadcast)}`,
    ],
    ...(summary.lanes.rebuilt > 0
      ? [
          [
            'lanes',
            `${numberText(summary.lanes.rebuilt)} rebuilt, ${numberText(summary.lanes.steps_repeated)} steps taken again`,
          ],
        ]
      : []),
    ...(summary.starved_seconds > 0
      ? [['starved', `generation had work and no device for ${secondsText(summary.starved_seconds)}`]]
      : []),
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

/** How the bound on the time to yield held, and the worst exception with its slice. */
function lawText(preemption: PreemptionSummary): string {
  const { count, law_violations: over, law_obeyed_share: obeyed, law_worst: worst } = preemption;
  if (obeyed === null) return 'nothing to hold it against: no preemption';
  if (worst === null)
    return `obeyed by all ${numberText(count)}, median bound ${msText(preemption.bound_ms)}`;
  const times = `worst ${msText(worst.yield_ms)}, bound ${msText(worst.bound_ms)}`;
  const share = cautiousPercentText(obeyed);
  return `obeyed by ${share} (${numberText(over)} of ${numberText(count)} over; ${times}: ${breachText(worst)})`;
}

/** What a violation waited for. */
function breachText({ kernel, predicted_us: predictedUs, real_us: realUs }: LawBreach): string {
  if (kernel === null || predictedUs === null || realUs === null || realUs === 0) return 'no slice to blame';
  return `${kernel} ${msText(realUs / 1000)}, not ${msText(predictedUs / 1000)}`;
}

function tokenText(tokens: TokenCounts): string {
  const share = tokens.decoded === 0 ? '' : ` (${percentText(tokens.trained / tokens.decoded)})`;
  return `${numberText(tokens.decoded)} decoded, ${numberText(tokens.trained)} trained on${share}`;
}
