import { open, type FileHandle } from 'node:fs/promises';
import { errorText } from '../lib/errors.js';

export interface JsonlOptions {
  /** Text that may wait in memory for the disk; a record that does not fit is counted and left out. */
  readonly bytesQueuedMax: number;
  /** Told once, in one line, when a record is lost: the disk is full, or too slow for the bound above. */
  readonly onProblem: (text: string) => void;
}

/**
 * Appends records to a file, one JSON object a line, in the order of the calls. `append` never waits and never
 * throws: losing a line of telemetry must not cost a run. What was lost is counted in `recordsLost`.
 */
export class JsonlWriter {
  recordsLost = 0;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #options: JsonlOptions;
  #queue: string[] = [];
  #bytesQueued = 0;
  #writing: Promise<void> | null = null;
  #problemTold = false;
  #failed = false;
  #closed = false;

  private constructor(path: string, file: FileHandle, options: JsonlOptions) {
    this.#path = path;
    this.#file = file;
    this.#options = options;
  }

  /** Opens for appending. Throws what the file system throws. */
  static async open(path: string, options: JsonlOptions): Promise<JsonlWriter> {
    return new JsonlWriter(path, await open(path, 'a'), options);
  }

  /** Queues one record as it is now; later changes to the object do not show. */
  append(record: object): void {
    const line = `${JSON.stringify(record)}\n`;
    const bytes = Buffer.byteLength(line);
    if (this.#closed || this.#failed) return this.#lose(1, 'the file is closed');
    if (this.#bytesQueued + bytes > this.#options.bytesQueuedMax)
      return this.#lose(1, 'the disk is too slow');
    this.#queue.push(line);
    this.#bytesQueued += bytes;
    this.#writing ??= this.#drain();
  }

  /** Writes what is queued and closes the file. Never throws; a second call does nothing more. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#writing;
    await this.#file.close().catch((error: unknown) => this.#lose(0, errorText(error)));
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const lines = this.#queue;
      const bytes = this.#bytesQueued;
      this.#queue = [];
      try {
        await this.#file.appendFile(lines.join(''));
        this.#bytesQueued -= bytes;
      } catch (error) {
        this.#fail(lines.length, errorText(error));
      }
    }
    this.#writing = null;
  }

  #fail(recordsInHand: number, why: string): void {
    this.#failed = true;
    this.#lose(recordsInHand + this.#queue.length, why);
    this.#queue = [];
    this.#bytesQueued = 0;
  }

  #lose(records: number, why: string): void {
    this.recordsLost += records;
    if (this.#problemTold) return;
    this.#problemTold = true;
    this.#options.onProblem(
      `${this.#path}: records are being lost: ${why}; free disk space or choose another --out`,
    );
  }
}
