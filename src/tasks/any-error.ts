import { errorText, oneLine } from '../lib/errors.js';

/** Anything can be thrown: what cannot be turned into text, or an error whose message is none. */
export function textOf(error: unknown): string {
  try {
    return String(errorText(error));
  } catch {
    return 'something that cannot be shown as text';
  }
}

const CHARACTERS_MAX = 300;

/** A message of somebody else's code as one line of bounded length. */
export function shortLine(message: string): string {
  return oneLine(message, CHARACTERS_MAX);
}
