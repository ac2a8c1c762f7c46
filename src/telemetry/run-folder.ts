import { readdir, rm, rmdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { errorText, UserError } from '../lib/errors.js';
import { JobFolder } from './job-folder.js';
import { makeFolder, writeWhole } from './whole-files.js';

/**
 * The folder of one run: `config.toml`, `trace.json`, `summary.json`, `report.html` and `offbeat.log`, and the files of
 * its job, or of each of its jobs in `jobs/ID`. JSONL files grow while the run goes on; the others appear whole or not
 * at all.
 */
export class RunFolder {
  private constructor(
    readonly path: string,
    private readonly jobs: ReadonlyMap<string, JobFolder>,
  ) {}

  /**
   * Makes the folder (and those above it) and opens its files, before anything else of a run is started. A folder
   * that holds something is never touched. Throws a UserError, leaving nothing behind.
   *
   * @param jobs ids of the jobs; the files of an only one lie in the folder itself
   * @param onProblem told at most once a file, in one line, when records are lost during the run.
   */
  static async create(
    path: string,
    jobs: readonly string[],
    onProblem: (text: string) => void,
  ): Promise<RunFolder> {
    const folder = resolve(path);
    const made: string[] = [];
    const opened = new Map<string, JobFolder>();
    let isOurs = false;
    try {
      await makeFolder(folder, made);
      if ((await readdir(folder)).length > 0) {
        throw new UserError(`run folder ${path} is not empty; name a new one with --out`);
      }
      isOurs = true;
      for (const job of jobs) {
        const own = jobs.length === 1 ? folder : join(folder, 'jobs', job);
        opened.set(job, await JobFolder.open(own, onProblem));
      }
      return new RunFolder(folder, opened);
    } catch (error) {
      for (const job of opened.values()) await job.close();
      // What was in it before is not touched.
      if (isOurs) await rm(join(folder, 'jobs'), { recursive: true, force: true }).catch(() => undefined);
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

  job(id: string): JobFolder {
    const folder = this.jobs.get(id);
    if (folder === undefined) throw new Error(`assertion failed: no folder of job ${id}`);
    return folder;
  }

  /** The configuration as resolved, so that it can be run again. */
  writeConfig(toml: string): Promise<void> {
    return writeWhole(this.path, 'config.toml', [toml]);
  }

  /** @param summary plain data: of all jobs; that of an only job is written by its own folder */
  writeSummary(summary: object): Promise<void> {
    return writeWhole(this.path, 'summary.json', [`${JSON.stringify(summary, null, 2)}\n`]);
  }

  writeReport(html: string): Promise<void> {
    return writeWhole(this.path, 'report.html', [html]);
  }

  /** @param chunks the text of the trace in pieces (`Trace.chunks`), since a whole one can be large. */
  writeTrace(chunks: Iterable<string>): Promise<void> {
    return writeWhole(this.path, 'trace.json', chunks);
  }

  /** Writes what is queued and closes the JSONL files. Never throws. */
  async close(): Promise<void> {
    await Promise.all([...this.jobs.values()].map((job) => job.close()));
  }
}
