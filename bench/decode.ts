/**
 * Decode benchmark: one engine on one lane, a fixed number of sequences, steady state. Prints what one decode step
 * costs in dispatches, submits and time. Speed does not depend on the values of weights, so they are random.
 *
 *   npm run bench:decode -- [--shape arithmetic-tiny,llama-15m] [--batch 1,8,32,128] [--prompt 16] [--gen 64] [--json FILE]
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { noTokens } from '#src/engine/sequence.js';
import { openGpu, type Gpu } from '#src/gpu/device.js';
import { blocksFor } from '#src/kernels/kv-cache.js';
import { Doorbell } from '#src/lanes/doorbell.js';
import { Lane } from '#src/lanes/lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { nowMs } from '#src/lib/clock.js';
import { rolloutKey } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout } from '#src/model/layout.js';
import { randomWeights } from '#src/model/random-weights.js';
import { quantiles } from '#src/telemetry/quantiles.js';
import { WeightStore } from '#src/weights/store.js';

interface Row {
  readonly shape: string;
  readonly batch: number;
  readonly steps: number;
  readonly dispatches_per_step: number;
  readonly submits_per_step: number;
  readonly ms_per_step: { readonly p50: number | null; readonly p90: number | null };
  readonly device_ms_per_step: number;
  readonly tokens_per_second: number;
}

const common = {
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenIds: [2],
};
const JOB = 'bench';
const SHAPES: Readonly<Record<string, ModelConfig>> = {
  'arithmetic-tiny': {
    ...common,
    hiddenSize: 64,
    intermediateSize: 128,
    layers: 3,
    heads: 4,
    kvHeads: 2,
    headDim: 16,
    vocabSize: 16,
    contextTokensMax: 128,
  },
  'llama-15m': {
    ...common,
    hiddenSize: 288,
    intermediateSize: 768,
    layers: 6,
    heads: 6,
    kvHeads: 6,
    headDim: 48,
    vocabSize: 32_000,
    contextTokensMax: 256,
  },
};
/** First steps compile pipelines and teach the cost model. */
const WARM_UP_STEPS = 16;

async function measure(
  gpu: Gpu,
  shape: string,
  batch: number,
  promptTokens: number,
  generated: number,
): Promise<Row> {
  const config = SHAPES[shape];
  if (config === undefined)
    throw new Error(`unknown shape ${shape}; known: ${Object.keys(SHAPES).join(', ')}`);
  const layout = paramLayout(config, gpu.limits.maxStorageBufferBindingSize);
  const store = WeightStore.create(layout);
  store.publish(0, randomWeights(config, layout, 1));
  const stepsMs: number[] = [];
  let lastMs = nowMs();
  let finished = 0;
  let done: () => void = () => undefined;
  const allDone = new Promise<void>((resolve) => {
    done = resolve;
  });
  const doorbell = new Doorbell(new SharedArrayBuffer(4));
  const budgets = { sliceUs: 20_000, inFlightUs: 40_000 };
  const lane = new Lane(gpu, { lane: 0, settings: laneSettings(budgets), doorbell }, (update) => {
    const now = nowMs();
    stepsMs.push(now - lastMs);
    lastMs = now;
    finished += update.finished.length;
    if (finished === batch) done();
  });
  const tokens = promptTokens + generated + WARM_UP_STEPS;
  const contextTokensMax = blocksFor(tokens) * 16;
  await lane.handle({
    kind: 'createEngine',
    job: JOB,
    weight: 1,
    config,
    layout,
    store: store.shared,
    options: {
      slots: batch,
      batchTokensMax: Math.max(256, batch),
      kvBlocks: batch * blocksFor(tokens),
      contextTokensMax,
      stepsAheadMax: 4,
    },
  });
  await lane.handle({ kind: 'pull', job: JOB });
  const sequences = Array.from({ length: batch }, (_, id) => ({
    id: id + 1,
    promptTokenIds: Array.from({ length: promptTokens }, (__, i) => (id * 7 + i * 3) % config.vocabSize),
    generated: noTokens(),
    tokensMax: generated + WARM_UP_STEPS,
    sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
    key: rolloutKey(1, 'bench', id),
    stopTokenIds: [],
  }));
  await lane.handle({ kind: 'add', job: JOB, sequences });
  await allDone;
  const { slices } = lane.takeRecords(true);
  await lane.handle({ kind: 'close' });
  // Slices of the warm-up are left out by time, steps by count.
  const kept = stepsMs.slice(-generated);
  const sinceMs = lastMs - kept.reduce((sum, ms) => sum + ms, 0);
  const steady = slices.filter((slice) => slice.startedMs >= sinceMs);
  const { p50, p90 } = quantiles(kept);
  const seconds = kept.reduce((sum, ms) => sum + ms, 0) / 1000;
  return {
    shape,
    batch,
    steps: kept.length,
    dispatches_per_step: steady.reduce((sum, slice) => sum + slice.dispatches, 0) / kept.length,
    submits_per_step: steady.length / kept.length,
    ms_per_step: { p50, p90 },
    device_ms_per_step:
      steady.reduce((sum, { startedMs, finishedMs }) => sum + finishedMs - startedMs, 0) / kept.length,
    tokens_per_second: (kept.length * batch) / seconds,
  };
}

const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: Object.keys(SHAPES).join(',') },
    batch: { type: 'string', default: '1,8,32,128' },
    prompt: { type: 'string', default: '16' },
    gen: { type: 'string', default: '64' },
    json: { type: 'string' },
  },
});
const rows: Row[] = [];
let adapter: Gpu['adapter'] | null = null;
for (const shape of values.shape.split(',')) {
  for (const batch of values.batch.split(',').map(Number)) {
    const gpu = await openGpu();
    if (adapter === null) {
      adapter = gpu.adapter;
      const label = adapter.software ? ' (software adapter: not the speed of a GPU)' : '';
      console.log(`${adapter.description}${label}\n`);
      console.log(
        '| shape | batch | dispatches/step | submits/step | ms/step p50 | p90 | device ms/step | tokens/s |',
      );
      console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
    }
    const row = await measure(gpu, shape, batch, Number(values.prompt), Number(values.gen));
    rows.push(row);
    const { p50, p90 } = row.ms_per_step;
    const cells = [row.dispatches_per_step, row.submits_per_step, p50 ?? 0, p90 ?? 0, row.device_ms_per_step];
    const text = cells.map((cell) => cell.toFixed(2)).join(' | ');
    console.log(`| ${shape} | ${batch} | ${text} | ${row.tokens_per_second.toFixed(0)} |`);
  }
}
if (values.json !== undefined)
  await writeFile(values.json, `${JSON.stringify({ adapter, rows }, null, 2)}\n`);
process.exit(0);
