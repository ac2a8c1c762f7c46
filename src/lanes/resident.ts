import type { Program } from '../gpu/ops.js';
import type { ResidentKind } from '../telemetry/records.js';

/** What occupies a lane: a job's engine, its trainer or its critic. Its programs are run one after the other. */
export interface Resident {
  readonly job: string;
  readonly kind: ResidentKind;
  /** Lower runs first; the numbers are those of the scheduler's stages. */
  readonly priority: number;
  /** Among residents of the same priority, each has the device in proportion to its weight; above 0. */
  readonly weight: number;
  /** True when it would run if it had the device; asking begins nothing, unlike `next`. */
  readonly hasWork: boolean;
  /** The next piece of work, or null when there is none now. `Executor.wake` says that there may be again. */
  next(): Program | null;
  /** The program it gave last is submitted to its end, all of it predicted to take `us` of the device. */
  readonly ended?: (us: number) => void;
}

/** As whom the cost model knows a resident: models differ, and so does how far predictions of their slices are off. */
export function whoOf({ job, kind }: Resident): string {
  return `${kind} of ${job}`;
}
