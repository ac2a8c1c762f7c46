import { UserError } from '../lib/errors.js';
import { valueText } from './config-errors.js';
import { isTable, readConfigSource, type ConfigSource, type Path, type Table } from './config-source.js';
import { JOBS_MAX } from './scenario-schema.js';

/** Top-level keys that no run config has; `jobs` is how most people misspell one of them. */
const SCENARIO_KEYS = ['name', 'defaults', 'job', 'jobs'];

/** Begins with a letter: an object would put ids like "2" before all others, and the order of jobs counts. */
const ID = /^[A-Za-z][\w-]{0,63}$/;
const ID_MUST = 'a letter and up to 63 more letters, digits, "-" or "_"';

/** A scenario as it was written, jobs by id: `job.a.steps` is a key like any other. */
export interface ScenarioSource {
  readonly source: ConfigSource;
  /** In the order of the file. */
  readonly ids: readonly string[];
}

/**
 * Reads a scenario; null when what was written is a plain run config.
 *
 * @throws UserError as `readConfigSource`, and when jobs have no ids, or the same, or are none.
 */
export function readScenarioSource(file: string | undefined, set: readonly string[]): ScenarioSource | null {
  let ids: readonly string[] = [];
  const source = readConfigSource(file, set, (tables) => {
    if (tables['job'] === undefined) return tables;
    const job = jobsById(file ?? '', tables['job']);
    ids = Object.keys(job);
    return { ...tables, job };
  });
  if (!SCENARIO_KEYS.some((key) => Object.hasOwn(source.tables, key))) return null;
  const { job } = source.tables;
  const stranger = isTable(job) ? Object.keys(job).find((id) => !ids.includes(id)) : undefined;
  if (stranger !== undefined) {
    const known = ids.length === 0 ? 'a run config has none' : `use one of ${ids.join(', ')}`;
    throw new UserError(`${source.origin(['job', stranger])}: there is no job ${stranger}: ${known}`);
  }
  return { source, ids };
}

function jobsById(file: string, jobs: unknown): Table {
  if (!Array.isArray(jobs) || jobs.length === 0 || jobs.length > JOBS_MAX) {
    const what = Array.isArray(jobs) ? `a list of ${jobs.length}` : valueText(jobs);
    throw new UserError(`${file}: job is ${what}, must be 1 to ${JOBS_MAX} [[job]] tables, each with an id`);
  }
  const byId: Record<string, Table> = {};
  /** Ids become names of folders, and not every file system tells upper case from lower. */
  const places = new Map<string, number>();
  for (const [index, job] of jobs.entries()) {
    const key = `job[${index + 1}]`;
    if (!isTable(job)) throw new UserError(`${file}: ${key} is ${valueText(job)}, must be a table of keys`);
    const { id, ...rest } = job;
    if (typeof id !== 'string' || !ID.test(id)) {
      throw new UserError(`${file}: ${key}.id is ${valueText(id)}, must be ${ID_MUST}`);
    }
    const place = places.get(id.toLowerCase());
    if (place !== undefined) {
      throw new UserError(
        `${file}: ${key}.id is ${valueText(id)}, and so is job[${place}].id, upper or lower case: give each job its own`,
      );
    }
    places.set(id.toLowerCase(), index + 1);
    byId[id] = rest;
  }
  return byId;
}

/** One job's keys over the scenario's defaults. Messages about it begin with the file and the job. */
export function jobSource(source: ConfigSource, id: string): ConfigSource {
  const own = memberAt(source.tables, ['job', id]);
  const defaults = source.tables['defaults'];
  const placeOf = (path: Path): Path => {
    const isInherited = memberAt(own, path) === undefined && memberAt(defaults, path) !== undefined;
    return isInherited ? ['defaults', ...path] : ['job', id, ...path];
  };
  const file = source.origin([]);
  return {
    tables: merged(isTable(defaults) ? defaults : {}, isTable(own) ? own : {}),
    origin: (path) => {
      const origin = source.origin(placeOf(path));
      return origin === file ? `${file}: job ${id}` : origin;
    },
    overrideOf: (path) => source.overrideOf(placeOf(path)),
    folder: (path) => source.folder(placeOf(path)),
  };
}

/** Tables are merged key by key, unless they are of another `kind`; anything else of `over` takes the place of what is below. */
function merged(below: Table, over: Table): Table {
  const result: Record<string, unknown> = { ...below };
  for (const [key, value] of Object.entries(over)) {
    const inner = Object.hasOwn(below, key) ? below[key] : undefined;
    const isSameKind = isTable(value) && isTable(inner) && (value['kind'] ?? inner['kind']) === inner['kind'];
    const member = isSameKind ? merged(inner, value) : value;
    Object.defineProperty(result, key, { value: member, enumerable: true, writable: true });
  }
  return result;
}

/** What stands at a path; undefined where nothing does. */
export function memberAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((inner, part) => {
    if (typeof inner !== 'object' || inner === null) return undefined;
    return Object.getOwnPropertyDescriptor(inner, part)?.value;
  }, value);
}
