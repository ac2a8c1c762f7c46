import { mkdir, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { errorText, UserError } from '../../lib/errors.js';
import { writeAtomically } from '../../model/files.js';

/** The folder of one measurement: `result.json` and `report.html`, each whole or not at all. */
export class OutFolder {
  #isEmpty = true;

  private constructor(
    readonly path: string,
    private readonly isNew: boolean,
  ) {}

  /** @throws UserError when it holds something, or cannot be made; before anything is measured. */
  static async create(path: string): Promise<OutFolder> {
    try {
      const made = await mkdir(path, { recursive: true });
      if ((await readdir(path)).length === 0) return new OutFolder(path, made !== undefined);
    } catch (error) {
      throw new UserError(`${path}: cannot be made (${errorText(error)}): name another folder with --out`);
    }
    throw new UserError(`${path}: not empty: name a new folder with --out`);
  }

  get reportPath(): string {
    return join(this.path, 'report.html');
  }

  /** @throws UserError when the file system refuses. */
  async write(json: string, html: string): Promise<void> {
    await writeText(join(this.path, 'result.json'), json);
    this.#isEmpty = false;
    await writeText(this.reportPath, html);
  }

  /** Leaves no empty folder behind. Never throws. */
  async close(): Promise<void> {
    if (this.isNew && this.#isEmpty) await rmdir(this.path).catch(() => undefined);
  }
}

/** @throws UserError when the file system refuses. */
export async function writeText(file: string, text: string): Promise<void> {
  await writeAtomically(file, (handle) => handle.writeFile(text));
}
