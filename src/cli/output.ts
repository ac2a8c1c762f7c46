/**
 * Results go to stdout, everything else to stderr. A reader that goes away (`offbeat generate … | head -1`) is no
 * error: what is written afterwards is dropped, and whoever works for that reader alone can stop.
 */
const gone = new AbortController();

/** Aborted when nobody reads stdout any more. */
export const readerGone: AbortSignal = gone.signal;

/** Call once, before anything is written: an unheard error of a stream would end the process. */
export function watchOutput(): void {
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => gone.abort());
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => undefined);
}

/** Writes a result. */
export function result(text: string): void {
  if (!readerGone.aborted) process.stdout.write(text);
}

/** Tells a person something, in lines of their own. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The one line of an error. */
export function complain(message: string): void {
  note(`offbeat: ${message.replace(/\s*\n\s*/g, ' ').trim()}`);
}
