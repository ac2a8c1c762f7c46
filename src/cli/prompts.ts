import { readFile, stat } from 'node:fs/promises';
import { z } from 'zod';
import { UserError } from '../lib/errors.js';
import { cannotRead, shown, systemCode } from '../model/files.js';

const BYTES_MAX = 256 * 2 ** 20;
const line = z.union([z.string(), z.object({ prompt: z.string() }).transform(({ prompt }) => prompt)]);

/**
 * The prompts of a JSON Lines file, one a line: an object with a text `prompt`, or just the text in quotes. Empty
 * lines are left out.
 *
 * @throws UserError that names the file and the line.
 */
export async function readPrompts(file: string): Promise<string[]> {
  const content = await readText(file);
  const prompts: string[] = [];
  for (const [index, text] of content
    .replace(/^\uFEFF/, '')
    .split('\n')
    .entries()) {
    if (text.trim() === '') continue;
    const parsed = line.safeParse(parseJson(text));
    if (!parsed.success) {
      throw new UserError(
        `${file}:${index + 1}: ${shown(text.trim())} is no prompt: write {"prompt": "some text"} or "some text"`,
      );
    }
    prompts.push(parsed.data);
  }
  if (prompts.length === 0)
    throw new UserError(`${file}: has no prompts: write one a line, {"prompt": "some text"}`);
  return prompts;
}

async function readText(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > BYTES_MAX) {
      throw new UserError(`${file}: ${size} bytes is more than the ${BYTES_MAX} allowed: split it`);
    }
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof UserError) throw error;
    if (systemCode(error) === 'ENOENT') throw new UserError(`${file}: not found: name a file of prompts`);
    throw cannotRead(file, error);
  }
}

/** Undefined, which no prompt is, when the text is not JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
