import { UserError } from '../lib/errors.js';
import type { Policy } from '../scheduler/plan.js';
import { calibrate, paceSpread } from './calibrate.js';
import { replayScenario } from './replay-run.js';
import { readRunFiles } from './run-files.js';
import { simulate } from './simulate.js';

interface Times {
  readonly measuredMs: number;
  readonly predictedMs: number;
  /** (predicted − measured) / measured. */
  readonly error: number;
}

/** What a run took and what a simulation of it took: from the first arrival to the end of the last job's last step. */
export interface Comparison extends Times {
  /** Each from its own arrival to the end of its last step, a held-out evaluation after it included. */
  readonly jobs: readonly (Times & { readonly id: string })[];
  /** See `paceSpread`. */
  readonly paceSpread: number;
}

/**
 * Predicts a live run by simulating its own rollouts with a cost model fitted to it, and holds the two against each other.
 *
 * @param own the policy the run ran under, which the cost model is fitted under
 * @param policy the one to simulate
 * @throws UserError when the folder is no finished run.
 */
export async function compareWithRun(
  runFolder: string,
  own: Policy,
  policy: Policy = own,
): Promise<Comparison> {
  const files = readRunFiles(runFolder);
  const calibration = await calibrate(runFolder, own);
  const scenario = replayScenario(files, calibration, runFolder);
  const outcome = await simulate(scenario, policy);
  const ended = new Map(outcome.jobs.map(({ id, finishedMs }) => [id, finishedMs]));
  const jobs = files.jobs.map(({ id, arrivesMs, endMs }, i) => {
    const finishedMs = ended.get(id) ?? null;
    if (finishedMs === null)
      throw new UserError(`the simulation of ${runFolder} did not end: it ${outcome.ended}`);
    const arrivedMs = scenario.jobs[i]?.arrivesMs ?? 0;
    return { id, ...times(endMs - arrivesMs, finishedMs - arrivedMs), finishedMs, endMs, arrivesMs };
  });
  const begunMs = Math.min(...jobs.map(({ arrivesMs }) => arrivesMs));
  const measuredMs = Math.max(...jobs.map(({ endMs }) => endMs)) - begunMs;
  const predictedMs = Math.max(...jobs.map(({ finishedMs }) => finishedMs));
  return {
    ...times(measuredMs, predictedMs),
    paceSpread: paceSpread(files),
    jobs: jobs.map(({ id, measuredMs: live, predictedMs: simulated, error }) => {
      return { id, measuredMs: live, predictedMs: simulated, error };
    }),
  };
}

function times(measuredMs: number, predictedMs: number): Times {
  return { measuredMs, predictedMs, error: (predictedMs - measuredMs) / measuredMs };
}
