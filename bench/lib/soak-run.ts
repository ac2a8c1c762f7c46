import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { LaneFault } from '#src/lanes/faults.js';
import { nowMs } from '#src/lib/clock.js';
import { errorText, UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import { resolveConfig } from '#src/run/config.js';
import { runJob, type RunOptions } from '#src/run/runner.js';
import { secondsText } from '#src/telemetry/format.js';
import { differences, problemsOf } from './soak-check.js';
import { Deaths } from './soak-deaths.js';
import { Delays } from './soak-delays.js';
import type { SoakCase } from './soak-draw.js';
import { type FolderContents, readFolder } from './soak-folder.js';
import { Quiet } from './soak-quiet.js';

/** A run of a few small steps that takes longer will never end. */
const RUN_MS_MAX = 180_000;
/** Beside what its summary tells of: reading model and task, and closing. Lanes that hang are given up after 30 s. */
const OUTSIDE_MS_MAX = 20_000;

/** What became of one run. */
export interface SoakOutcome {
  readonly drawn: SoakCase;
  /** The undisturbed run included, where there was one. */
  readonly seconds: number;
  readonly ended: 'done' | 'interrupted' | 'not begun' | 'failed';
  /** Null when it never began or left nothing readable. */
  readonly contents: FolderContents | null;
  readonly struck: readonly LaneFault[];
  readonly delays: { readonly count: number; readonly totalMs: number };
  /** It was held against an undisturbed run. */
  readonly hadTwin: boolean;
  /** Invariants that broke, in words. */
  readonly problems: readonly string[];
}

type Ended = Pick<SoakOutcome, 'ended' | 'contents' | 'problems'>;

/** A run that does not come to its end: nothing in this process can be trusted any more. */
export class RunHangs extends Error {
  override readonly name = 'RunHangs';
}

/**
 * Does one run with everything that is to befall it, and, where what it must come to is known, an undisturbed one: on
 * one lane, caches held, everything at its default. Folders below `root` stay only when something broke.
 *
 * @throws RunHangs when one of the two does not end.
 */
export async function soakRun(drawn: SoakCase, root: string): Promise<SoakOutcome> {
  const startedMs = nowMs();
  const deaths = new Deaths(drawn.deaths);
  const delays = new Delays(new Random(drawn.seed).fork('delays'));
  const [folder, twinFolder] = [join(root, `seed-${drawn.seed}`), join(root, `seed-${drawn.seed}-twin`)];
  const { ended, contents, problems: found } = await disturbed(drawn, folder, deaths, delays);
  const problems = [...found, ...deaths.unplanned];
  const rebuilt = contents?.summary.lanes.rebuilt ?? 0;
  if (rebuilt > deaths.struck.length)
    problems.push(`${rebuilt} lanes rebuilt after ${deaths.struck.length} deaths`);
  let hadTwin = false;
  if (contents !== null && ended === 'done' && drawn.twinOf !== null && problems.length === 0) {
    const twin = await undisturbed(drawn, twinFolder);
    problems.push(...twin.problems.map((text) => `the undisturbed twin: ${text}`));
    if (twin.contents !== null) problems.push(...differences(contents, twin.contents, drawn.twinOf));
    hadTwin = true;
  }
  if (problems.length === 0)
    for (const path of [folder, twinFolder]) await rm(path, { recursive: true, force: true });
  const { count, totalMs } = delays;
  const seconds = (nowMs() - startedMs) / 1000;
  return {
    drawn,
    seconds,
    ended,
    contents,
    struck: deaths.struck,
    delays: { count, totalMs },
    hadTwin,
    problems,
  };
}

async function disturbed(drawn: SoakCase, folder: string, deaths: Deaths, delays: Delays): Promise<Ended> {
  const { job, sharing, interruptAfterMs, hasDelays } = drawn;
  const enough = new AbortController();
  const interrupted = enough.signal;
  const timer = interruptAfterMs === null ? undefined : setTimeout(() => enough.abort(), interruptAfterMs);
  if (hasDelays) delays.start();
  try {
    return await run(drawn, [...job, ...sharing], folder, { interrupted, faults: deaths.faultsOf });
  } finally {
    clearTimeout(timer);
    delays.stop();
  }
}

function undisturbed(drawn: SoakCase, folder: string): Promise<Ended> {
  return run(drawn, drawn.job, folder, { interrupted: new AbortController().signal });
}

/** @throws RunHangs */
async function run(
  { steps, rollouts }: SoakCase,
  set: readonly string[],
  outFolder: string,
  options: Omit<RunOptions, 'outFolder'>,
): Promise<Ended> {
  const { interrupted } = options;
  const startedMs = nowMs();
  const quiet = new Quiet();
  try {
    await quiet.during(() => inTime(runJob(resolveConfig({ set }), { outFolder, ...options })));
    const runMs = nowMs() - startedMs;
    const contents = await readFolder(outFolder);
    const problems = problemsOf(contents, { steps, rollouts, wasInterrupted: interrupted.aborted });
    const outsideMs = runMs - contents.summary.wall_seconds * 1000;
    if (outsideMs > OUTSIDE_MS_MAX)
      problems.push(`it took ${secondsText(outsideMs / 1000)} to begin and to close, beside the run itself`);
    return { ended: contents.summary.steps < steps ? 'interrupted' : 'done', contents, problems };
  } catch (error) {
    if (error instanceof RunHangs) throw error;
    const isEarly = interrupted.aborted && error instanceof UserError && !existsSync(outFolder);
    if (isEarly) return { ended: 'not begun', contents: null, problems: [] };
    const problems = [errorText(error), ...quiet.told.map((line) => `  | ${line}`)];
    return { ended: 'failed', contents: null, problems };
  }
}

async function inTime(work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const hangs = new Promise<never>((_, reject) => {
    const text = `it has not ended after ${RUN_MS_MAX / 1000} s`;
    timer = setTimeout(() => reject(new RunHangs(text)), RUN_MS_MAX);
  });
  try {
    await Promise.race([work, hangs]);
  } finally {
    clearTimeout(timer);
  }
}
