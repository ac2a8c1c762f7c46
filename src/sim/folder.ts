import { mkdir, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errorText, UserError } from '../lib/errors.js';
import { writeAtomically } from '../model/files.js';

/** The folder of one simulation; its files appear whole or not at all. */
export class SimFolder {
  #isEmpty = true;

  private constructor(
    readonly path: string,
    private readonly isNew: boolean,
  ) {}

  /** @throws UserError when it holds something, or cannot be made; before anything is simulated. */
  static async create(path: string): Promise<SimFolder> {
    try {
      const made = await mkdir(path, { recursive: true });
      if ((await readdir(path)).length === 0) return new SimFolder(path, made !== undefined);
    } catch (error) {
      throw new UserError(`${path}: cannot be made (${errorText(error)}): name another folder with --out`);
    }
    throw new UserError(`${path}: not empty: name a new folder with --out`);
  }

  /** @throws UserError when the file system refuses. */
  async write(name: string, chunks: Iterable<string>): Promise<void> {
    await writeAtomically(join(this.path, name), async (handle) => {
      for (const chunk of chunks) await handle.appendFile(chunk);
    });
    this.#isEmpty = false;
  }

  /** Leaves no empty folder behind. Never throws. */
  async close(): Promise<void> {
    if (this.isNew && this.#isEmpty) await rmdir(this.path).catch(() => undefined);
  }
}
