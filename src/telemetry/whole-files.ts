import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errorText, UserError } from '../lib/errors.js';

/**
 * Writes a file of a run's folder, whole or not at all.
 *
 * @param chunks its text in pieces
 * @throws UserError when it cannot be written.
 */
export async function writeWhole(folder: string, name: string, chunks: Iterable<string>): Promise<void> {
  const path = join(folder, name);
  try {
    await writeAtomically(path, chunks);
  } catch (error) {
    throw new UserError(`cannot write ${path}: ${errorText(error)}; free disk space or choose another --out`);
  }
}

/** Writes beside the target, then renames over it: a reader sees the old file or the whole new one. */
async function writeAtomically(path: string, chunks: Iterable<string>): Promise<void> {
  const partial = `${path}.partial`;
  try {
    const file = await open(partial, 'w');
    try {
      for (const chunk of chunks) await file.appendFile(chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw error;
  }
}

/**
 * Makes a folder and those missing above it, and adds them to `made`, outermost first. One by one, because Node's own
 * recursive `mkdir` never settles where the file system refuses with "no such file" (Linux: below /proc).
 */
export async function makeFolder(folder: string, made: string[]): Promise<void> {
  const missing: string[] = [];
  for (let path = folder; !(await exists(path)); path = dirname(path)) missing.unshift(path);
  for (const path of missing) {
    try {
      await mkdir(path);
      made.push(path);
    } catch (error) {
      // Another run may have just made a folder that both lie in; the run's own folder is never shared.
      if (path === folder || !(await exists(path))) throw error;
    }
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
}
