import type { LaneRecords } from './records.js';
import { RunRecords } from './run-records.js';

/** Of one job, where there are several: enough for its quantiles. */
const JOB_RECORDS_MAX = 10_000;

/**
 * The records of a run and, where several jobs share it, those of each: the preemptions that it asked for, and the
 * times in which its own generation starved. Stages, plans and the like name their job and are kept once, in `all`.
 */
export class SharedRecords {
  readonly all: RunRecords;
  readonly #jobs = new Map<string, RunRecords>();

  /** @param jobs ids of all jobs of the run; at least one */
  constructor(startMs: number, jobs: readonly string[]) {
    this.all = new RunRecords({ startMs });
    for (const job of jobs) {
      // Alone, all there is is the job's.
      const own = new RunRecords({ startMs, slicesMax: 0, recordsMax: JOB_RECORDS_MAX });
      this.#jobs.set(job, jobs.length === 1 ? this.all : own);
    }
  }

  of(job: string): RunRecords {
    const records = this.#jobs.get(job);
    if (records === undefined) throw new Error(`assertion failed: no records of job ${job}`);
    return records;
  }

  /** Takes in one lane's message. */
  add(records: LaneRecords): void {
    this.all.add(records);
    for (const [job, own] of this.#jobs) if (own !== this.all) own.add(part(records, job));
  }
}

function part(records: LaneRecords, job: string): LaneRecords {
  return {
    slices: [],
    preemptions: records.preemptions.filter(({ asker }) => asker === job),
    undisturbed: [],
    starved: records.starved.filter((starved) => starved.job === job),
    // Whose hint it was is not known.
    hintIdleMs: 0,
    versions: records.versions.filter((version) => version.job === job),
    slicesDropped: 0,
  };
}
