import { quantiles, type Quantiles } from '../telemetry/quantiles.js';
import { isExclusive } from '../scheduler/stages.js';
import type { SimJobOutcome, SimOutcome, SimTokens } from './outcome.js';
import type { SimScenario } from './scenario.js';

/** One job of a simulation in numbers; null where it did not come or did not end. */
export interface SimJobSummary {
  readonly id: string;
  readonly arrived_s: number | null;
  /** From its arrival to its last step's end. */
  readonly makespan_s: number | null;
  /** Its makespan over that of the same job alone on the same lanes; null where that was not simulated. */
  readonly slowdown: number | null;
  readonly is_given_up: boolean;
  readonly steps: number;
  readonly rollouts: number;
  readonly tokens: SimTokens;
  /** Short and long rounds, and cycles of them; null where all rounds were plain ones. */
  readonly rounds: SimJobOutcome['rounds'];
  /** Share of its decoded tokens that reached a gradient. */
  readonly goodput: number | null;
  /** Decoded, by the time it was there. */
  readonly tokens_per_second: number | null;
  readonly tokens_recomputed: number;
  /** From asking for a stage to its grant, over all stages. */
  readonly queue_wait_ms: Quantiles;
  readonly token_latency_ms: SimJobOutcome['tokenLatencyMs'];
  /** Rollouts trained on, by versions behind the newest. */
  readonly staleness: readonly number[];
  readonly weight_bytes: number;
  readonly weight_bytes_broadcast: number;
}

/** What `offbeat simulate --json` writes: plain data, the same bytes for the same scenario, policy and seed. */
export interface SimSummary {
  readonly scenario: string;
  readonly policy: string;
  readonly seed: number;
  readonly costs: { readonly name: string; readonly source: string };
  readonly assumptions: readonly string[];
  readonly ended: SimOutcome['ended'];
  readonly ended_s: number;
  readonly makespan_s: number | null;
  readonly lanes: {
    readonly count: number;
    /** Shares of all lanes' time until the end. */
    readonly training: number;
    readonly generation: number;
    readonly idle: number;
    readonly lost: number;
  };
  readonly cycles: number;
  readonly violations: number;
  readonly first_violation: string | null;
  readonly time_to_yield_ms: Quantiles;
  readonly stages_repeated: number;
  readonly jobs: readonly SimJobSummary[];
}

export interface SimAbout {
  readonly name: string;
  readonly assumptions: readonly string[];
  /** By job: its makespan alone, in ms. */
  readonly aloneMs: ReadonlyMap<string, number>;
}

export function simSummary(outcome: SimOutcome, scenario: SimScenario, about: SimAbout): SimSummary {
  const { name, source } = scenario.costs;
  return {
    scenario: about.name,
    policy: outcome.policy,
    seed: outcome.seed,
    costs: { name, source },
    assumptions: about.assumptions,
    ended: outcome.ended,
    ended_s: outcome.endedMs / 1000,
    makespan_s: seconds(outcome.makespanMs),
    lanes: lanesOf(outcome, scenario.lanes.length),
    cycles: outcome.plans.length + outcome.plansDropped,
    violations: outcome.violations,
    first_violation: outcome.firstViolation,
    time_to_yield_ms: quantiles(outcome.yieldMs),
    stages_repeated: outcome.stagesRepeated,
    jobs: outcome.jobs.map((job) => jobSummary(job, outcome.endedMs, about.aloneMs.get(job.id))),
  };
}

function jobSummary(job: SimJobOutcome, endedMs: number, aloneMs: number | undefined): SimJobSummary {
  const { startedMs, finishedMs, tokens } = job;
  const makespanMs = startedMs === null || finishedMs === null ? null : finishedMs - startedMs;
  const presentMs = startedMs === null ? 0 : (finishedMs ?? endedMs) - startedMs;
  return {
    id: job.id,
    arrived_s: seconds(startedMs),
    makespan_s: seconds(makespanMs),
    slowdown: makespanMs === null || aloneMs === undefined ? null : makespanMs / aloneMs,
    is_given_up: job.isGivenUp,
    steps: job.steps,
    rollouts: job.rollouts,
    tokens,
    rounds: job.rounds,
    goodput: tokens.decoded === 0 ? null : tokens.trained / tokens.decoded,
    tokens_per_second: presentMs > 0 ? (1000 * tokens.decoded) / presentMs : null,
    tokens_recomputed: job.tokensRecomputed,
    queue_wait_ms: quantiles(Object.values(job.queueWaitMs).flat()),
    token_latency_ms: job.tokenLatencyMs,
    staleness: job.staleness,
    weight_bytes: job.weightBytes,
    weight_bytes_broadcast: job.weightBytesBroadcast,
  };
}

function lanesOf({ busy, endedMs, lanesLost }: SimOutcome, count: number): SimSummary['lanes'] {
  const wholeMs = Math.max(1e-9, count * endedMs);
  let training = 0;
  let generation = 0;
  for (const { kind, ms } of busy) {
    if (isExclusive(kind)) training += ms / wholeMs;
    else generation += ms / wholeMs;
  }
  return { count, training, generation, idle: Math.max(0, 1 - training - generation), lost: lanesLost };
}

function seconds(ms: number | null): number | null {
  return ms === null ? null : ms / 1000;
}
