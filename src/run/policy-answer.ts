import { z } from 'zod';
import type { Plan } from '../scheduler/plan.js';
import { keyText } from './config-errors.js';
import { plainValue } from './config-fields.js';

/** NaN and infinities are the checks' to refuse, under the invariant they break. */
const number = z.custom<number>((value) => typeof value === 'number', 'a number');
const text = z.string('a text');
const lanes = z.array(number, 'a list of lane numbers');

const list = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.array(z.object({ ...shape, reason: text }, 'an order with its reason'), 'a list of orders');

const engine = { job: text, lane: number };

const answerSchema = z.object(
  {
    wake: list({ ...engine, slots: number, version: number }),
    sleep: list({ ...engine, moveTo: z.union([z.literal('queue'), number], '"queue" or a lane number') }),
    resize: list({ ...engine, slots: number }),
    grant: list({ request: number }),
    reservations: list({ request: number, lanes }),
    reviewAtMs: number.optional(),
    memory: plainValue().optional(),
  },
  'a plan, with wake, sleep, resize, grant and reservations',
);

/**
 * The plan that a policy written by anybody answers with: the numbered checks, and whoever records it, may look into
 * it without care. That it is a good one is not said here.
 *
 * @throws Error that says what keeps the answer from being a plan.
 */
export function answerOf(answer: unknown): Plan {
  const parsed = answerSchema.safeParse(answer);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const what = issue === undefined || issue.path.length === 0 ? 'the answer' : keyText(issue.path);
    throw new Error(`${what} must be ${issue?.message ?? 'a plan'}`);
  }
  const { reviewAtMs, memory, ...orders } = parsed.data;
  return {
    ...orders,
    ...(reviewAtMs === undefined ? {} : { reviewAtMs }),
    ...(memory === undefined ? {} : { memory }),
  };
}
