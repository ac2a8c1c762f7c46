import { kvBlockBytes } from '../kernels/kv-cache.js';
import { UserError } from '../lib/errors.js';
import { layoutBytes } from '../model/layout.js';
import type { Prepared } from './prepare.js';
import type { Scenario, ScenarioJob } from './scenario.js';

const MIB = 2 ** 20;

/** Device memory that a job's residents take by plan, in bytes: what grows with its model, not each small buffer. */
export interface ResidentBytes {
  readonly engine: number;
  readonly trainer: number;
}

export function residentBytes({ model, layout, engine }: Prepared): ResidentBytes {
  const weights = layoutBytes(layout);
  const kv = 2 * model.layers * engine.kvBlocks * kvBlockBytes(model);
  // An engine's new weights arrive beside those in use; a trainer has a gradient and two moments of each.
  return { engine: 2 * weights + kv, trainer: 4 * weights };
}

/** Bytes that a lane may be filled with by plan. */
export function laneCapacityBytes({ memoryMib }: Scenario['lanes']): number {
  return memoryMib === 0 ? Infinity : memoryMib * MIB;
}

/**
 * Trainers stay for the whole of a job's life: beside all of a lane there must be room for each engine, or a job waits
 * for ever.
 *
 * @throws UserError that names the lane and what it would take.
 */
export function checkLaneMemory(
  lanes: Scenario['lanes'],
  jobs: readonly { readonly job: ScenarioJob; readonly prepared: Prepared }[],
): void {
  const capacity = laneCapacityBytes(lanes);
  for (let lane = 0; lane < lanes.count; lane++) {
    const trainers = jobs.filter(({ job }) => job.trainerLane === lane);
    const engines = jobs.filter(({ job }) => job.lanes.includes(lane));
    const held = trainers.reduce((sum, { prepared }) => sum + residentBytes(prepared).trainer, 0);
    const largest = Math.max(0, ...engines.map(({ prepared }) => residentBytes(prepared).engine));
    if (held + largest <= capacity) continue;
    const needed = Math.ceil((held + largest) / MIB);
    throw new UserError(
      `lanes.memory_mib is ${lanes.memoryMib}, the trainers on lane ${lane} and the largest engine there take ${needed}: raise it, or spread the jobs over more lanes`,
    );
  }
}
