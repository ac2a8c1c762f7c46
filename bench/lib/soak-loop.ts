import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nowMs } from '#src/lib/clock.js';
import { SoakAccount, type SoakLine } from './soak-account.js';
import { drawCase } from './soak-draw.js';
import { filesLeftOpen, sampleProcess, Threads } from './soak-process.js';
import { RunHangs, type SoakOutcome, soakRun } from './soak-run.js';

export interface SoakOptions {
  /** Of the first run; the next one's is one more. */
  readonly seed: number;
  /** No run begins after so long. */
  readonly forMs: number;
  readonly runsMax: number;
  /** Aborted when the present run is to be the last. */
  readonly enough: AbortSignal;
  readonly onBegin: (seed: number) => void;
  readonly onEnd: (line: SoakLine, problems: readonly string[]) => void;
}

/** What broke in a run. */
export interface SoakFailure {
  readonly seed: number;
  readonly problems: readonly string[];
  /** Where the folders of the run and of its twin are. */
  readonly folder: string;
}

export interface SoakResult {
  readonly account: SoakAccount;
  readonly seconds: number;
  readonly threadsStarted: number;
  /** The first invariant that broke in a run. */
  readonly failure: SoakFailure | null;
  /** No invariant broke, and nothing grew. */
  readonly held: boolean;
}

/** One run after the other, all in this process, until time is up or an invariant breaks. */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const { enough, forMs, runsMax } = options;
  const startedMs = nowMs();
  const account = new SoakAccount();
  // As the system names it, so that open files can be told by their paths.
  const root = await realpath(await mkdtemp(join(tmpdir(), 'offbeat-soak-')));
  const threads = new Threads();
  let failure: SoakFailure | null = null;
  try {
    for (let index = 0; index < runsMax && failure === null; index++) {
      if (index > 0 && (enough.aborted || nowMs() - startedMs >= forMs)) break;
      failure = await one(options.seed + index, root, { options, account, threads });
    }
  } finally {
    threads.close();
  }
  if (failure === null) await rm(root, { recursive: true, force: true });
  const seconds = (nowMs() - startedMs) / 1000;
  const held = failure === null && account.growing.length === 0;
  return { account, seconds, threadsStarted: threads.started, failure, held };
}

interface Parts {
  readonly options: SoakOptions;
  readonly account: SoakAccount;
  readonly threads: Threads;
}

async function one(seed: number, root: string, parts: Parts): Promise<SoakFailure | null> {
  const { options, account, threads } = parts;
  const drawn = drawCase(seed);
  options.onBegin(seed);
  let outcome: SoakOutcome;
  try {
    outcome = await soakRun(drawn, root);
  } catch (error) {
    if (!(error instanceof RunHangs)) throw error;
    return { seed, problems: [error.message], folder: root };
  }
  const problems = [...outcome.problems];
  const alive = await threads.left();
  if (alive > 0) problems.push(`${alive} of its threads do not end`);
  problems.push(...(await filesLeftOpen(root)).map((path) => `${path} is still open`));
  options.onEnd(account.add(outcome, await sampleProcess()), problems);
  return problems.length === 0 ? null : { seed, problems, folder: root };
}
