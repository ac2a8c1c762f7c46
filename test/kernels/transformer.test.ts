import { describe, expect, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { Activations } from '#src/kernels/activations.js';
import { KvCache } from '#src/kernels/kv-cache.js';
import { whole, type Splitter } from '#src/kernels/launch.js';
import {
  HeadActivations,
  NONE,
  OutputHead,
  readSampled,
  SAMPLED_WORDS,
  SAMPLING_WORDS,
  writeSampling,
} from '#src/kernels/output-head.js';
import { ropeAngles } from '#src/kernels/rope-angles.js';
import { Transformer } from '#src/kernels/transformer.js';
import { WeightBuffers } from '#src/kernels/weight-buffers.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout, type Buckets } from '#src/model/layout.js';
import { expectSameBits, pieces, rowsOf } from '../helpers/arrays.js';
import { readF32, readU32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { awkwardConfig, randomParams, randomTokens } from '../oracle/fixtures.js';
import { fromBuckets, toBuckets, type Params } from '../oracle/params.js';
import { distribution, RAW_SAMPLING } from '../oracle/sampling.js';
import { forward } from '../oracle/transformer.js';
import { raggedBatch, type RaggedBatch } from './ragged-batch.js';

const SEEDS = [1, 2, 3, 4];
/** Two layers of sums, norms and exponentials in float32. */
const TOLERANCE = 1e-5;

const device = useGpu();

interface Model {
  readonly config: ModelConfig;
  readonly buckets: Buckets;
  /** What the buckets hold, in float64. */
  readonly params: Params;
}

function randomModel(random: Random): Model {
  const config = awkwardConfig(random, random.int(0, 1) === 1);
  const layout = paramLayout(config, 2 ** 20);
  const buckets = toBuckets(layout, randomParams(config, random));
  return { config, buckets, params: fromBuckets(layout, buckets) };
}

/** A model on the device with a cache, an output head over all rows, and room for one batch at a time. */
class Machine {
  readonly #transformer: Transformer;
  readonly #head: OutputHead;
  readonly #headActivations: HeadActivations;
  readonly #tables: { rows: GPUBuffer; blockTable: GPUBuffer; rowIndex: GPUBuffer; sampleRows: GPUBuffer };

  constructor(
    private readonly model: Model,
    rowsMax: number,
    shape: { blocks: number; blocksPerSlot: number; slots: number },
    keep: boolean,
  ) {
    const { gpu, kernels } = device;
    const { config } = model;
    const storage = (words: number) => gpu.createStorage('table', words * 4);
    this.#tables = {
      rows: storage(rowsMax * 4),
      blockTable: storage(shape.slots * shape.blocksPerSlot),
      rowIndex: storage(rowsMax),
      sampleRows: storage(rowsMax * 4),
    };
    const weights = new WeightBuffers(gpu, paramLayout(config, 2 ** 20), 'weights');
    model.buckets.forEach((bucket, i) => gpu.device.queue.writeBuffer(at(weights.buckets, i), 0, bucket));
    const activations = new Activations(gpu, config, rowsMax, keep);
    const slotTokens = storage(shape.slots);
    const whole = (buffer: GPUBuffer) => ({ buffer, offset: 0, bytes: buffer.size });
    this.#transformer = new Transformer(kernels, config, {
      weights,
      activations,
      kv: new KvCache(gpu, config, shape.blocks, 'cache'),
      inputs: {
        rows: whole(this.#tables.rows),
        blockTable: whole(this.#tables.blockTable),
        blocksPerSlot: shape.blocksPerSlot,
        slotTokens,
        angles: upload(gpu, ropeAngles(config, config.contextTokensMax)),
      },
    });
    const sampling = new Uint32Array(shape.slots * SAMPLING_WORDS);
    for (let slot = 0; slot < shape.slots; slot++) {
      writeSampling(sampling, slot, RAW_SAMPLING, [0, 0], { start: 0, count: 0 });
    }
    this.#headActivations = new HeadActivations(gpu, config, rowsMax);
    const { rowIndex, sampleRows } = this.#tables;
    this.#head = new OutputHead(
      kernels,
      config,
      {
        weights,
        stream: at(activations.stream, config.layers),
        rowIndex,
        sampleRows,
        sampling: upload(gpu, sampling),
        stops: storage(1),
        slotTokens,
        slotDone: storage(shape.slots),
      },
      this.#headActivations,
    );
  }

  /** Logits of every row and the log-probability of the row's next token. */
  async run(
    batch: RaggedBatch,
    tokens: readonly number[],
    nextTokens: readonly number[],
    { split = whole, stretchRows = batch.rows }: { split?: Splitter; stretchRows?: number } = {},
  ) {
    const { gpu } = device;
    const { vocabSize } = this.model.config;
    this.#write(batch, tokens, nextTokens);
    const contexts = batch.positions.map((position) => position + 1);
    await runProgram(gpu, this.#transformer.forward({ rows: batch.rows, contexts }, split));
    await runProgram(gpu, this.#head.norm(batch.rows, split));
    const logits: number[] = [];
    for (let start = 0; start < batch.rows; start += stretchRows) {
      const count = Math.min(stretchRows, batch.rows - start);
      await runProgram(gpu, this.#head.stretch(start, count, 0, split));
      logits.push(...(await readF32(gpu, this.#headActivations.logits, count * vocabSize)));
    }
    const words = await readU32(gpu, this.#headActivations.sampled, batch.rows * SAMPLED_WORDS);
    const floats = new Float32Array(words.buffer);
    const logprobs = Float32Array.from(batch.positions, (_, row) => readSampled(words, floats, row).logprob);
    return { logits: Float32Array.from(logits), logprobs };
  }

  #write(batch: RaggedBatch, tokens: readonly number[], nextTokens: readonly number[]): void {
    const rowTable = batch.rowTable.slice();
    const sampleRows = new Uint32Array(batch.rows * 4);
    for (let row = 0; row < batch.rows; row++) {
      rowTable[row * 4 + 2] = at(tokens, row);
      const slot = at(rowTable, row * 4);
      sampleRows.set([slot, at(batch.positions, row), nextTokens[row] ?? NONE, 1], row * 4);
    }
    const put = (buffer: GPUBuffer, data: Uint32Array<ArrayBuffer>): void =>
      device.gpu.device.queue.writeBuffer(buffer, 0, data);
    put(this.#tables.rows, rowTable);
    put(this.#tables.blockTable, batch.blockTable);
    put(this.#tables.sampleRows, sampleRows);
    put(
      this.#tables.rowIndex,
      Uint32Array.from({ length: batch.rows }, (_, row) => row),
    );
  }
}

/** Whole sequences as one batch of prefill rows. */
function wholeSequences(random: Random, model: Model, lengths: readonly number[]) {
  const sequences = lengths.map((length) => randomTokens(random, length + 1, model.config.vocabSize));
  const batch = raggedBatch(
    random,
    lengths.map((tokens) => ({ tokens, queries: tokens })),
  );
  const shape = { blocks: batch.blocks, blocksPerSlot: batch.blocksPerSlot, slots: lengths.length + 2 };
  return {
    sequences,
    batch,
    shape,
    tokens: sequences.flatMap((tokens) => tokens.slice(0, -1)),
    nextTokens: sequences.flatMap((tokens) => tokens.slice(1)),
  };
}

describe('the forward pass and the output head', () => {
  it.each(SEEDS)('agree with float64 on a batch of whole sequences (seed %i)', async (seed) => {
    const random = new Random(seed);
    const model = randomModel(random);
    const { sequences, batch, shape, tokens, nextTokens } = wholeSequences(random, model, [1, 16, 17, 33]);
    const machine = new Machine(model, batch.rows, shape, false);
    const { logits, logprobs } = await machine.run(batch, tokens, nextTokens, {
      split: pieces(random.int(1, 3)),
    });
    const { vocabSize } = model.config;
    sequences.forEach((sequence, index) => {
      const length = sequence.length - 1;
      const wanted = forward(model.config, model.params, sequence.slice(0, -1)).logits;
      const start = at(batch.rowStarts, index);
      const label = `seed ${seed}: sequence ${index}, ${JSON.stringify(model.config)}`;
      expectClose(rowsOf(logits, vocabSize, start, length), wanted, TOLERANCE, label);
      const wantedLogprobs = sequence
        .slice(1)
        .map((token, row) => distribution(rowsOf(wanted, vocabSize, row), RAW_SAMPLING).logprob(token));
      expectClose(
        logprobs.slice(start, start + length),
        wantedLogprobs,
        TOLERANCE,
        `${label}: log-probabilities`,
      );
    });
  });

  it.each(SEEDS)('give a token the same bits however the work is cut or spread (seed %i)', async (seed) => {
    const random = new Random(seed).fork('bits');
    const model = randomModel(random);
    const lengths = [5, 33, 18];
    const { sequences, batch, shape, tokens, nextTokens } = wholeSequences(random, model, lengths);
    const machine = new Machine(model, batch.rows, shape, false);
    const all = await machine.run(batch, tokens, nextTokens);

    const cutUp = await machine.run(batch, tokens, nextTokens, { split: pieces(7), stretchRows: 10 });
    expectSameBits(cutUp.logits, all.logits, `seed ${seed}: logits in pieces`);
    expectSameBits(cutUp.logprobs, all.logprobs, `seed ${seed}: log-probabilities in pieces`);

    // A trainer keeps every layer's activations; an engine does not.
    const trainer = new Machine(model, batch.rows, shape, true);
    const kept = await trainer.run(batch, tokens, nextTokens);
    expectSameBits(kept.logits, all.logits, `seed ${seed}: logits with activations kept`);

    // One sequence alone: a chunk of the prompt first, then token after token.
    for (const [index, sequence] of sequences.entries()) {
      const length = at(lengths, index);
      const layout = raggedBatch(random, [{ tokens: length, queries: length }]);
      const alone = new Machine(model, length, { ...layout, slots: 3 }, false);
      const prompt = Math.min(length, 4);
      for (let done = 0, queries = prompt; done < length; done += queries, queries = 1) {
        const positions = Array.from({ length: queries }, (_, row) => done + row);
        const slot = at(layout.slots, 0);
        const step: RaggedBatch = {
          ...layout,
          rows: queries,
          positions,
          rowTable: Uint32Array.from(positions.flatMap((position) => [slot, position, 0, 0])),
        };
        const end = done + queries;
        const result = await alone.run(step, sequence.slice(done, end), sequence.slice(done + 1, end + 1));
        const start = at(batch.rowStarts, index) + done;
        const label = `seed ${seed}: sequence ${index}, tokens ${done} to ${end}`;
        expectSameBits(result.logits, rowsOf(all.logits, model.config.vocabSize, start, queries), label);
        expectSameBits(
          result.logprobs,
          all.logprobs.slice(start, start + queries),
          `${label}: log-probabilities`,
        );
      }
    }
  });
});

it('activations and cache count and free their bytes', () => {
  const { gpu } = device;
  const config = awkwardConfig(new Random(1), true);
  const before = gpu.bytesAllocated;
  const shared = new Activations(gpu, config, 64, false);
  const sharedBytes = gpu.bytesAllocated - before;
  const kept = new Activations(gpu, { ...config, layers: 4 }, 64, true);
  expect(gpu.bytesAllocated - before - sharedBytes).toBeGreaterThan(3 * sharedBytes);
  const cache = new KvCache(gpu, config, 3, 'cache');
  const head = new HeadActivations(gpu, config, 5);
  for (const owner of [shared, kept, cache, head]) owner.destroy();
  expect(gpu.bytesAllocated).toBe(before);
});
