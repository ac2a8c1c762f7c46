import { fork } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Lines of stderr that were shown once. */
const LINES_KNOWN_MAX = 1000;

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last that was sent by `process.send`. */
  readonly lastMessage: unknown;
}

/**
 * Runs the module in a process of its own, whose end by a signal can be told of. There the garbage collector can be
 * called, and glibc has one arena for all threads: with one for every few threads, as it comes, what ended threads let go
 * of stays in pieces for a hundred runs, and hides what is lost. Other systems do not know the variable.
 *
 * Its stderr is shown, but no line twice: the GPU library has the same two warnings for every device it opens.
 */
export async function inOwnProcess(modulePath: string, args: readonly string[]): Promise<Ended> {
  const child = fork(modulePath, args, {
    execArgv: ['--expose-gc'],
    env: { ...process.env, MALLOC_ARENA_MAX: '1' },
    stdio: ['inherit', 'inherit', 'pipe', 'ipc'],
  });
  let lastMessage: unknown;
  child.on('message', (message) => {
    lastMessage = message;
  });
  if (child.stderr !== null) {
    const known = new Set<string>();
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (known.has(line)) return;
      if (known.size < LINES_KNOWN_MAX) known.add(line);
      process.stderr.write(`${line}\n`);
    });
  }
  // A terminal sends Ctrl-C to both; who has the runs decides. Whoever ends this one alone means both.
  const stay = (): void => undefined;
  const pass = (): void => void child.kill('SIGTERM');
  process.on('SIGINT', stay);
  process.on('SIGTERM', pass);
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve({ code, signal, lastMessage }));
    });
  } finally {
    process.off('SIGINT', stay);
    process.off('SIGTERM', pass);
  }
}
