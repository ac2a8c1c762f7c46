/**
 * The soak: for ten minutes small real runs on two lanes, one after the other in one process, with everything mixed in
 * that may go wrong: lanes that die in every way and at any moment, a main thread that is late, rewards that throw and
 * hang, users who interrupt; and every way to share a device. Each run must close its token account, produce every
 * rollout once and come to the very bits of an undisturbed one, where those are known; and the process must not grow.
 * What is drawn follows from the seed; delays and interrupts come by the clock.
 *
 *   npm run soak -- [--minutes 10] [--seed 1] [--runs N] [--json FILE]
 *
 * Ctrl-C ends it after the present run. Exit code 1 when something broke.
 */
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { EXIT_INTERRUPTED, EXIT_OK, EXIT_USER } from '#src/cli/exit-codes.js';
import { numberIn } from '#src/cli/flags.js';
import { interruptible } from '#src/cli/interrupt.js';
import { complain } from '#src/cli/output.js';
import { errorText, UserError } from '#src/lib/errors.js';
import { soak } from './lib/soak-loop.js';
import { inOwnProcess } from './lib/soak-supervisor.js';
import { diedText, lineText, resultJson, resultText } from './lib/soak-text.js';

const MINUTES_MAX = 24 * 60;
const SEED_MAX = 2 ** 32;
const RUNS_MAX = 1_000_000;
const EXIT_BROKEN = 1;

interface Wanted {
  readonly seed: number;
  readonly minutes: number;
  readonly runs: number;
  readonly json: string | undefined;
}

/** @throws UserError */
function wanted(): Wanted {
  const { minutes, seed, runs, json } = flags();
  return {
    minutes: numberOf('minutes', minutes, 0, MINUTES_MAX),
    seed: wholeNumberOf('seed', seed, 0, SEED_MAX),
    runs: wholeNumberOf('runs', runs, 1, RUNS_MAX),
    json,
  };
}

function flags() {
  const text = { type: 'string' } as const;
  const options = {
    minutes: { ...text, default: '10' },
    seed: { ...text, default: '1' },
    runs: { ...text, default: String(RUNS_MAX) },
    json: text,
  };
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new UserError(errorText(error));
  }
}

function numberOf(flag: string, text: string, min: number, max: number): number {
  const value = numberIn(text);
  if (typeof value === 'string' || value < min || value > max)
    throw new UserError(`--${flag} is ${text}: give a number from ${min} to ${max}`);
  return value;
}

function wholeNumberOf(flag: string, text: string, min: number, max: number): number {
  const value = numberOf(flag, text, min, max);
  if (!Number.isInteger(value)) throw new UserError(`--${flag} is ${text}: give a whole number`);
  return value;
}

/** In the process that has the runs. */
async function goThrough({ seed, minutes, runs, json }: Wanted): Promise<number> {
  let held = false;
  await interruptible(async (enough) => {
    const result = await soak({
      seed,
      forMs: minutes * 60_000,
      runsMax: runs,
      enough,
      onBegin: (present) => process.send?.(present),
      onEnd: (line) => process.stdout.write(`${lineText(line)}\n`),
    });
    process.stdout.write(`\n${resultText(result, seed)}`);
    if (json !== undefined) await writeFile(json, `${JSON.stringify(resultJson(result, seed), null, 2)}\n`);
    ({ held } = result);
    return EXIT_OK;
  });
  return held ? EXIT_OK : EXIT_BROKEN;
}

async function supervise(): Promise<number> {
  const args = process.argv.slice(2);
  const { code, signal, lastMessage } = await inOwnProcess(fileURLToPath(import.meta.url), args);
  if (signal === 'SIGINT' || signal === 'SIGTERM') return EXIT_INTERRUPTED;
  if (signal === null && code !== null) return code;
  process.stdout.write(diedText(signal, typeof lastMessage === 'number' ? lastMessage : null));
  return EXIT_BROKEN;
}

async function main(): Promise<number> {
  try {
    const asked = wanted();
    // It has someone to tell where it stands when it was started by `supervise`.
    return await (process.send === undefined ? supervise() : goThrough(asked));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    complain(error.message);
    return EXIT_USER;
  }
}

const exitCode = await main();
// A run that hangs, and a GPU library that keeps handles, would hold Node open.
process.stdout.write('', () => process.exit(exitCode));
