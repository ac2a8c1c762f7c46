/**
 * A mistake the user can mend. It carries one line that names the thing, its value and the remedy; the command
 * line prints that line and exits with code 2. Anything else that is thrown is a bug in Offbeat.
 */
export class UserError extends Error {
  override readonly name = 'UserError';
}

/** The one line to show for any thrown value. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The text of any thrown value on one line: parsers like to quote the input, line breaks and all. */
export function oneLine(error: unknown, charactersMax = Infinity): string {
  return errorText(error).replace(/\s+/g, ' ').trim().slice(0, charactersMax);
}

/** Any thrown value as an Error. */
export function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(errorText(error));
}
