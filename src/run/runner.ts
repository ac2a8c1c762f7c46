import { pino, type Logger } from 'pino';
import { nowMs } from '../lib/clock.js';
import { errorText, toError, UserError } from '../lib/errors.js';
import type { LaneFault } from '../lanes/faults.js';
import type { LaneSettings } from '../lanes/settings.js';
import { policyNamed } from '../scheduler/policies/index.js';
import type { PlanRecord } from '../scheduler/scheduler.js';
import { createProgress, type Progress } from '../telemetry/progress.js';
import { RunFolder } from '../telemetry/run-folder.js';
import { SharedRecords } from '../telemetry/shared-records.js';
import type { Summary } from '../telemetry/summary.js';
import type { NamedPolicy } from './conductor.js';
import { formatConfig, type RunConfig } from './config.js';
import { Fleet } from './fleet.js';
import { Inbox } from './inbox.js';
import { checkLaneMemory } from './lane-memory.js';
import { Interrupted, Lifeline } from './lifeline.js';
import { prepareRun } from './prepare.js';
import { type PreparedJob, Run, type ScenarioOutcome } from './run.js';
import { formatScenario, type Scenario, soloScenario } from './scenario.js';

export interface RunOptions {
  readonly outFolder: string;
  /** Aborted when the user wants the run to end: it ends cleanly, with every file written. */
  readonly interrupted: AbortSignal;
  /** In place of the one that the scenario names, which then is only told of. */
  readonly policy?: NamedPolicy;
  /** What `config.toml` of the run folder holds; the scenario by default. */
  readonly configText?: string;
  /** Where it is told how the run goes; stderr by default. */
  readonly progress?: Progress;
  /** Told of every plan as it is made: all that it takes to decide the same again. */
  readonly onPlan?: (record: PlanRecord) => void;
  /** What is to go wrong in the lane of that number, and how often it was replaced before: for tests. */
  readonly faults?: (lane: number, epoch: number) => readonly LaneFault[];
}

export type { JobOutcome, ScenarioOutcome } from './run.js';

/**
 * Runs one job from its config to its run folder.
 *
 * @throws UserError for whatever the config, model, task, adapter or folder gets wrong, before anything starts.
 */
export async function runJob(config: RunConfig, options: RunOptions): Promise<Summary> {
  const configText = options.configText ?? formatConfig(config);
  const { jobs } = await runScenario(soloScenario(config), { ...options, configText });
  const [job] = jobs;
  if (job === undefined) throw new Interrupted();
  return job.summary;
}

/**
 * Runs all jobs of a scenario on the lanes they share, under one policy. The folder is made last, once models, tasks
 * and adapter have been found good: a run that cannot begin leaves nothing behind.
 *
 * @throws UserError for whatever the scenario, a model, a task, the adapter or the folder gets wrong, before anything
 * starts; and what ended a job, once the others have come to their end.
 */
export async function runScenario(scenario: Scenario, options: RunOptions): Promise<ScenarioOutcome> {
  const { outFolder, interrupted, faults = () => [] } = options;
  const { policy = policyOf(scenario), configText = formatScenario(scenario), onPlan } = options;
  const jobs: PreparedJob[] = [];
  for (const job of scenario.jobs) {
    const { weights, ...prepared } = await prepareRun(job.config);
    jobs.push({ job, prepared, weights });
  }
  checkLaneMemory(scenario.lanes, jobs);
  const { progress = createProgress(process.stderr) } = options;
  const lifeline = new Lifeline();
  const interrupt = (): void => {
    progress.note('interrupted: finishing what holds the device; once more ends at once');
    lifeline.end(new Interrupted());
  };
  interrupted.addEventListener('abort', interrupt, { once: true });
  try {
    progress.phase('opening devices');
    const ids = scenario.jobs.map(({ id }) => id);
    const records = new SharedRecords(nowMs(), ids);
    const inbox = new Inbox(
      (received) => records.add(received),
      (_, error) => lifeline.end(error),
    );
    const fleet = await openFleet(scenario.lanes, jobs, inbox, faults);
    for (const lane of fleet.numbers) records.all.addLane(lane, fleet.adapterOf(lane).description);
    try {
      if (interrupted.aborted)
        throw new UserError('interrupted before the run began: no run folder was made');
      const folder = await RunFolder.create(outFolder, ids, (text) => progress.note(text));
      const shared = {
        scenario,
        policy,
        configText,
        fleet,
        records,
        inbox,
        folder,
        progress,
        lifeline,
        onPlan,
      };
      return await logged(folder, (logger) => new Run({ ...shared, logger }).go(jobs));
    } finally {
      // Whatever still waits, or plans, does so for nobody.
      lifeline.end(new Error('the run is over'));
      await fleet.close();
    }
  } catch (error) {
    await progress.close('failed');
    throw error;
  } finally {
    interrupted.removeEventListener('abort', interrupt);
  }
}

function policyOf({ scheduler: { policy: name, options } }: Scenario): NamedPolicy {
  return { name, plan: policyNamed(name, options) };
}

function openFleet(
  lanes: Scenario['lanes'],
  jobs: readonly PreparedJob[],
  inbox: Inbox,
  faults: NonNullable<RunOptions['faults']>,
): Promise<Fleet> {
  return Fleet.open(
    {
      lanes: lanes.count,
      adapter: lanes.adapter === '' ? null : lanes.adapter,
      settings: settingsOf(lanes),
      needs: (lane) =>
        jobs
          .filter(({ job }) => job.lanes.includes(lane))
          .map(({ prepared: { model, layout, engine, config } }) => {
            return { config: model, layout, engine, trainerRows: config.optimizer.microBatchTokens };
          }),
      rebuildsMax: lanes.rebuildsMax,
      recover: lanes.recover,
      faults,
    },
    inbox,
  );
}

function settingsOf(lanes: Scenario['lanes']): LaneSettings {
  const { sliceBudgetUs, inFlightBudgetUs, kvOnPreempt, kvBlocksWhileTraining, generationFloor } = lanes;
  return {
    budgets: { sliceUs: sliceBudgetUs, inFlightUs: inFlightBudgetUs },
    kvOnPreempt:
      kvOnPreempt === 'pressure'
        ? { kind: kvOnPreempt, blocksMax: kvBlocksWhileTraining }
        : { kind: kvOnPreempt },
    generationFloor,
  };
}

/** Does work that writes into the folder; whatever ends it is in the log, and every file is closed. */
async function logged<T>(folder: RunFolder, work: (logger: Logger) => Promise<T>): Promise<T> {
  const destination = pino.destination({ dest: folder.logPath, sync: true });
  // A full disk costs log lines, not the run.
  destination.on('error', () => undefined);
  const logger = pino({ base: null }, destination);
  try {
    return await work(logger);
  } catch (error) {
    logger.error(errorText(error));
    throw toError(error);
  } finally {
    destination.end();
    await folder.close();
  }
}
