import type { SimSequence } from './sequence.js';

/** What one step reads of prompts. */
export interface PrefillBatch {
  /** On its engine's count of steps. */
  readonly endStep: number;
  readonly rows: number;
  readonly parts: readonly { readonly sequence: SimSequence; readonly rows: number }[];
}

/** Prompts that an engine has to read, in ragged batches beside its decode rows: first come, first served. */
export class PrefillQueue {
  readonly sequences: SimSequence[] = [];
  #batch: PrefillBatch | null = null;

  constructor(private readonly rowsMax: number) {}

  /** The batch under way. */
  get batch(): PrefillBatch | null {
    return this.#batch;
  }

  /** After the batch under way there is nothing left to read. */
  get isLastBatch(): boolean {
    const last = this.#batch?.parts.at(-1);
    if (this.#batch === null || last === undefined) return false;
    return this.#batch.parts.length === this.sequences.length && last.rows === last.sequence.prefillLeft;
  }

  /** Puts a batch together where there is none, beside so many decode rows. */
  plan(decodeRows: number, steps: number): void {
    if (this.#batch !== null || this.sequences.length === 0) return;
    let rows = 0;
    const room = Math.max(1, this.rowsMax - decodeRows);
    const parts: { sequence: SimSequence; rows: number }[] = [];
    for (const sequence of this.sequences) {
      const part = Math.min(sequence.prefillLeft, room - rows);
      if (part <= 0) break;
      parts.push({ sequence, rows: part });
      rows += part;
    }
    this.#batch = { endStep: steps + 1, rows, parts };
  }

  /** The batch has been read: the sequences that can decode now. */
  end(): SimSequence[] {
    const parts = this.#batch?.parts ?? [];
    this.#batch = null;
    const read: SimSequence[] = [];
    for (const { sequence, rows } of parts) {
      sequence.prefillLeft -= rows;
      if (sequence.prefillLeft > 0) continue;
      this.sequences.splice(this.sequences.indexOf(sequence), 1);
      read.push(sequence);
    }
    return read;
  }

  /** The batch is put together anew, without it. */
  remove(sequence: SimSequence): void {
    this.sequences.splice(this.sequences.indexOf(sequence), 1);
    this.#batch = null;
  }
}
