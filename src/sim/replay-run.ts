import { at } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import type { CostModel, LinearCost } from './cost-model.js';
import type { RunFiles, RunJob, RunRollout } from './run-files.js';
import { weightBytes } from './run-times.js';
import type { RecordedRollout, SimEvaluation, SimJobSpec, SimScenario } from './scenario.js';

/** What one job of a run took. */
export interface JobCosts {
  readonly id: string;
  /** Decoding, by the first model of the run. */
  readonly computeScale: number;
  readonly stageCosts: Partial<Record<ExclusiveStage, LinearCost>>;
}

export interface Calibration {
  readonly costs: CostModel;
  /** In the order of the run's config. */
  readonly jobs: readonly JobCosts[];
}

/**
 * A live run as a scenario: its own rollouts in their order, lengths, turns and waits, arriving when they did. Memory is
 * not simulated: the run has shown that it fits.
 *
 * @throws UserError when a job holds no whole step, or rollouts that were ended early.
 */
export function replayScenario(files: RunFiles, calibration: Calibration, runFolder: string): SimScenario {
  const begin = Math.min(...files.jobs.map(({ arrivesMs }) => arrivesMs));
  return {
    seed: 1,
    lanes: Array.from({ length: files.lanes }, () => ({ speed: 1, bytesCapacity: Infinity })),
    jobs: files.jobs.map((job, i) => {
      const { computeScale, stageCosts } = at(calibration.jobs, i);
      const arrivesMs = job.arrivesMs - begin;
      return { ...replayJob(files, job, runFolder), arrivesMs, computeScale, stageCosts };
    }),
    costs: calibration.costs,
  };
}

function replayJob(files: RunFiles, job: RunJob, runFolder: string): SimJobSpec {
  const { config, steps } = job;
  const stepRollouts = config.promptsPerStep * config.samplesPerPrompt;
  // Rollouts of steps that were never taken were given up somewhere.
  const rollouts = job.rollouts.filter(({ step }) => step <= steps.length);
  const recorded = rollouts.map(recordedOf);
  const who = files.jobs.length > 1 ? `job ${job.id} in ${runFolder}` : runFolder;
  if (rollouts.some(({ isAborted }) => isAborted)) {
    throw new UserError(
      `${who} has aborted rollouts, whose lengths nobody knows: use a run under another policy than tailBatch`,
    );
  }
  if (steps.length === 0 || recorded.length < stepRollouts) {
    throw new UserError(`${who} holds no whole step: use a run that trained`);
  }
  const evaluation = evaluationOf(job, recorded);
  return {
    ...{ id: job.id, arrivesMs: 0, weight: config.weight, computeScale: 1, filteredShare: 0 },
    ...{ promptTokens: 1, completionTokens: config.tokensMax, turns: 1, environmentWaitMs: 0 },
    ...{ observationTokens: 0, rewardMs: 0, tokenLatencyMs: config.tokenLatencyMs },
    recorded,
    ...(evaluation === null ? {} : { evaluation }),
    steps: steps.length,
    groupsPerStep: config.promptsPerStep,
    groupSize: config.samplesPerPrompt,
    stalenessVersionsMax: config.stalenessVersionsMax,
    stages: config.stages,
    criticSteps: config.criticSteps,
    criticEpochs: config.criticEpochs,
    updatesPerStep: config.updatesPerStep,
    slotsMax: config.slots,
    trainerLane: config.trainerLane,
    engineLanes: config.lanes,
    ...{ engineBytes: 0, trainerBytes: 0, weightBytes: weightBytes(files, job) },
  };
}

function recordedOf({ promptTokens, tokens, isFiltered, turns, rewardMs }: RunRollout): RecordedRollout {
  const whole = {
    promptTokens: Math.max(1, promptTokens),
    tokens: Math.max(1, tokens),
    isFiltered,
    rewardMs,
  };
  return turns === undefined ? whole : { ...whole, turns };
}

/**
 * Held-out rollouts are not on record one by one. They are taken to be like the first ones of training, stretched so that
 * with them the run's sampled tokens add up.
 */
function evaluationOf(job: RunJob, recorded: readonly RecordedRollout[]): SimEvaluation | null {
  const { heldoutPrompts: prompts, heldoutEverySteps: everySteps } = job.config;
  if (prompts === 0) return null;
  const like = Array.from({ length: prompts }, (_, i) => at(recorded, i % recorded.length));
  const evaluations = evaluationsOf(job.steps.length, everySteps);
  const sampled = job.rollouts.reduce((sum, { tokens }) => sum + tokens, 0);
  const heldout = job.tokensDecoded === null ? null : (job.tokensDecoded - sampled) / evaluations;
  const known = like.reduce((sum, { tokens }) => sum + tokens, 0);
  const factor = heldout === null || heldout <= 0 ? 1 : heldout / known;
  return { prompts, everySteps, recorded: like.map((rollout) => stretched(rollout, factor)) };
}

function stretched(rollout: RecordedRollout, factor: number): RecordedRollout {
  const longer = (tokens: number): number => Math.max(1, Math.round(tokens * factor));
  if (rollout.turns === undefined) return { ...rollout, tokens: longer(rollout.tokens) };
  const turns = rollout.turns.map((turn) => ({ ...turn, tokens: longer(turn.tokens) }));
  return { ...rollout, turns, tokens: turns.reduce((sum, { tokens }) => sum + tokens, 0) };
}

/** How often the run measured: before the first step, after the last, and after every so many. */
function evaluationsOf(steps: number, everySteps: number): number {
  const within = everySteps > 0 ? Math.floor((steps - 1) / everySteps) : 0;
  return 2 + within;
}
