import { readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errorText, UserError } from '../lib/errors.js';
import { makeFolder, writeWhole } from './whole-files.js';

/** The folder of one measurement or simulation: its files appear in it whole or not at all. */
export class OutFolder {
  private constructor(
    readonly path: string,
    /** Folders that were missing, outermost first. */
    private readonly made: readonly string[],
  ) {}

  /** @throws UserError when it holds something, or cannot be made; before anything is measured. */
  static async create(path: string): Promise<OutFolder> {
    const made: string[] = [];
    try {
      await makeFolder(path, made);
      if ((await readdir(path)).length === 0) return new OutFolder(path, made);
    } catch (error) {
      await removeEmpty(made);
      throw new UserError(`${path}: cannot be made (${errorText(error)}): name another folder with --out`);
    }
    throw new UserError(`${path}: not empty: name a new folder with --out`);
  }

  get reportPath(): string {
    return join(this.path, 'report.html');
  }

  /**
   * @param chunks its text in pieces
   * @throws UserError when the file system refuses.
   */
  write(name: string, chunks: Iterable<string>): Promise<void> {
    return writeWhole(this.path, name, chunks);
  }

  /** Leaves no empty folder behind that was not there before. Never throws. */
  close(): Promise<void> {
    return removeEmpty(this.made);
  }
}

/** Of folders in each other, given outermost first, those that hold nothing. */
async function removeEmpty(folders: readonly string[]): Promise<void> {
  for (const folder of folders.toReversed()) await rmdir(folder).catch(() => undefined);
}
