import { access, constants, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorText, UserError } from '../lib/errors.js';
import { writeAtomically } from '../model/files.js';

/**
 * That the file of `--json` can be written: told before half an hour of measuring rather than after it.
 *
 * @throws UserError when it cannot.
 */
export async function checkWritable(file: string): Promise<void> {
  try {
    await access(dirname(file), constants.W_OK);
    if (
      await stat(file).then(
        (found) => found.isDirectory(),
        () => false,
      )
    )
      throw new Error('a folder');
  } catch (error) {
    throw new UserError(`--json ${file}: cannot be written (${errorText(error)}): name another file`);
  }
}

/**
 * Writes the file of `--json`, whole or not at all.
 *
 * @throws UserError when the file system refuses.
 */
export async function writeText(file: string, text: string): Promise<void> {
  await writeAtomically(file, (handle) => handle.writeFile(text));
}
