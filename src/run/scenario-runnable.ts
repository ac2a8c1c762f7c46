import { UserError } from '../lib/errors.js';
import type { Scenario, ScenarioJob } from './scenario.js';

/**
 * The only place that knows what `runJob` cannot do yet: more than one job, a job that is anywhere but on all lanes
 * with its trainer on lane 0. Whoever teaches it to deletes this file.
 *
 * @param name what the user called the scenario
 * @returns the only job
 * @throws UserError when it would have to run anything else.
 */
export function onlyRunnableJob({ jobs, lanes }: Scenario, name: string): ScenarioJob {
  const [job] = jobs;
  const refuse = (what: string, remedy: string): never => {
    throw new UserError(`${name}: ${what}, which offbeat run cannot do yet: ${remedy}`);
  };
  if (job === undefined || jobs.length > 1) {
    return refuse(`has ${jobs.length} jobs`, 'name a scenario with one [[job]]');
  }
  if (job.trainerLane !== 0 || job.lanes.length < lanes.count) {
    return refuse(`keeps job ${job.id} off some lanes`, 'leave out trainer_lane and lanes');
  }
  if (job.arrivesS > 0) return refuse(`lets job ${job.id} arrive late`, 'leave out arrives_s');
  return job;
}
