import { aligned } from './aligned.js';
import {
  bytesText,
  cautiousPercentText,
  msText,
  numberText,
  percentText,
  scoreText,
  secondsText,
} from './format.js';
import { preemptionSummary, type PreemptionSummary } from './preemption-summary.js';
import type { RunRecords } from './run-records.js';
import type { Summary, TokenCounts } from './summary.js';

/** One job among others. */
export interface JobSummary extends Summary {
  /** Seconds from the start of the run. */
  readonly arrived_s: number;
  readonly finished_s: number;
  /** Tokens that reached a gradient, over the time that the job was there. */
  readonly goodput: number;
}

/** summary.json of a run of several jobs. */
export interface ScenarioSummary {
  readonly adapter: Summary['adapter'];
  readonly name: string;
  readonly seed: number;
  readonly policy: string;
  readonly jobs: Readonly<Record<string, JobSummary>>;
  /** Sums over all jobs. */
  readonly tokens: TokenCounts;
  readonly tokens_per_second: number;
  /** Tokens of all jobs that reached a gradient, over the makespan. */
  readonly goodput: number;
  readonly preemption: PreemptionSummary;
  readonly weights: Summary['weights'];
  /** From the start until the last job was done. */
  readonly makespan_s: number;
  /** Share of the makespan in which a slice ran, by lane. */
  readonly busy: readonly number[];
  readonly lanes: { readonly rebuilt: number };
  readonly starved_seconds: number;
  readonly wall_seconds: number;
}

export interface ScenarioTold {
  readonly name: string;
  readonly seed: number;
  readonly policy: string;
  readonly jobs: readonly {
    readonly id: string;
    readonly arrivedMs: number;
    readonly finishedMs: number;
    readonly summary: Summary;
  }[];
  readonly records: RunRecords;
  readonly endMs: number;
}

/** A run of several jobs in numbers; at least one has arrived. */
export function scenarioSummary({ name, seed, policy, jobs, records, endMs }: ScenarioTold): ScenarioSummary {
  const [first] = jobs;
  if (first === undefined) throw new Error('assertion failed: no job has arrived');
  const { adapter, preemption, lanes } = first.summary;
  const inSeconds = (ms: number): number => (ms - records.startMs) / 1000;
  const makespan = Math.max(...jobs.map(({ finishedMs }) => inSeconds(finishedMs)));
  const tokens = sum(jobs.map(({ summary }) => ({ ...summary.tokens })));
  const { slice_budget_us, in_flight_budget_us, largest_dispatch_us } = preemption;
  return {
    adapter,
    name,
    seed,
    policy,
    jobs: Object.fromEntries(
      jobs.map(({ id, arrivedMs, finishedMs, summary }) => {
        const [arrived_s, finished_s] = [inSeconds(arrivedMs), inSeconds(finishedMs)];
        const goodput = summary.tokens.trained / (finished_s - arrived_s);
        return [id, { arrived_s, finished_s, goodput, ...summary }];
      }),
    ),
    tokens,
    tokens_per_second: tokens.decoded / makespan,
    goodput: tokens.trained / makespan,
    preemption: preemptionSummary(records, { slice_budget_us, in_flight_budget_us, largest_dispatch_us }),
    weights: sum(jobs.map(({ summary }) => ({ ...summary.weights }))),
    makespan_s: makespan,
    busy: records.lanes.map(({ lane }) => {
      const busyMs = records.busy(lane).reduce((total, one) => total + one.busyMs, 0);
      return busyMs / 1000 / makespan;
    }),
    lanes: { rebuilt: lanes.rebuilt },
    starved_seconds: records.starvedMs / 1000,
    wall_seconds: inSeconds(endMs),
  };
}

/** A table of the jobs and a few lines of the whole, for the end of a run. */
export function scenarioSummaryText(summary: ScenarioSummary): string {
  const { tokens, preemption, weights, adapter, busy } = summary;
  const { time_to_yield_ms: yields, law_obeyed_share: obeyed } = preemption;
  const law = obeyed === null ? 'no preemption' : `law obeyed by ${cautiousPercentText(obeyed)}`;
  const lines = [
    [
      'tokens',
      `${numberText(tokens.decoded)} decoded, ${numberText(tokens.trained)} trained on; ${numberText(summary.goodput)} trained tokens/s`,
    ],
    [
      'time to yield',
      `p50 ${msText(yields.p50)}, p99 ${msText(yields.p99)} over ${yields.n} preemptions; ${law}`,
    ],
    ['weights', `${numberText(weights.publishes)} versions, ${bytesText(weights.bytes_sent)} sent`],
    ['busy', busy.map((share, lane) => `lane ${lane} ${percentText(share)}`).join(', ')],
    [
      'ran',
      `${summary.name} under ${summary.policy} in ${secondsText(summary.makespan_s)}, seed ${summary.seed}`,
    ],
    [
      'adapter',
      `${adapter.description}${adapter.software ? ' (software: timings are not those of a GPU)' : ''}`,
    ],
  ];
  return `${jobTable(summary)}\n${lines.map(([name, text]) => `${(name ?? '').padEnd(14)}${text ?? ''}\n`).join('')}`;
}

/** What a table of jobs tells of each, by column. */
export const JOB_HEADS = ['arrived', 'took', 'steps', 'reward', 'decoded', 'trained', 'trained/s'] as const;

export function jobCells(job: JobSummary): string[] {
  return [
    secondsText(job.arrived_s),
    secondsText(job.finished_s - job.arrived_s),
    numberText(job.steps),
    `${scoreText(job.reward.first5)} → ${scoreText(job.reward.last5)}`,
    numberText(job.tokens.decoded),
    numberText(job.tokens.trained),
    numberText(job.goodput),
  ];
}

function jobTable({ jobs }: ScenarioSummary): string {
  const rows = Object.entries(jobs).map(([id, job]) => [id, ...jobCells(job)]);
  return aligned([['job', ...JOB_HEADS], ...rows])
    .map((line) => `${line}\n`)
    .join('');
}

/** Of counts that all have the same names. */
function sum<T extends Record<keyof T, number>>(all: readonly T[]): T {
  return all.reduce((total, one) => {
    const added = { ...total };
    for (const name of Object.keys(one) as (keyof T)[]) added[name] = (total[name] + one[name]) as T[keyof T];
    return added;
  });
}
