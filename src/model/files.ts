import { randomBytes } from 'node:crypto';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { oneLine, UserError } from '../lib/errors.js';

/** JSON files are read whole; the largest tokenizers and shard indexes take a few tens of megabytes. */
const JSON_BYTES_MAX = 256 * 2 ** 20;
const SHOWN_CHARACTERS_MAX = 80;

/** The system's short code for a failed file operation, such as `ENOENT`. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** A value from a user's file, quoted and short enough to stand in a message. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length <= SHOWN_CHARACTERS_MAX ? text : `${text.slice(0, SHOWN_CHARACTERS_MAX)}…`;
}

/** The `UserError` for a file that could not be read. */
export function cannotRead(file: string, error: unknown): UserError {
  return new UserError(
    `${file}: cannot be read (${systemCode(error) ?? oneLine(error)}): check its permissions`,
  );
}

/**
 * Parses a JSON file; undefined when there is none.
 *
 * @throws UserError when the file cannot be read, is too large or is not JSON.
 */
export async function readJsonIfPresent(file: string): Promise<unknown> {
  let text: string;
  try {
    const handle = await open(file);
    try {
      const { size } = await handle.stat();
      if (size > JSON_BYTES_MAX) {
        throw new UserError(
          `${file}: ${size} bytes is more than the ${JSON_BYTES_MAX} allowed: is it the right file?`,
        );
      }
      text = await handle.readFile('utf8');
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    if (systemCode(error) === 'ENOENT') return undefined;
    throw cannotRead(file, error);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(`${file}: not valid JSON (${oneLine(error)}): mend it or download it again`);
  }
}

/** As `readJsonIfPresent`, but a missing file is a `UserError` that ends in `remedy`. */
export async function readJson(file: string, remedy: string): Promise<unknown> {
  const value = await readJsonIfPresent(file);
  if (value === undefined) throw new UserError(`${file}: not found: ${remedy}`);
  return value;
}

/**
 * Writes a file so that others see the old content or the whole new one: into a neighbour first, flushed, then
 * renamed. Nothing is left behind when `write` fails.
 *
 * @throws UserError when the file system refuses.
 */
export async function writeAtomically(
  file: string,
  write: (handle: FileHandle) => Promise<void>,
): Promise<void> {
  const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const handle = await open(temporary, 'wx');
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    const code = systemCode(error);
    if (code === undefined) throw error;
    throw new UserError(`${file}: cannot be written (${code}): choose a writable folder with enough room`);
  }
}
