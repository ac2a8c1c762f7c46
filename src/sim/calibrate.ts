import { UserError } from '../lib/errors.js';
import { nearestRank } from '../telemetry/quantiles.js';
import { type CostModel, type LinearCost, stepMs } from './cost-model.js';
import { profileNamed } from './profiles.js';
import { readRunFiles, type RunFiles, type TraceSpan, weightBytes } from './run-files.js';

/** Two slices of an engine further apart than this had something else between them. */
const GAP_MS_MAX = 50;
const YIELDS_MAX = 1000;

/**
 * A cost model fitted to a run of one job, as it stands in its folder:
 *
 * - training and scoring: least squares over the run's stages, time against tokens, publishing included;
 * - decoding: the base profile's times of a step and its rows, all scaled by one factor, so that the engine's time on
 *   its lanes comes out as it was. A gap between two of its slices is the host's part of a step and counts;
 * - yielding: the very times measured. Resuming: their median without the step it ends with;
 * - init: the run's own, with the base profile's waking taken out; waking and sleeping are the base profile's.
 *
 * @throws UserError when the folder is no finished run with at least one training step.
 */
export function calibrate(runFolder: string, base: CostModel = profileNamed('llvmpipe-2-cores')): CostModel {
  const files = readRunFiles(runFolder);
  const yieldMs = files.spans
    .filter(({ name }) => name === 'time to yield')
    .map(({ ms }) => ms)
    .slice(0, YIELDS_MAX);
  const trained = tokensByStep(files.rollouts.filter(({ isTrained }) => isTrained));
  const training = stages(files, 'actorTraining');
  const [init] = stages(files, 'init');
  if (training.length === 0 || trained.length === 0) {
    throw new UserError(`${runFolder} holds no training step to calibrate with: use a run that trained`);
  }
  const yieldMedian = median(yieldMs) ?? 0;
  const work = training.map(({ ms }) => Math.max(0, ms - yieldMedian));
  const train = fit(trained, work);
  const scoring = [...stages(files, 'oldLogProbs'), ...stages(files, 'refLogProbs')].map(({ ms }) => ms);
  const decode = fitDecode(files, base);
  const rows = Math.min(files.slots, files.rollouts.filter(({ step }) => step === 1).length);
  const resumes = files.spans.filter(({ name }) => name === 'resume').map(({ ms }) => ms);
  const model: CostModel = {
    ...base,
    name: 'calibrated',
    source: `fitted to ${runFolder}; waking and sleeping as in ${base.name}`,
    modelBytes: weightBytes(files),
    decode,
    train,
    score: scoring.length > 0 ? fit(trained, scoring) : { ms: train.ms / 3, msPerUnit: train.msPerUnit / 3 },
    init: init === undefined ? base.init : { ms: Math.max(0, init.ms - base.wake.ms), msPerUnit: 0 },
    pull: fitPull(files) ?? base.pull,
    publish: { ms: 0, msPerUnit: 0 },
    yieldMs: yieldMs.length > 0 ? yieldMs : base.yieldMs,
  };
  const resume = median(resumes);
  return {
    ...model,
    resumeMs: resume === null ? base.resumeMs : Math.max(0, resume - stepMs(model, rows, 0)),
  };
}

/** Grants of a stage, in order; the job's name stands in front where the run had several. */
function stages({ spans }: RunFiles, stage: string): TraceSpan[] {
  return spans
    .filter(({ process, thread, name }) => {
      return (
        process === 'scheduler' && name === 'granted' && (thread === stage || thread.endsWith(` ${stage}`))
      );
    })
    .sort((a, b) => a.fromMs - b.fromMs);
}

/** Tokens of prompts and completions of each step that has any, by step. */
function tokensByStep(rollouts: RunFiles['rollouts']): number[] {
  const tokens = new Map<number, number>();
  for (const { step, promptTokens, tokens: sampled } of rollouts) {
    tokens.set(step, (tokens.get(step) ?? 0) + promptTokens + sampled);
  }
  return [...tokens.entries()].sort(([a], [b]) => a - b).map(([, count]) => count);
}

/**
 * Least squares of `ms + msPerUnit · amount`, both at least 0. Pairs are formed in order; where the amounts hardly
 * differ, all is put down to the amount.
 */
export function fit(amounts: readonly number[], times: readonly number[]): LinearCost {
  const count = Math.min(amounts.length, times.length);
  const xs = amounts.slice(0, count);
  const ys = times.slice(0, count);
  const meanX = xs.reduce((sum, x) => sum + x, 0) / count;
  const meanY = ys.reduce((sum, y) => sum + y, 0) / count;
  const spread = xs.reduce((sum, x) => sum + (x - meanX) ** 2, 0);
  const slope = xs.reduce((sum, x, i) => sum + (x - meanX) * ((ys[i] ?? 0) - meanY), 0) / spread;
  const intercept = meanY - slope * meanX;
  const isUsable = spread > 1e-4 * count * meanX ** 2 && slope >= 0 && intercept >= 0;
  return isUsable ? { ms: intercept, msPerUnit: slope } : { ms: 0, msPerUnit: meanX > 0 ? meanY / meanX : 0 };
}

/** The base's decode times, scaled to the engine's time from the first step's start to the last stage's. */
function fitDecode(files: RunFiles, base: CostModel): CostModel['decode'] {
  const [first] = files.steps;
  const fromMs = first === undefined ? 0 : first.endMs - first.stepMs;
  const toMs = stages(files, 'actorTraining').at(-1)?.fromMs ?? Infinity;
  let steps = 0;
  let tokens = 0;
  let promptTokens = 0;
  for (const step of new Set(files.rollouts.map((rollout) => rollout.step))) {
    const round = files.rollouts.filter((rollout) => rollout.step === step);
    const sampled = round.reduce((sum, rollout) => sum + rollout.tokens, 0);
    const longest = round.reduce((most, rollout) => Math.max(most, rollout.tokens), 0);
    // Each lane's engine takes as many steps as its longest sequence, or as its slots need for all of them.
    steps += Math.max(longest * files.lanes, sampled / files.slots);
    tokens += sampled;
    promptTokens += round.reduce((sum, rollout) => sum + rollout.promptTokens, 0);
  }
  const { stepMs: step, rowMs, prefillRowMs } = base.decode;
  const predictedMs = step * steps + rowMs * tokens + prefillRowMs * promptTokens;
  const measuredMs = engineMs(files.spans, fromMs, toMs);
  const scale = predictedMs > 0 && measuredMs > 0 ? measuredMs / predictedMs : 1;
  return {
    stepMs: step * scale,
    rowMs: rowMs * scale,
    prefillRowMs: prefillRowMs * scale,
    batchRows: files.batchRows,
  };
}

/** Time of engines on all lanes, the short gaps between two slices of the same one included. */
function engineMs(spans: readonly TraceSpan[], fromMs: number, toMs: number): number {
  const byLane = new Map<string, TraceSpan[]>();
  for (const span of spans) {
    const isSlice = span.process.startsWith('lane ') && ['trainer', 'critic', 'engine'].includes(span.name);
    if (!isSlice || span.fromMs < fromMs || span.fromMs > toMs) continue;
    const slices = byLane.get(span.process) ?? [];
    slices.push(span);
    byLane.set(span.process, slices);
  }
  let total = 0;
  for (const slices of byLane.values()) {
    slices.sort((a, b) => a.fromMs - b.fromMs);
    slices.forEach((slice, i) => {
      if (!isEngine(slice)) return;
      total += slice.ms;
      const next = slices[i + 1];
      const gapMs = next === undefined || !isEngine(next) ? 0 : next.fromMs - slice.fromMs - slice.ms;
      if (gapMs > 0 && gapMs < GAP_MS_MAX) total += gapMs;
    });
  }
  return total;
}

function isEngine({ name }: TraceSpan): boolean {
  return name === 'engine';
}

function fitPull({ spans }: RunFiles): LinearCost | null {
  const rates = spans
    .filter(({ thread, name, bytes }) => thread === 'weights' && / ?pull v\d+$/.test(name) && bytes > 0)
    .map(({ ms, bytes }) => ms / bytes);
  const rate = median(rates);
  return rate === null ? null : { ms: 0, msPerUnit: rate };
}

function median(samples: readonly number[]): number | null {
  return nearestRank(Float64Array.from(samples).sort(), 0.5);
}
