import { at } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { Policy } from '../scheduler/plan.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import { policyNamed } from '../scheduler/policies/index.js';
import { type CostModel, type LinearCost } from './cost-model.js';
import { fit, median } from './fit.js';
import { profileNamed } from './profiles.js';
import { type Calibration, type JobCosts, replayScenario } from './replay-run.js';
import { readRunFiles, type RunFiles, type RunJob } from './run-files.js';
import { engineTimes, pullCost, resumeMs, stageTimes, wakeMs, weightBytes } from './run-times.js';
import { simulate } from './simulate.js';
import { stagesOf } from './stage-costs.js';

const YIELDS_MAX = 1000;
/** Simulations to find the decode times by; they stop at less than this off. */
const ROUNDS_MAX = 6;
const MISS_MAX = 0.003;

/**
 * A cost model fitted to a run of one job or several, as it stands in its folder. Jobs of the same model are taken
 * together; the first model has compute scale 1.
 *
 * - training and scoring: least squares over the run's stages, time against tokens, publishing included;
 * - decoding: the base profile's times of a step and its rows, all scaled by one factor for each model. The run is
 *   simulated, under the policy it ran under, until its engines' time on their lanes comes out as it was. A gap between
 *   two slices is the host's part of a step and counts;
 * - yielding: the very times measured. Resuming: the median until the first slice;
 * - init and waking: the run's own. Sleeping is the base profile's.
 *
 * @throws UserError when the folder is no finished run with at least one training step.
 */
export async function calibrate(
  runFolder: string,
  policy: Policy = policyNamed('priority'),
  base: CostModel = profileNamed('llvmpipe-2-cores'),
): Promise<Calibration> {
  const files = readRunFiles(runFolder);
  const [first] = files.jobs;
  const training = files.jobs.flatMap((job) => stageTimes(files, job, 'actorTraining'));
  if (first === undefined || training.length === 0) {
    throw new UserError(`${runFolder} holds no training step to calibrate with: use a run that trained`);
  }
  const fitted = fitStages(files, base, runFolder);
  const scales = await fitDecode(files, fitted, policy, runFolder);
  const scale = at(scales, 0);
  const { decode } = fitted.costs;
  const costs = {
    ...fitted.costs,
    decode: {
      ...decode,
      stepMs: decode.stepMs * scale,
      rowMs: decode.rowMs * scale,
      prefillRowMs: decode.prefillRowMs * scale,
    },
  };
  const jobs = fitted.jobs.map((job, i) => ({ ...job, computeScale: at(scales, i) / scale }));
  return { costs, jobs };
}

/** All but decoding, which is the base's. */
function fitStages(files: RunFiles, base: CostModel, runFolder: string): Calibration {
  const first = at(files.jobs, 0);
  const same = files.jobs.filter(({ config }) => config.model === first.config.model);
  const yieldMs = files.spans
    .filter(({ name }) => name === 'time to yield')
    .map(({ ms }) => ms)
    .slice(0, YIELDS_MAX);
  const train = fitStage(files, same, 'actorTraining');
  const score =
    fitStage(files, same, 'oldLogProbs') ??
    fitStage(files, same, 'refLogProbs') ??
    fitStage(files, same, 'valueCompute');
  const pull = pullCost(files);
  const init = stageTimes(files, first, 'init')[0] ?? null;
  const wake = median(files.jobs.flatMap((job) => wakeMs(files, job) ?? []));
  const costs: CostModel = {
    ...base,
    name: 'calibrated',
    source: `fitted to ${runFolder}; sleeping as in ${base.name}`,
    modelBytes: weightBytes(files, first),
    decode: { ...base.decode, batchRows: first.config.batchRows },
    ...(files.sliceMs === null ? {} : { sliceMs: files.sliceMs }),
    ...(train === null ? {} : { train }),
    ...(train === null && score === null
      ? {}
      : { score: score ?? { ms: (train?.ms ?? 0) / 3, msPerUnit: (train?.msPerUnit ?? 0) / 3 } }),
    init: init === null ? base.init : { ms: init.ms, msPerUnit: 0 },
    wake: wake === null ? base.wake : { ms: wake, msPerUnit: 0 },
    pull: pull ?? base.pull,
    publish: { ms: 0, msPerUnit: 0 },
    yieldMs: yieldMs.length > 0 ? yieldMs : base.yieldMs,
    resumeMs: resumeMs(files) ?? base.resumeMs,
  };
  return { costs, jobs: files.jobs.map((job) => jobCosts(files, job)) };
}

function jobCosts(files: RunFiles, job: RunJob): JobCosts {
  const stageCosts: Partial<Record<ExclusiveStage, LinearCost>> = {};
  for (const stage of job.config.stages) {
    const cost = fitStage(files, [job], stage);
    if (cost !== null) stageCosts[stage] = cost;
  }
  const [init] = stageTimes(files, job, 'init');
  if (init !== undefined) stageCosts.init = { ms: init.ms, msPerUnit: 0 };
  return { id: job.id, computeScale: 1, stageCosts };
}

/**
 * How steady the machine was: training's time per token in the slowest quarter of a job's steps over that in its fastest,
 * the most of all jobs; 1 where no job took four steps. A cost model says the same for the whole run, so with a pace that
 * changed the makespan still comes out, but not the time of a job that was there for the fast part only.
 */
export function paceSpread(files: RunFiles): number {
  const spreads = files.jobs.map((job) => {
    const tokens = trainedTokens(job, 'actorTraining');
    const times = stageTimes(files, job, 'actorTraining').slice(0, tokens.length);
    if (times.length < 4) return 1;
    const rates = [0, 1, 2, 3].map((quarter) => {
      const from = Math.floor((times.length * quarter) / 4);
      const to = Math.floor((times.length * (quarter + 1)) / 4);
      const ms = times.slice(from, to).reduce((sum, time) => sum + time.ms, 0);
      return ms / tokens.slice(from, to).reduce((sum, count) => sum + count, 0);
    });
    return Math.max(...rates) / Math.min(...rates);
  });
  return Math.max(1, ...spreads);
}

/** A stage's time against the tokens of its step, over all steps of these jobs that had it; null where none had. */
function fitStage(files: RunFiles, jobs: readonly RunJob[], stage: ExclusiveStage): LinearCost | null {
  const amounts: number[] = [];
  const times: number[] = [];
  for (const job of jobs) {
    const tokens = trainedTokens(job, stage);
    stageTimes(files, job, stage).forEach(({ ms }, i) => {
      const own = tokens[i];
      if (own === undefined) return;
      amounts.push(own);
      times.push(ms);
    });
  }
  return amounts.length === 0 ? null : fit(amounts, times);
}

/** Tokens of prompts and completions of each step that trained on any and had that stage, by step. */
function trainedTokens({ rollouts, config }: RunJob, stage: ExclusiveStage): number[] {
  const byStep = new Map<number, number>();
  for (const { step, promptTokens, tokens, turns = [], isTrained } of rollouts) {
    if (!isTrained) continue;
    const observed = turns.reduce((sum, { observationTokens }) => sum + observationTokens, 0);
    byStep.set(step, (byStep.get(step) ?? 0) + promptTokens + tokens + observed);
  }
  const steps = [...byStep.entries()].filter(([step]) => stagesOf(config, step).includes(stage));
  return steps.sort(([a], [b]) => a - b).map(([, tokens]) => tokens);
}

/** By job: what the decode times are to be multiplied with, the same for jobs of the same model. */
async function fitDecode(
  files: RunFiles,
  start: Calibration,
  policy: Policy,
  runFolder: string,
): Promise<number[]> {
  const measured = engineTimes(files);
  const models = [...new Set(files.jobs.map(({ config }) => config.model))];
  const scales = new Map(models.map((model) => [model, 1]));
  const ofJobs = (): number[] => files.jobs.map(({ config }) => scales.get(config.model) ?? 1);
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const jobs = start.jobs.map((job, i) => ({ ...job, computeScale: at(ofJobs(), i) }));
    const scenario = replayScenario(files, { ...start, jobs }, runFolder);
    const { busy } = await simulate(scenario, policy, { spansMax: 0, recordsMax: 0, planEventsMax: 0 });
    let miss = 0;
    for (const model of models) {
      const ids = files.jobs.filter(({ config }) => config.model === model).map(({ id }) => id);
      const liveMs = ids.reduce((sum, id) => sum + (measured.get(id) ?? 0), 0);
      const engines = busy.filter(({ job, kind }) => kind === 'generation' && ids.includes(job));
      const simMs = engines.reduce((sum, { ms }) => sum + ms, 0);
      if (liveMs === 0 || simMs === 0) continue;
      scales.set(model, ((scales.get(model) ?? 1) * liveMs) / simMs);
      miss = Math.max(miss, Math.abs(liveMs / simMs - 1));
    }
    if (miss < MISS_MAX) break;
  }
  return ofJobs();
}
