import { basename, extname, resolve } from 'node:path';
import { stringify } from 'smol-toml';
import { childKey, seedKey } from '../lib/prng.js';
import type { Json } from '../tasks/task.js';
import { camelKeys, snakeKeys, type CamelKeys } from './config-case.js';
import type { RunTables } from './config-schema.js';
import { isTable, type ConfigSource, type Path } from './config-source.js';
import { check, type ConfigInput, resolveConfig, type RunConfig, taskName } from './config.js';
import { isPolicyPath } from './policy-file.js';
import { refuseConflict, refuseLanes, refuseReservations } from './scenario-checks.js';
import { jobSchema, scenarioSchema, type JobTables, type ScenarioTables } from './scenario-schema.js';
import { jobSource, readScenarioSource, type ScenarioSource } from './scenario-source.js';

/** One job of a scenario: what it does, and its place among the others. */
export interface ScenarioJob {
  /** Unique whatever its case, and fit to name a folder. */
  readonly id: string;
  /** What it should get beside the others, in the same unit as theirs. */
  readonly weight: number;
  /** Seconds from the start of the run. */
  readonly arrivesS: number;
  readonly trainerLane: number;
  /** Lanes its engine may be awake on, ascending; the trainer's lane is one of them. */
  readonly lanes: readonly number[];
  /** p99 of the time between two tokens of a sequence should stay below this, in ms; null: nobody waits for them. */
  readonly tokenLatencyMs: number | null;
  /** Checked and complete, with the scenario's lanes, policy and output: the job as a run of its own. */
  readonly config: RunConfig;
  /** For the simulator alone; paths of traces are absolute. */
  readonly sim: CamelKeys<JobTables['sim']>;
}

/** Several jobs on the same lanes under one policy, checked and complete. Paths are absolute. */
export interface Scenario {
  readonly name: string;
  readonly seed: number;
  readonly lanes: RunConfig['lanes'];
  readonly scheduler: {
    /** A name, or the absolute path of a module. */
    readonly policy: string;
    readonly options: Readonly<Record<string, Json>>;
    readonly reserve: RunConfig['scheduler']['reserve'];
  };
  readonly output: RunConfig['output'];
  /** The simulated machine; for the simulator alone. */
  readonly sim: CamelKeys<ScenarioTables['sim']>;
  /** In the order of the file; at least one. */
  readonly jobs: readonly ScenarioJob[];
}

export interface LoadedScenario {
  /** What the file was: a plain run config is a scenario of one job, "main". */
  readonly kind: 'run' | 'scenario';
  readonly scenario: Scenario;
}

/** The id of the job that a plain run config describes. */
export const MAIN_JOB = 'main';

/**
 * The one place where a scenario is checked; later code trusts it. Takes what `resolveConfig` takes and besides it a
 * TOML file with `[[job]]` tables; `--set` reaches a job by its id, as in `job.a.rollout.max_tokens=64`.
 *
 * @throws UserError when the file cannot be read or is not TOML, a key is unknown, a value is out of range, two keys do
 * not go together, an id is missing or there twice, or a job names a lane there is not.
 */
export function loadScenario(input: ConfigInput = {}): LoadedScenario {
  const written = readScenarioSource(input.file, input.set ?? []);
  return written === null
    ? { kind: 'run', scenario: soloScenario(resolveConfig(input), nameOf(input.file)) }
    : { kind: 'scenario', scenario: resolveScenario(written, nameOf(input.file)) };
}

/** The scenario as TOML with every key in it; read again it gives the same scenario. */
export function formatScenario({ jobs, ...scenario }: Scenario): string {
  const tables = { ...snakeKeys(scenario), job: jobs.map(jobTables) };
  return `${stringify(tables).trimEnd()}\n`;
}

/** The seed of a job that names none: the same for this id whatever other jobs there are. */
export function jobSeed(scenarioSeed: number, id: string): number {
  const [high, low] = childKey(seedKey(scenarioSeed), id);
  // 53 bits: whole and exact in a double.
  return high * 2 ** 21 + (low >>> 11);
}

function nameOf(file: string | undefined): string {
  return file === undefined ? MAIN_JOB : basename(file, extname(file));
}

/** A run of one job as a scenario. */
export function soloScenario(config: RunConfig, name = MAIN_JOB): Scenario {
  const { seed, lanes, scheduler, output } = config;
  const job: ScenarioJob = {
    id: MAIN_JOB,
    weight: 1,
    arrivesS: 0,
    trainerLane: 0,
    lanes: allLanes(lanes.count),
    tokenLatencyMs: null,
    config,
    sim: {},
  };
  return { name, seed, lanes, scheduler: { options: {}, ...scheduler }, output, sim: {}, jobs: [job] };
}

function resolveScenario({ source, ids }: ScenarioSource, name: string): Scenario {
  const tables = check(source, scenarioSchema);
  const { policy } = tables.scheduler;
  const scheduler = {
    ...tables.scheduler,
    policy: isPolicyPath(policy) ? resolve(source.folder(['scheduler', 'policy']), policy) : policy,
  };
  const resolved = { ...tables, name: tables.name ?? name, scheduler };
  const jobs = ids.map((id) => resolveJob(source, resolved, id));
  refuseReservations(source, scheduler.reserve, jobs);
  return {
    name: resolved.name,
    seed: tables.seed,
    lanes: camelKeys(tables.lanes),
    scheduler: camelKeys(scheduler),
    output: camelKeys(tables.output),
    sim: camelKeys(withTraces(tables.sim, (path) => source.folder(['sim', ...path]))),
    jobs,
  };
}

function resolveJob(scenarioSource: ConfigSource, scenario: ScenarioTables, id: string): ScenarioJob {
  const source = jobSource(scenarioSource, id);
  const tables = check(source, jobSchema);
  const lanes = [...(tables.lanes ?? allLanes(scenario.lanes.count))].sort((a, b) => a - b);
  const trainerLane = tables.trainer_lane ?? lanes[0] ?? 0;
  refuseLanes(source, scenario.lanes.count, lanes, trainerLane);
  const run = runTables(source, scenario, tables, id);
  refuseConflict({ scenario: scenarioSource, job: source }, run);
  return {
    id,
    weight: tables.weight,
    arrivesS: tables.arrives_s,
    trainerLane,
    lanes,
    tokenLatencyMs: tables.token_latency_ms ?? null,
    config: camelKeys(run),
    sim: camelKeys(withTraces(tables.sim, (path) => source.folder(['sim', ...path]))),
  };
}

/** The job as the run config it would be if it were alone. */
function runTables(source: ConfigSource, scenario: ScenarioTables, job: JobTables, id: string): RunTables {
  const { seed, weight: _w, arrives_s: _a, trainer_lane: _t, lanes: _l, ...others } = job;
  const { token_latency_ms: _m, sim: _s, ...run } = others;
  const { policy, reserve } = scenario.scheduler;
  return {
    seed: seed ?? jobSeed(scenario.seed, id),
    ...run,
    model: { path: resolve(source.folder(['model', 'path']), job.model.path) },
    task: { ...job.task, name: taskName(source, job.task.name) },
    lanes: scenario.lanes,
    scheduler: { policy, reserve },
    output: scenario.output,
  };
}

function jobTables({
  id,
  weight,
  arrivesS,
  trainerLane,
  lanes,
  tokenLatencyMs,
  config,
  sim,
}: ScenarioJob): object {
  const { lanes: _l, scheduler: _s, output: _o, ...run } = config;
  return {
    id,
    weight,
    arrives_s: arrivesS,
    trainer_lane: trainerLane,
    lanes,
    ...(tokenLatencyMs === null ? {} : { token_latency_ms: tokenLatencyMs }),
    ...snakeKeys(run),
    sim: snakeKeys(sim),
  };
}

/** Every trace's path made absolute. */
function withTraces<T>(tables: T, folderOf: (path: Path) => string, path: Path = []): T {
  const absolute = (value: unknown, at: Path): unknown => {
    if (Array.isArray(value) || !isTable(value)) return value;
    const { kind, file } = value;
    if (kind === 'trace' && typeof file === 'string') return { ...value, file: resolve(folderOf(at), file) };
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [key, absolute(inner, [...at, key])]),
    );
  };
  // The same keys and the same kinds of values: only texts under `file` are others.
  return absolute(tables, path) as T;
}

function allLanes(count: number): number[] {
  return Array.from({ length: count }, (_, lane) => lane);
}
