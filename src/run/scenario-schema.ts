import { z } from 'zod';
import { POLICIES } from '../scheduler/policies/index.js';
import { simJobSchema, simSchema } from '../sim/tables.js';
import { numberAbove, numberFromTo, plainValue, section, seed, text, wholeNumber } from './config-fields.js';
import { LANES_MAX, runSchema } from './config-schema.js';
import { isTable } from './config-source.js';
import { isPolicyPath } from './policy-file.js';

export const JOBS_MAX = 256;
const WEIGHT_MAX = 1e6;
const DAY_S = 86_400;
const YEAR_S = 365 * DAY_S;
const NAME_CHARACTERS_MAX = 100;

const laneNumber = wholeNumber(0, LANES_MAX - 1);

/** A run config without what is about the machine, and the job's place among the others. Its id stands outside. */
export const jobSchema = runSchema.omit({ lanes: true, scheduler: true, output: true }).extend({
  /** Left out, it comes from the scenario's seed and the job's id. */
  seed: seed.optional(),
  /** What the job should get beside the others, in the same unit as theirs. */
  weight: numberAbove(0, WEIGHT_MAX).default(1),
  /** From the start of the run. */
  arrives_s: numberFromTo(0, YEAR_S).default(0),
  /** Left out, the first of `lanes`. */
  trainer_lane: laneNumber.optional(),
  /** Lanes its engine may be awake on; left out, all. */
  lanes: z
    .array(laneNumber, 'a list of lane numbers')
    .min(1, 'a list of at least one lane number')
    .optional(),
  /** Somebody waits for its tokens: p99 of the time between two of a sequence should stay below this. */
  token_latency_ms: numberAbove(0, DAY_S * 1000).optional(),
  /** For the simulator alone; a live run leaves it. */
  sim: simJobSchema.prefault({}),
});

const policyMust = [
  ...[...POLICIES.keys()].map((name) => `"${name}"`),
  'the path of a module such as "./my-policy.ts"',
].join(' or ');

const scheduler = section({
  ...runSchema.shape.scheduler.unwrap().shape,
  policy: z
    .string(policyMust)
    .refine((name) => POLICIES.has(name) || isPolicyPath(name), policyMust)
    .default('priority'),
  /** Checked by the policy itself. */
  options: z.record(z.string(), plainValue(), 'a table').default({}),
});

const nameMust = `a text of 1 to ${NAME_CHARACTERS_MAX} characters`;

/** A scenario, key by key as its TOML file writes it, with its jobs by their ids. */
export const scenarioSchema = z.strictObject({
  /** Left out, the name of the file. */
  name: text().min(1, nameMust).max(NAME_CHARACTERS_MAX, nameMust).optional(),
  seed: seed.default(1),
  lanes: runSchema.shape.lanes,
  scheduler: scheduler.prefault({}),
  output: runSchema.shape.output,
  /** For the simulator alone; a live run leaves it. */
  sim: simSchema.prefault({}),
  /** Keys of every job that does not say otherwise. */
  defaults: jobSchema.prefault({}),
  /** Each is checked by itself, together with its defaults. */
  job: z.custom<Readonly<Record<string, unknown>>>(
    (value) => isTable(value) && Object.values(value).every(isTable),
    'one [[job]] table or more',
  ),
});

export type ScenarioTables = z.output<typeof scenarioSchema>;
export type JobTables = z.output<typeof jobSchema>;
