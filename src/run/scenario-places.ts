import { at } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import type { Scenario, ScenarioJob } from './scenario.js';

/** Where one simulated job is: a job of the scenario, or a copy of one. */
export interface Place {
  readonly id: string;
  /** From 0. */
  readonly copy: number;
  readonly trainerLane: number;
  /** Ascending. */
  readonly lanes: readonly number[];
}

const JOBS_MAX = 10_000;

/**
 * As many lanes as the scenario has: every job is where it is live, and its copies train on the lanes after its own, evenly
 * spread. More or fewer: jobs that are on all lanes are on all of these, with their trainers evenly spread over them, and a
 * job that names lanes keeps those.
 *
 * @returns by job of the scenario: its copies.
 * @throws UserError when a job names a lane there is not, or there are too many jobs.
 */
export function placesOf({ jobs, lanes: { count } }: Scenario, laneCount: number): Place[][] {
  const total = jobs.reduce((sum, { sim }) => sum + (sim.copies ?? 1), 0);
  if (total > JOBS_MAX) {
    throw new UserError(`the scenario makes ${total} jobs, must be at most ${JOBS_MAX}: lower sim.copies`);
  }
  let before = 0;
  return jobs.map((job) => {
    const { id, sim, lanes, trainerLane } = job;
    const copies = sim.copies ?? 1;
    const isEverywhere = lanes.length === count && laneCount !== count;
    const own = isEverywhere ? Array.from({ length: laneCount }, (_, lane) => lane) : lanes;
    refuseStrange(job, own, laneCount);
    const places = Array.from({ length: copies }, (_, copy): Place => {
      const home = isEverywhere
        ? Math.floor(((before + copy) * laneCount) / total)
        : (own.indexOf(trainerLane) + Math.floor((copy * own.length) / copies)) % own.length;
      return {
        id: copies === 1 ? id : `${id}-${copy + 1}`,
        copy,
        trainerLane: at(own, home),
        lanes: nearest(own, home, sim.engineLanesMax ?? own.length),
      };
    });
    before += copies;
    return places;
  });
}

function refuseStrange({ id }: ScenarioJob, lanes: readonly number[], laneCount: number): void {
  const strange = lanes.find((lane) => lane >= laneCount);
  if (strange === undefined) return;
  throw new UserError(
    `job ${id} is on lane ${strange} and the simulation has ${laneCount}: raise --lanes, or leave out the job's lanes`,
  );
}

/** So many lanes from `home` on, around the end. */
function nearest(lanes: readonly number[], home: number, count: number): readonly number[] {
  if (count >= lanes.length) return lanes;
  return Array.from({ length: count }, (_, i) => at(lanes, (home + i) % lanes.length)).sort((a, b) => a - b);
}
