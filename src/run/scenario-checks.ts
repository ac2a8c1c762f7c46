import { UserError } from '../lib/errors.js';
import { runConflict } from './config-checks.js';
import { keyText, valueText } from './config-errors.js';
import type { RunTables } from './config-schema.js';
import type { ConfigSource, Path } from './config-source.js';
import { memberAt } from './scenario-source.js';

/** Tables that a scenario has once, for all its jobs. */
const MACHINE_TABLES: ReadonlySet<PropertyKey> = new Set(['lanes', 'scheduler', 'output']);

/** Where the parts of a job's run config were written. */
interface JobSources {
  /** The tables of the machine. */
  readonly scenario: ConfigSource;
  /** Everything else. */
  readonly job: ConfigSource;
}

/** @throws UserError for two keys of a job's run config that are each in range and cannot be had together. */
export function refuseConflict({ scenario, job }: JobSources, run: RunTables): void {
  const conflict = runConflict(run);
  if (conflict === undefined) return;
  const sourceOf = (path: Path): ConfigSource =>
    path[0] !== undefined && MACHINE_TABLES.has(path[0]) ? scenario : job;
  const { keys, why } = conflict;
  // Whoever typed one of them just now is best told so, even when the other is a default.
  const first = keys.find((path) => sourceOf(path).overrideOf(path) !== undefined) ?? keys[0];
  const both = keys.map((path) => `${keyText(path)} is ${valueText(memberAt(run, path))}`).join(' and ');
  throw new UserError(`${sourceOf(first).origin(first)}: ${both}: ${why}`);
}

/**
 * @param lanes of the job's engine, ascending
 * @throws UserError for a lane there is not, one named twice, and a trainer that its engine could not stay beside.
 */
export function refuseLanes(
  source: ConfigSource,
  count: number,
  lanes: readonly number[],
  trainerLane: number,
): void {
  const there = `lanes.count is ${count} and lanes are numbered from 0`;
  const listed = `lanes is ${valueText(lanes)}`;
  const beyond = lanes.find((lane) => lane >= count);
  if (beyond !== undefined) {
    throw new UserError(
      `${source.origin(['lanes'])}: ${listed} and ${there}: raise lanes.count or leave lane ${beyond} out`,
    );
  }
  const twice = lanes.find((lane, index) => lane === lanes[index - 1]);
  if (twice !== undefined) {
    throw new UserError(`${source.origin(['lanes'])}: ${listed}: name lane ${twice} once`);
  }
  if (!lanes.includes(trainerLane)) {
    throw new UserError(
      `${source.origin(['trainer_lane'])}: trainer_lane is ${trainerLane} and ${listed}: a job's engine is beside its trainer too, name a lane of both`,
    );
  }
}

/** @throws UserError for a reservation by the steps of a run that has several, and for one of a lane that trains. */
export function refuseReservations(
  source: ConfigSource,
  reserve: RunTables['scheduler']['reserve'],
  jobs: readonly { readonly id: string; readonly trainerLane: number }[],
): void {
  const path = ['scheduler', 'reserve'];
  if (reserve.length > 0 && jobs.length > 1) {
    throw new UserError(
      `${source.origin(path)}: scheduler.reserve counts the steps of a job, and there are ${jobs.length} jobs: leave it out`,
    );
  }
  for (const [index, { lane }] of reserve.entries()) {
    const trainer = jobs.find(({ trainerLane }) => trainerLane === lane);
    if (trainer === undefined) continue;
    const key = [...path, index, 'lane'];
    throw new UserError(
      `${source.origin(key)}: ${keyText(key)} is ${lane}, where ${trainer.id} trains: reserve another lane`,
    );
  }
}
