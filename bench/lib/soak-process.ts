import { readdir, readlink } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { nowMs } from '#src/lib/clock.js';

const ENDING_MS_MAX = 10_000;
/** An end that is waited for is looked at this often. */
const LOOK_MS = 10;

/** Counts the worker threads that this process starts, and those that end. */
export class Threads {
  #started = 0;
  #ended = 0;
  readonly #note = (thread: Worker): void => {
    this.#started++;
    thread.once('exit', () => this.#ended++);
  };

  constructor() {
    process.on('worker', this.#note);
  }

  get started(): number {
    return this.#started;
  }

  get live(): number {
    return this.#started - this.#ended;
  }

  /** How many there still are once all have had time to end. */
  async left(): Promise<number> {
    await settled(() => Promise.resolve(this.live === 0));
    return this.live;
  }

  close(): void {
    process.off('worker', this.#note);
  }
}

/** What the process holds between two runs, with no garbage in it. Null where the system does not tell. */
export interface ProcessSample {
  readonly rssBytes: number;
  /** JavaScript heap in use, and the memory outside of it that it keeps. */
  readonly jsBytes: number;
  /** Of the operating system, those of device drivers included. */
  readonly osThreads: number | null;
  readonly openFiles: number | null;
}

/** Takes the garbage out first, where the process was started with `--expose-gc`. */
export async function sampleProcess(): Promise<ProcessSample> {
  for (let round = 0; round < 2; round++) {
    globalThis.gc?.();
    // What finalizers let go is garbage of the next round.
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  return {
    rssBytes: rss,
    jsBytes: heapUsed + external,
    osThreads: (await entriesOf('/proc/self/task'))?.length ?? null,
    openFiles: (await entriesOf('/proc/self/fd'))?.length ?? null,
  };
}

/** Files below the folder that are open once all had time to be closed; none where the system does not tell. */
export async function filesLeftOpen(folder: string): Promise<string[]> {
  await settled(async () => (await openFilesIn(folder)).length === 0);
  return openFilesIn(folder);
}

/** Waits a while for it to be so. */
async function settled(isSo: () => Promise<boolean>): Promise<void> {
  const deadlineMs = nowMs() + ENDING_MS_MAX;
  while (!(await isSo()) && nowMs() < deadlineMs) await pause(LOOK_MS);
}

async function openFilesIn(folder: string): Promise<string[]> {
  const handles = (await entriesOf('/proc/self/fd')) ?? [];
  // The one that listed them is gone by now.
  const paths = await Promise.all(handles.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
  return paths.filter((path) => path.startsWith(folder));
}

function entriesOf(folder: string): Promise<string[] | null> {
  return readdir(folder).catch(() => null);
}
