import { mkdir, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { errorText, UserError } from '../lib/errors.js';
import { JsonlWriter } from './jsonl.js';
import type { MetricsRecord } from './metrics.js';
import { assertMetricNames } from './metrics.js';
import type { Summary } from './summary.js';
import { assertTokensAddUp } from './summary.js';

/** Text waiting for the disk, for each of the two JSONL files. */
const BYTES_QUEUED_MAX = 16 * 2 ** 20;

/**
 * The folder of one run: `config.toml`, `metrics.jsonl`, `rollouts.jsonl`, `trace.json`, `summary.json`,
 * `report.html` and `offbeat.log`. The JSONL files grow while the run goes on; the others appear whole or not at all.
 */
export class RunFolder {
  readonly path: string;
  readonly #metrics: JsonlWriter;
  readonly #rollouts: JsonlWriter;

  private constructor(path: string, metrics: JsonlWriter, rollouts: JsonlWriter) {
    this.path = path;
    this.#metrics = metrics;
    this.#rollouts = rollouts;
  }

  /**
   * Makes the folder (and those above it) and opens its files, before anything else of a run is started. A folder
   * that holds something is never touched. Throws a UserError, leaving nothing behind.
   * @param onProblem told at most once a file, in one line, when records are lost during the run.
   */
  static async create(path: string, onProblem: (text: string) => void): Promise<RunFolder> {
    const folder = resolve(path);
    const made: string[] = [];
    const options = { bytesQueuedMax: BYTES_QUEUED_MAX, onProblem };
    let metrics: JsonlWriter | undefined;
    try {
      await makeFolder(folder, made);
      if ((await readdir(folder)).length > 0) {
        throw new UserError(`run folder ${path} is not empty; name a new one with --out`);
      }
      metrics = await JsonlWriter.open(join(folder, 'metrics.jsonl'), options);
      return new RunFolder(folder, metrics, await JsonlWriter.open(join(folder, 'rollouts.jsonl'), options));
    } catch (error) {
      await metrics?.close();
      if (metrics) await rm(join(folder, 'metrics.jsonl'), { force: true }).catch(() => undefined);
      for (const inner of made.reverse()) await rmdir(inner).catch(() => undefined);
      if (error instanceof UserError) throw error;
      throw new UserError(
        `run folder ${path} cannot be written (${errorText(error)}); name another with --out`,
      );
    }
  }

  /** Where the log goes; the logger opens it. */
  get logPath(): string {
    return join(this.path, 'offbeat.log');
  }

  /** Lines of either JSONL file that could not be written. */
  get recordsLost(): number {
    return this.#metrics.recordsLost + this.#rollouts.recordsLost;
  }

  appendMetrics(record: MetricsRecord): void {
    assertMetricNames(record);
    this.#metrics.append(record);
  }

  appendRollout(rollout: object): void {
    this.#rollouts.append(rollout);
  }

  /** The configuration as resolved, so that it can be run again. */
  writeConfig(toml: string): Promise<void> {
    return this.#write('config.toml', [toml]);
  }

  writeSummary(summary: Summary): Promise<void> {
    assertTokensAddUp(summary.tokens);
    return this.#write('summary.json', [`${JSON.stringify(summary, null, 2)}\n`]);
  }

  writeReport(html: string): Promise<void> {
    return this.#write('report.html', [html]);
  }

  /** @param chunks the text of the trace in pieces (`Trace.chunks`), since a whole one can be large. */
  writeTrace(chunks: Iterable<string>): Promise<void> {
    return this.#write('trace.json', chunks);
  }

  /** Writes what is queued and closes the JSONL files. Never throws. */
  async close(): Promise<void> {
    await Promise.all([this.#metrics.close(), this.#rollouts.close()]);
  }

  async #write(name: string, chunks: Iterable<string>): Promise<void> {
    const path = join(this.path, name);
    try {
      await writeAtomically(path, chunks);
    } catch (error) {
      throw new UserError(
        `cannot write ${path}: ${errorText(error)}; free disk space or choose another --out`,
      );
    }
  }
}

/** Writes beside the target, then renames over it: a reader sees the old file or the whole new one. */
async function writeAtomically(path: string, chunks: Iterable<string>): Promise<void> {
  const partial = `${path}.partial`;
  try {
    const file = await open(partial, 'w');
    try {
      for (const chunk of chunks) await file.appendFile(chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw error;
  }
}

/**
 * Makes a folder and those missing above it, and adds them to `made`, outermost first. One by one, because Node's own
 * recursive `mkdir` never settles where the file system refuses with "no such file" (Linux: below /proc).
 */
async function makeFolder(folder: string, made: string[]): Promise<void> {
  const missing: string[] = [];
  for (let path = folder; !(await exists(path)); path = dirname(path)) missing.unshift(path);
  for (const path of missing) {
    try {
      await mkdir(path);
      made.push(path);
    } catch (error) {
      // Another run may have just made a folder that both lie in; the run's own folder is never shared.
      if (path === folder || !(await exists(path))) throw error;
    }
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
}
