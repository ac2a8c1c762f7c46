import { UserError } from '../lib/errors.js';
import type { Policy } from '../scheduler/plan.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import { calibrate } from './calibrate.js';
import { readRunFiles, weightBytes } from './run-files.js';
import type { SimScenario } from './scenario.js';
import { simulate } from './simulate.js';

/** What a run took and what a simulation of it took: from its first step's start to its last stage's end. */
export interface Comparison {
  /** Each from its own first step's start. */
  readonly jobs: readonly {
    readonly id: string;
    readonly measuredMs: number;
    readonly predictedMs: number;
    readonly error: number;
  }[];
  readonly measuredMs: number;
  readonly predictedMs: number;
  /** (predicted − measured) / measured. */
  readonly error: number;
}

/**
 * A live run of one job as a scenario: its own rollouts in their order and lengths, with a cost model fitted to it.
 * Memory is not simulated: the run has shown that it fits.
 *
 * @throws UserError when the folder is no finished run of one job, or one whose rollouts were ended early.
 */
export function scenarioOfRun(runFolder: string): SimScenario {
  const files = readRunFiles(runFolder);
  const lanes = Array.from({ length: files.lanes }, (_, lane) => lane);
  const recorded = files.rollouts.filter(({ tokens, promptTokens }) => tokens > 0 && promptTokens > 0);
  if (files.rollouts.some(({ isAborted }) => isAborted)) {
    throw new UserError(
      `${runFolder} has aborted rollouts, whose lengths nobody knows: use a run under another policy than tailBatch`,
    );
  }
  const stepRollouts = files.promptsPerStep * files.samplesPerPrompt;
  if (recorded.length < stepRollouts || files.steps.length === 0) {
    throw new UserError(`${runFolder} holds no whole step: use a run that trained`);
  }
  const stages: ExclusiveStage[] = [
    ...(files.recomputesLogProbs ? (['oldLogProbs'] as const) : []),
    ...(files.usesReference ? (['refLogProbs'] as const) : []),
    'actorTraining',
  ];
  const job = {
    ...{ id: 'main', arrivesMs: 0, weight: 1, computeScale: 1, filteredShare: 0, tokenLatencyMs: null },
    ...{
      promptTokens: 1,
      completionTokens: 1,
      turns: 1,
      environmentWaitMs: 0,
      observationTokens: 0,
      rewardMs: 0,
    },
    recorded,
    steps: files.steps.length,
    groupsPerStep: files.promptsPerStep,
    groupSize: files.samplesPerPrompt,
    stalenessVersionsMax: files.stalenessVersionsMax,
    stages,
    slotsMax: files.slots,
    trainerLane: 0,
    engineLanes: lanes,
    ...{ engineBytes: 0, trainerBytes: 0, weightBytes: weightBytes(files) },
  };
  const spec = lanes.map(() => ({ speed: 1, bytesCapacity: Infinity }));
  return { seed: 1, lanes: spec, jobs: [job], costs: calibrate(runFolder) };
}

/** Predicts a live run by simulating it under a policy, and holds the two against each other. */
export async function compareWithRun(runFolder: string, policy: Policy): Promise<Comparison> {
  const scenario = scenarioOfRun(runFolder);
  const { steps, spans } = readRunFiles(runFolder);
  const outcome = await simulate(scenario, policy);
  const [first] = steps;
  const [job] = outcome.jobs;
  const stageEnds = outcome.timeline.spans.filter(({ kind }) => kind === 'init').map(({ toMs }) => toMs);
  if (first === undefined || job?.finishedMs === undefined || job.finishedMs === null) {
    throw new UserError(`the simulation of ${runFolder} did not end: it ${outcome.ended}`);
  }
  const liveEnds = spans
    .filter(
      ({ process, name, thread }) =>
        process === 'scheduler' && name === 'granted' && thread.endsWith('actorTraining'),
    )
    .map(({ fromMs, ms }) => fromMs + ms);
  const measuredMs = liveEnds.reduce((most, ms) => Math.max(most, ms), 0) - (first.endMs - first.stepMs);
  // A live run's engine at home is awake before its first step begins.
  const { wake } = scenario.costs;
  const beginMs = (stageEnds[0] ?? 0) + wake.ms + wake.msPerUnit * (scenario.jobs[0]?.weightBytes ?? 0);
  const predictedMs = job.finishedMs - beginMs;
  const whole = { measuredMs, predictedMs, error: (predictedMs - measuredMs) / measuredMs };
  return { ...whole, jobs: [{ id: job.id, ...whole }] };
}
