import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { JsonlWriter } from './jsonl.js';
import type { MetricsRecord } from './metrics.js';
import { assertMetricNames } from './metrics.js';
import type { Summary } from './summary.js';
import { assertTokensAddUp } from './summary.js';
import { writeWhole } from './whole-files.js';

/** Text waiting for the disk, for each of the two JSONL files. */
const BYTES_QUEUED_MAX = 16 * 2 ** 20;

/** What one job leaves behind: `config.toml`, `metrics.jsonl`, `rollouts.jsonl` and `summary.json`, and its weights. */
export class JobFolder {
  private constructor(
    readonly path: string,
    private readonly metrics: JsonlWriter,
    private readonly rollouts: JsonlWriter,
  ) {}

  /**
   * Opens the files that grow; the folder is made when it is missing. Throws what the file system throws, and leaves no
   * file behind then.
   *
   * @param onProblem told at most once a file, in one line, when records are lost during the run
   */
  static async open(path: string, onProblem: (text: string) => void): Promise<JobFolder> {
    const options = { bytesQueuedMax: BYTES_QUEUED_MAX, onProblem };
    await mkdir(path, { recursive: true });
    const metrics = await JsonlWriter.open(join(path, 'metrics.jsonl'), options);
    try {
      return new JobFolder(path, metrics, await JsonlWriter.open(join(path, 'rollouts.jsonl'), options));
    } catch (error) {
      await metrics.close();
      await rm(join(path, 'metrics.jsonl'), { force: true }).catch(() => undefined);
      throw error;
    }
  }

  /** Lines of either JSONL file that could not be written. */
  get recordsLost(): number {
    return this.metrics.recordsLost + this.rollouts.recordsLost;
  }

  appendMetrics(record: MetricsRecord): void {
    assertMetricNames(record);
    this.metrics.append(record);
  }

  appendRollout(rollout: object): void {
    this.rollouts.append(rollout);
  }

  /** The configuration as resolved, so that it can be run again. */
  writeConfig(toml: string): Promise<void> {
    return writeWhole(this.path, 'config.toml', [toml]);
  }

  writeSummary(summary: Summary): Promise<void> {
    assertTokensAddUp(summary.tokens);
    return writeWhole(this.path, 'summary.json', [`${JSON.stringify(summary, null, 2)}\n`]);
  }

  /** Writes what is queued and closes the JSONL files. Never throws. */
  async close(): Promise<void> {
    await Promise.all([this.metrics.close(), this.rollouts.close()]);
  }
}
