import { UserError } from '../lib/errors.js';
import { isExclusive, type ExclusiveStage } from '../scheduler/stages.js';
import type { JobId, LaneId } from '../scheduler/state.js';
import type { CostModel, LinearCost } from './cost-model.js';
import { type Distribution, largest } from './distribution.js';

/** What a job has to do, as far as a live run would have it from its model and its task. */
export interface SimWork {
  /** When it comes, and when it is given up if it is not done; by the simulation's clock. */
  readonly arrivesMs: number;
  readonly leavesMs?: number | undefined;
  readonly promptTokens: Distribution;
  /** Of one turn. */
  readonly completionTokens: Distribution;
  readonly turns: Distribution;
  /** Between two turns, and the tokens it then has for the model to read. */
  readonly environmentWaitMs: Distribution;
  readonly observationTokens: Distribution;
  /** From the end of a rollout to its reward. */
  readonly rewardMs: Distribution;
  /** Of all groups, how many teach nothing because their rewards are equal: they are not trained on. */
  readonly filteredShare: number;
  /** How much more its model computes than the one the cost model was taken from. */
  readonly computeScale: number;
}

/** One turn of a rollout that was really run; of the last one there is neither wait nor observation. */
export interface RecordedTurn {
  readonly tokens: number;
  readonly waitMs: number;
  readonly observationTokens: number;
}

/** The course of a rollout that was really run. */
export interface RecordedRollout {
  readonly promptTokens: number;
  /** Over all turns. */
  readonly tokens: number;
  readonly isFiltered: boolean;
  /** Left out of a rollout of one turn. */
  readonly turns?: readonly RecordedTurn[];
  /** From its end to its reward; null or left out: drawn. */
  readonly rewardMs?: number | null;
}

/** One rollout of each held-out prompt before the first step, after the last and after every so many. */
export interface SimEvaluation {
  readonly prompts: number;
  /** 0: only before the first step and after the last. */
  readonly everySteps: number;
  /** As the job's own `recorded`. */
  readonly recorded?: readonly RecordedRollout[];
}

/** One job of a simulation. */
export interface SimJobSpec extends SimWork {
  readonly id: JobId;
  readonly weight: number;
  /** Training steps; for a job without a trainer, rounds of rollouts that are simply delivered. */
  readonly steps: number;
  readonly groupsPerStep: number;
  readonly groupSize: number;
  readonly stalenessVersionsMax: number;
  /** Stages of a step in their order; a trainer's must hold `actorTraining`. */
  readonly stages: readonly ExclusiveStage[];
  readonly slotsMax: number;
  readonly trainerLane: LaneId | null;
  /** Ascending. */
  readonly engineLanes: readonly LaneId[];
  /** Device memory of an engine awake, and of the trainer. */
  readonly engineBytes: number;
  readonly trainerBytes: number;
  /** What a pull moves. */
  readonly weightBytes: number;
  readonly tokenLatencyMs: number | null;
  /** Tokens the cache of one engine holds; left out: the cache is not simulated, and always holds all. */
  readonly kvTokens?: number;
  /** In place of what is drawn: these rollouts in this order, over again when they are used up. */
  readonly recorded?: readonly RecordedRollout[];
  /** Left out: none. */
  readonly evaluation?: SimEvaluation;
  /** Optimizer steps of a step, and how often the critic takes them; 1 when left out. */
  readonly updatesPerStep?: number;
  readonly criticEpochs?: number;
  /** First steps, in which the critic alone is trained; 0 when left out. */
  readonly criticSteps?: number;
  /** What its stages take per token, or `init` per byte of weights, in place of what the cost model says. */
  readonly stageCosts?: Partial<Record<ExclusiveStage, LinearCost>>;
}

export interface SimLaneSpec {
  /** 1 is the lane of the cost model. */
  readonly speed: number;
  readonly bytesCapacity: number;
}

/** What goes wrong, drawn from the scenario's seed; nothing by default. */
export interface SimFaults {
  /** Lanes that are lost and come back; `perLaneDay` is how often on average. */
  readonly laneLoss?: { readonly perLaneDay: number; readonly returnMs: Distribution };
  /** Losses at a given time. */
  readonly losses?: readonly { readonly lane: LaneId; readonly atMs: number; readonly returnMs: number }[];
  /** This share of all turns is `factor` times as long. */
  readonly stragglers?: { readonly share: number; readonly factor: number };
  /** This share of all lanes runs at `factor` times its speed. */
  readonly slowLanes?: { readonly share: number; readonly factor: number };
}

/** A whole simulation as plain data. */
export interface SimScenario {
  readonly seed: number;
  readonly lanes: readonly SimLaneSpec[];
  readonly jobs: readonly SimJobSpec[];
  readonly costs: CostModel;
  readonly faults?: SimFaults;
}

/** Most tokens one rollout of the job may have sampled: what a scheduler may know of its length beforehand. */
export function tokensMax(job: SimJobSpec): number {
  if (job.recorded !== undefined) {
    const longest = job.recorded.reduce((most, { tokens }) => Math.max(most, tokens), 1);
    return Math.max(longest, Math.ceil(largest(job.completionTokens)));
  }
  return Math.max(1, Math.ceil(largest(job.completionTokens))) * Math.max(1, Math.ceil(largest(job.turns)));
}

/** Most tokens it may sample in one turn. */
export function turnTokensMax(job: SimJobSpec): number {
  return job.recorded === undefined ? Math.max(1, Math.ceil(largest(job.completionTokens))) : tokensMax(job);
}

/** Most tokens that one of its sequences may have, prompt and observations included; `factor` stretches turns. */
export function sequenceTokensMax(job: SimJobSpec, factor = 1): number {
  if (job.recorded !== undefined)
    return job.recorded.reduce((most, { promptTokens, tokens }) => Math.max(most, promptTokens + tokens), 1);
  const turns = Math.max(1, Math.ceil(largest(job.turns)));
  const turnTokens =
    Math.ceil(turnTokensMax(job) * Math.max(1, factor)) + Math.ceil(largest(job.observationTokens));
  return Math.max(1, Math.ceil(largest(job.promptTokens))) + turns * turnTokens;
}

/** @throws UserError for the first thing that cannot be simulated. */
export function assertScenario({ lanes, jobs, faults }: SimScenario): void {
  const lanesAre = lanes.length === 1 ? 'there is one lane' : `there are ${lanes.length} lanes`;
  need(lanes.length > 0 && jobs.length > 0, 'a simulation needs at least one lane and one job');
  for (const [index, { speed, bytesCapacity }] of lanes.entries()) {
    need(speed > 0 && Number.isFinite(speed), `lane ${index}: speed is ${speed}, must be above 0`);
    need(bytesCapacity > 0, `lane ${index}: bytesCapacity is ${bytesCapacity}, must be above 0`);
  }
  const ids = new Set<JobId>();
  for (const job of jobs) {
    need(!ids.has(job.id), `two jobs are named "${job.id}": give each a name of its own`);
    ids.add(job.id);
    const own = [...job.engineLanes, ...(job.trainerLane === null ? [] : [job.trainerLane])];
    const tokens = sequenceTokensMax(job, faults?.stragglers?.factor);
    need(
      job.kvTokens === undefined || (Number.isSafeInteger(job.kvTokens) && job.kvTokens > tokens),
      `job "${job.id}": kvTokens is ${job.kvTokens}, must be a whole number above ${tokens}, its longest sequence`,
    );
    const strange = own.find((lane) => lanes[lane] === undefined);
    need(strange === undefined, `job "${job.id}": no lane ${strange}: ${lanesAre}`);
    need(job.engineLanes.length > 0, `job "${job.id}": engineLanes is empty, must name a lane`);
    assertCounts(job);
    const trains = job.stages.includes('actorTraining') || job.stages.includes('criticTraining');
    need(
      job.trainerLane === null ? job.stages.length === 0 : trains,
      `job "${job.id}": stages are [${job.stages.join(', ')}], must hold a training stage exactly if there is a trainer`,
    );
    const unfit = job.stages.find((stage) => !isExclusive(stage) || stage === 'init');
    need(unfit === undefined, `job "${job.id}": ${unfit} is no stage of a step`);
  }
  for (const { lane } of faults?.losses ?? [])
    need(lanes[lane] !== undefined, `no lane ${lane} to lose: ${lanesAre}`);
}

function assertCounts(job: SimJobSpec): void {
  const counts = {
    steps: job.steps,
    groupsPerStep: job.groupsPerStep,
    groupSize: job.groupSize,
    slotsMax: job.slotsMax,
  };
  for (const [name, count] of Object.entries(counts)) {
    need(
      Number.isSafeInteger(count) && count > 0,
      `job "${job.id}": ${name} is ${count}, must be a whole number from 1`,
    );
  }
  const { stalenessVersionsMax: bound, weight } = job;
  need(
    Number.isSafeInteger(bound) && bound >= 0,
    `job "${job.id}": stalenessVersionsMax is ${bound}, must be a whole number from 0`,
  );
  need(weight > 0 && Number.isFinite(weight), `job "${job.id}": weight is ${weight}, must be above 0`);
}

function need(condition: boolean, message: string): void {
  if (!condition) throw new UserError(message);
}
