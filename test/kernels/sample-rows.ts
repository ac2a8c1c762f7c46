import { runProgram } from '#src/gpu/slice-encoder.js';
import {
  cutDraw,
  filtersOf,
  NONE,
  readSampled,
  SAMPLE_ROW_WORDS,
  SAMPLED_WORDS,
  SAMPLING_WORDS,
  STATS_WORDS,
  writeSampling,
  type SampledToken,
  type SamplingParams,
} from '#src/kernels/output-head.js';
import { laneGroups, lanesFor } from '#src/kernels/transformer.js';
import { at } from '#src/lib/assert.js';
import { threefry2x32, type Key, type Random } from '#src/lib/prng.js';
import { shuffled } from '../helpers/arrays.js';
import { readF32, readU32, upload, type TestGpu } from '../helpers/gpu.js';

/** One row for the sampling kernel; each has a slot of its own. */
export interface SampleRequest {
  readonly logits: Float32Array;
  readonly params: SamplingParams;
  readonly key: Key;
  readonly position: number;
  /** Scored instead of drawn. */
  readonly given?: number;
  readonly serial?: number;
  readonly stops?: readonly number[];
  /** The serial its slot was last done for. */
  readonly doneBefore?: number;
}

/** What the kernel found out about the row's distribution. */
export interface RowStats {
  readonly threshold: number;
  readonly logsumexp: number;
  readonly entropy: number;
  readonly inverseTemperature: number;
}

export interface SampledRow extends SampledToken {
  readonly stats: RowStats;
  /** The slot's last token and done serial afterwards. */
  readonly slotToken: number;
  readonly slotDone: number;
  /** All float words of the row, to compare bits. */
  readonly words: Float32Array<ArrayBuffer>;
}

export interface SampleOptions {
  /** Switches of the dispatch; by default those the rows need. */
  readonly filters?: number;
  readonly pieces?: number;
  /** Places the rows' slots at random; in order without it. */
  readonly random?: Random;
}

/** Stands in the table of last tokens before the kernel runs. */
export const NO_TOKEN = 777_777;

/** The number in (0, 1) that the kernel draws with. */
export function uniformOf(key: Key, position: number): number {
  return ((threefry2x32(key, [position, 0])[0] >>> 9) + 0.5) / 2 ** 23;
}

/** Runs the kernel over rows of one vocabulary. */
export async function sampleRows(
  { gpu, kernels }: TestGpu,
  requests: readonly SampleRequest[],
  { filters, pieces = 1, random }: SampleOptions = {},
): Promise<SampledRow[]> {
  const rows = requests.length;
  const vocabulary = at(requests, 0).logits.length;
  const slots =
    random === undefined ? requests.map((_, row) => row) : shuffled(random, rows + 3).slice(0, rows);
  const tables = fillTables(requests, slots, rows + 3);
  const sampled = gpu.createStorage('sampled', rows * SAMPLED_WORDS * 4);
  const stats = gpu.createStorage('stats', rows * STATS_WORDS * 4);
  const slotTokens = upload(gpu, tables.slotTokens);
  const slotDone = upload(gpu, tables.slotDone);
  const kernel = kernels.bind(
    'sample_row',
    { overrides: {}, prelude: { LANES: lanesFor(vocabulary) } },
    {
      sample_rows: upload(gpu, tables.sampleRows),
      sampling: upload(gpu, tables.sampling),
      stops: upload(gpu, tables.stops),
      logits: upload(gpu, tables.logits),
      slot_tokens: slotTokens,
      slot_done: slotDone,
      sampled,
      stats,
    },
  );
  const needed = requests.reduce((all, { params }) => all | filtersOf(params, vocabulary), 0);
  const used = filters ?? needed;
  const dispatches = Array.from(cutDraw(rows, vocabulary, used, pieces), (piece) => {
    const ranges = {
      row_start: piece.from,
      logits_start: piece.from,
      pass_start: piece.passStart,
      pass_end: piece.passEnd,
    };
    const params = { rows: piece.rows, vocabulary, filters: used, ...ranges };
    return kernel.dispatch(params, [laneGroups(piece.rows, vocabulary), 1, 1], 1);
  });
  await runProgram(gpu, dispatches);
  const words = await readU32(gpu, sampled, rows * SAMPLED_WORDS);
  const floats = new Float32Array(words.buffer);
  const statsFloats = await readF32(gpu, stats, rows * STATS_WORDS);
  const tokensAfter = await readU32(gpu, slotTokens, rows + 3);
  const doneAfter = await readU32(gpu, slotDone, rows + 3);
  return slots.map((slot, row) => ({
    ...readSampled(words, floats, row),
    stats: statsOf(statsFloats, row),
    slotToken: at(tokensAfter, slot),
    slotDone: at(doneAfter, slot),
    words: Float32Array.of(
      ...floats.slice(row * SAMPLED_WORDS, (row + 1) * SAMPLED_WORDS),
      ...statsFloats.slice(row * STATS_WORDS, (row + 1) * STATS_WORDS),
    ),
  }));
}

function fillTables(requests: readonly SampleRequest[], slots: readonly number[], slotCount: number) {
  const vocabulary = at(requests, 0).logits.length;
  const logits = new Float32Array(requests.length * vocabulary);
  const sampleRows = new Uint32Array(requests.length * SAMPLE_ROW_WORDS);
  const sampling = new Uint32Array(slotCount * SAMPLING_WORDS);
  const slotTokens = new Uint32Array(slotCount).fill(NO_TOKEN);
  const slotDone = new Uint32Array(slotCount);
  const stops: number[] = [];
  requests.forEach((request, row) => {
    const slot = at(slots, row);
    const { given = NONE, serial = 1, stops: own = [] } = request;
    logits.set(request.logits, row * vocabulary);
    sampleRows.set([slot, request.position, given, serial], row * SAMPLE_ROW_WORDS);
    const range = { start: stops.length, count: own.length };
    writeSampling(sampling, slot, request.params, request.key, range);
    stops.push(...own);
    slotDone[slot] = request.doneBefore ?? 0;
  });
  return { logits, sampleRows, sampling, slotTokens, slotDone, stops: Uint32Array.from([...stops, NONE]) };
}

function statsOf(floats: Float32Array, row: number): RowStats {
  const base = row * STATS_WORDS;
  return {
    threshold: at(floats, base),
    logsumexp: at(floats, base + 1),
    entropy: at(floats, base + 2),
    inverseTemperature: at(floats, base + 3),
  };
}
