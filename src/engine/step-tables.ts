import type { Gpu } from '../gpu/device.js';
import type { BufferSlice, WriteOp } from '../gpu/ops.js';
import { NONE, SAMPLE_ROW_WORDS, SAMPLING_WORDS, filtersOf, writeSampling } from '../kernels/output-head.js';
import { assert, at } from '../lib/assert.js';
import type { BatchEntry } from './batcher.js';
import type { Sequence } from './sequence.js';

const ROW_WORDS = 4;
/** Ids that may end one sequence: end-of-sequence and the request's own stop ids. */
export const STOP_IDS_MAX = 16;

export interface TableSizes {
  readonly slots: number;
  readonly rowsMax: number;
  readonly blocksPerSlot: number;
}

/** What the tables say of one step, for those who launch and read it. */
export interface StepShape {
  readonly rows: number;
  /** position + 1 of each row. */
  readonly contexts: readonly number[];
  /** The sequences that sample in this step, in the order of the sample rows. */
  readonly samples: readonly Sequence[];
  readonly filters: number;
}

/**
 * All host-made tables of a step in one buffer, so that a step needs one host write: rows, block table, sample
 * rows, row index, sampling parameters and stop ids. Sections start at multiples of 256 bytes.
 */
export class StepTables {
  readonly rows: BufferSlice;
  readonly blockTable: BufferSlice;
  readonly sampleRows: BufferSlice;
  readonly rowIndex: BufferSlice;
  readonly sampling: BufferSlice;
  readonly stops: BufferSlice;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #buffer: GPUBuffer;

  constructor(
    private readonly gpu: Gpu,
    private readonly sizes: TableSizes,
    private readonly vocabSize: number,
  ) {
    const { slots, rowsMax, blocksPerSlot } = sizes;
    let bytes = 0;
    const section = (words: number): { offset: number; bytes: number } => {
      const placed = { offset: bytes, bytes: words * 4 };
      bytes = Math.ceil((bytes + words * 4) / 256) * 256;
      return placed;
    };
    const sections = [
      section(rowsMax * ROW_WORDS),
      section(slots * blocksPerSlot),
      section(slots * SAMPLE_ROW_WORDS),
      section(slots),
      section(slots * SAMPLING_WORDS),
      section(slots * STOP_IDS_MAX),
    ];
    const buffer = gpu.createStorage('step tables', bytes);
    const slice = (index: number): BufferSlice => ({ buffer, ...at(sections, index) });
    this.#buffer = buffer;
    this.#words = new Uint32Array(bytes / 4);
    this.rows = slice(0);
    this.blockTable = slice(1);
    this.sampleRows = slice(2);
    this.rowIndex = slice(3);
    this.sampling = slice(4);
    this.stops = slice(5);
  }

  /** Fills the tables for a batch. The returned op carries its own copy: the next step may be planned at once. */
  fill(entries: readonly BatchEntry[]): { write: WriteOp; shape: StepShape } {
    const samples: Sequence[] = [];
    let rows = 0;
    const contexts: number[] = [];
    let filters = 0;
    for (const { sequence, start, count, samples: last } of entries) {
      this.#fillSlot(sequence);
      for (let i = 0; i < count; i++) {
        const position = start + i;
        const token = sequence.knownTokens[position] ?? NONE;
        this.#set(this.rows, (rows + i) * ROW_WORDS, [sequence.slot, position, token, 0]);
        contexts.push(position + 1);
      }
      rows += count;
      if (!last) continue;
      const drawn = start + count;
      this.#set(this.sampleRows, samples.length * SAMPLE_ROW_WORDS, [
        sequence.slot,
        drawn,
        NONE,
        sequence.serial,
      ]);
      this.#set(this.rowIndex, samples.length, [rows - 1]);
      filters |= filtersOf(sequence.request.sampling, this.vocabSize);
      samples.push(sequence);
    }
    assert(
      rows <= this.sizes.rowsMax && samples.length <= this.sizes.slots,
      'a batch larger than its tables',
    );
    const write: WriteOp = { kind: 'write', target: this.#buffer, offset: 0, data: this.#words.slice() };
    return { write, shape: { rows, contexts, samples, filters } };
  }

  destroy(): void {
    this.gpu.destroyBuffer(this.#buffer);
  }

  #fillSlot(sequence: Sequence): void {
    const { slot, blocks, request } = sequence;
    const { stopTokenIds } = request;
    assert(blocks.length <= this.sizes.blocksPerSlot, 'a sequence longer than the context');
    assert(stopTokenIds.length <= STOP_IDS_MAX, `${stopTokenIds.length} stop ids, at most ${STOP_IDS_MAX}`);
    this.#set(this.blockTable, slot * this.sizes.blocksPerSlot, blocks);
    const stops = { start: slot * STOP_IDS_MAX, count: stopTokenIds.length };
    this.#set(this.stops, stops.start, stopTokenIds);
    const { offset, bytes } = this.sampling;
    const sampling = new Uint32Array(this.#words.buffer, offset, bytes / 4);
    writeSampling(sampling, slot, request.sampling, request.key, stops);
  }

  #set(section: BufferSlice, word: number, values: readonly number[]): void {
    this.#words.set(values, section.offset / 4 + word);
  }
}
