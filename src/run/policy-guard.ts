import { z } from 'zod';
import type { Plan, Policy } from '../scheduler/plan.js';
import type { Snapshot } from '../scheduler/state.js';
import { keyText } from './config-errors.js';
import { plainValue } from './config-fields.js';

/**
 * A policy written by anybody, so that whatever it does ends as a plan or as an error, which the scheduler takes for a
 * broken invariant and goes on: what it may not change is frozen, and what it answers is a plan in shape. Whether it
 * is a good plan is for the scheduler's checks.
 */
export function guarded(policy: Policy): Policy {
  return (snapshot) => answerOf(policy(frozen(snapshot)));
}

/** Snapshots share what has not changed, so only what is new since the last one costs anything. */
function frozen(snapshot: Snapshot): Snapshot {
  const { jobs, ...others } = snapshot;
  for (const job of jobs.values()) freeze(job);
  freeze(others);
  // A map cannot be frozen: the policy gets one of its own.
  return Object.freeze({ ...snapshot, jobs: new Map(jobs) });
}

function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const member of Object.values(value)) freeze(member);
}

/** NaN and infinities are the checks' to refuse, under the invariant they break. */
const number = z.custom<number>((value) => typeof value === 'number', 'a number');
const text = z.string('a text');
const lanes = z.array(number, 'a list of lane numbers');

const list = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.array(z.object({ ...shape, reason: text }, 'an order with its reason'), 'a list of orders');

const engine = { job: text, lane: number };

const admission = z.object(
  { kvTokensMax: number, segments: z.array(z.object({ fromTokens: number, sequencesMax: number })) },
  'a rule of admission, or null',
);

const answerSchema = z.object(
  {
    wake: list({ ...engine, slots: number, version: number }),
    sleep: list({ ...engine, moveTo: z.union([z.literal('queue'), number], '"queue" or a lane number') }),
    resize: list({ ...engine, slots: number }),
    grant: list({ request: number }),
    reservations: list({ request: number, lanes }),
    segments: list({
      lane: number,
      segment: z.object({ sliceUs: number, inFlightUs: number }).nullable(),
    }).optional(),
    admission: list({ ...engine, admission: admission.nullable() }).optional(),
    rounds: list({
      job: text,
      rounds: z
        .object({ prompts: number, samples: number, isLongDue: z.boolean('true or false') })
        .nullable(),
    }).optional(),
    reviewAtMs: number.optional(),
    memory: plainValue().optional(),
  },
  'a plan, with wake, sleep, resize, grant and reservations',
);

/**
 * The answer as the plan it is: whoever checks or records it may look into it without care.
 *
 * @throws Error that says what keeps it from being one.
 */
function answerOf(answer: unknown): Plan {
  const parsed = answerSchema.safeParse(answer);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const what = issue === undefined || issue.path.length === 0 ? 'the answer' : keyText(issue.path);
    throw new Error(`${what} must be ${issue?.message ?? 'a plan'}`);
  }
  const { reviewAtMs, memory, segments, admission: admissions, rounds, ...orders } = parsed.data;
  return {
    ...orders,
    ...(segments === undefined ? {} : { segments }),
    ...(admissions === undefined ? {} : { admission: admissions }),
    ...(rounds === undefined ? {} : { rounds }),
    ...(reviewAtMs === undefined ? {} : { reviewAtMs }),
    ...(memory === undefined ? {} : { memory }),
  };
}
