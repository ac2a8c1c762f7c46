import { afterEach, expect, it } from 'vitest';
import { noTokens, type SequenceRequest } from '#src/engine/sequence.js';
import type { EngineOptions } from '#src/engine/webgpu-engine.js';
import { openGpu } from '#src/gpu/device.js';
import { Lane } from '#src/lanes/lane.js';
import { type ExecutorBudgets, laneSettings } from '#src/lanes/settings.js';
import { Random, rolloutKey } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import type { SliceRecord } from '#src/telemetry/records.js';
import { expectSameOutcomes, type Outcomes, SAMPLINGS } from '../engine/fixtures.js';
import { until } from '../faults/fixtures.js';
import { awkwardConfig, randomTokens } from '../oracle/fixtures.js';
import { type Model, randomModel } from '../train/fixtures.js';
import { createTrainer, Post } from './many-jobs-fixtures.js';

/** As a run has them by default. */
const BUDGETS = { sliceUs: 4000, inFlightUs: 8000 };
const SEGMENT = { sliceUs: 600, inFlightUs: 1200 };
const ENGINE: EngineOptions = {
  slots: 2,
  batchTokensMax: 256,
  kvBlocks: 64,
  contextTokensMax: 256,
  stepsAheadMax: 3,
};

const open: Lane[] = [];
afterEach(async () => {
  for (const lane of open.splice(0)) await lane.handle({ kind: 'close' });
});

interface Served {
  readonly job: string;
  readonly model: Model;
  readonly requests: readonly SequenceRequest[];
}

/** Sequences of one model, their prompts and completions as long as said. */
function served(
  job: string,
  part: Partial<ModelConfig>,
  [count, promptTokens, tokensMax]: readonly [number, number, number],
): Served {
  const random = new Random(5).fork(job);
  const config = { ...awkwardConfig(random, true), contextTokensMax: 256, ...part };
  const requests = Array.from({ length: count }, (_, id): SequenceRequest => {
    const promptTokenIds = randomTokens(random, promptTokens, config.vocabSize);
    const [sampling] = SAMPLINGS;
    if (sampling === undefined) throw new Error('no sampling');
    const key = rolloutKey(7, job, id);
    return { id, promptTokenIds, generated: noTokens(), tokensMax, sampling, key, stopTokenIds: [] };
  });
  return { job, model: randomModel(config, random, 1 << 20), requests };
}

const SMALL_MODEL = served('small', { layers: 1 }, [2, 2, 60]);
const WIDE = { hiddenSize: 48, intermediateSize: 96, heads: 6, kvHeads: 2, headDim: 8, layers: 2 };
const BIG_MODEL = served('big', WIDE, [6, 160, 2]);

/** Both models at work on one lane, their engines alternating as said. */
async function serve(
  segment: ExecutorBudgets | null,
): Promise<{ slices: readonly SliceRecord[]; post: Post }> {
  const [gpu, post] = [await openGpu(), new Post()];
  const lane = new Lane(gpu, { lane: 0, settings: laneSettings(BUDGETS), doorbell: null }, post.receive);
  open.push(lane);
  for (const { job, model } of [SMALL_MODEL, BIG_MODEL]) {
    const { config, layout } = model;
    await createTrainer(lane, { job, weight: 1, model, rounds: [] });
    await lane.handle({ kind: 'createEngine', job, weight: 1, config, layout, options: ENGINE, store: null });
    await lane.handle({ kind: 'publish', job, version: 0, store: null });
  }
  await lane.handle({ kind: 'align', segment });
  // What the kernels take at these sizes is learnt before anything is counted.
  for (const turn of [0, 1]) {
    if (turn === 1) lane.takeRecords(true);
    for (const { job, requests } of [BIG_MODEL, SMALL_MODEL]) {
      const sequences = requests.map((request) => ({ ...request, id: request.id + 1000 * turn }));
      await lane.handle({ kind: 'add', job, sequences });
    }
    for (const { job, requests } of [BIG_MODEL, SMALL_MODEL]) {
      const { byId } = post.of(job);
      await until(() => requests.every(({ id }) => isDone(post.of(job), id + 1000 * turn)), `${byId.size}`);
    }
  }
  return { slices: lane.takeRecords(true).slices, post };
}

function isDone({ byId }: Outcomes, id: number): boolean {
  return (byId.get(id)?.reason ?? null) !== null;
}

/** By slice of the small engine while both had work: what the big one's slices since its last are predicted to take. */
function waitsUs(slices: readonly SliceRecord[]): number[] {
  const engines = slices.filter(({ resident }) => resident === 'engine');
  const from = engines.findIndex(({ job }) => job === 'small');
  const last = (job: string): number => engines.findLastIndex((slice) => slice.job === job);
  const waits: number[] = [];
  let us = 0;
  for (const { job, predictedUs } of engines.slice(from, Math.min(last('small'), last('big')))) {
    if (job === 'big') us += predictedUs;
    else {
      waits.push(us);
      us = 0;
    }
  }
  return waits.sort((a, b) => a - b);
}

const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN;

it('segments bound what a small engine waits beside long prompts of a big one, and change no bit', async (context) => {
  const usual = await serve(null);
  const aligned = await serve(SEGMENT);
  const waits = [waitsUs(usual.slices), waitsUs(aligned.slices)];
  const show = waits.map((each) => [
    each.length,
    ...[0.5, 0.9, 0.99, 1].map((q) => Math.round(quantile(each, q))),
  ]);
  await context.annotate(`waits: count, p50, p90, p99, longest in µs: ${show.join(' | ')}`);
  const [before = [], after = []] = waits;
  expect(before.length, 'slices beside the big one').toBeGreaterThan(50);
  expect(after.length, 'slices beside the big one, aligned').toBeGreaterThan(50);
  // Without segments a slice of the big one is as long as the budget; a dispatch that cannot be cut may be over either.
  expect(quantile(before, 1)).toBeGreaterThan(BUDGETS.sliceUs / 2);
  expect(quantile(after, 0.5)).toBeLessThan(1.2 * SEGMENT.sliceUs);
  // Not the longest: that is the one dispatch that cannot be cut.
  expect(quantile(after, 0.9)).toBeLessThan(1.5 * SEGMENT.sliceUs);
  expect(quantile(after, 0.9)).toBeLessThan(quantile(before, 0.9) / 2);
  for (const { job, requests } of [SMALL_MODEL, BIG_MODEL]) {
    const again = requests.map((request) => ({ ...request, id: request.id + 1000 }));
    expectSameOutcomes(aligned.post.of(job), usual.post.of(job), [...requests, ...again], job);
  }
});
