import { z } from 'zod';
import { isSameAdmission, type Admission } from '../../engine/admission.js';
import type { AdmissionOrder, Plan, Policy, PolicyDefinition } from '../plan.js';
import type { JobState, Snapshot } from '../state.js';
import { fifo } from './fifo.js';
import { remembered, wholeNumber } from './options.js';
import { admissionFor, type RuleOptions } from './segment-cap-rule.js';

const optionsSchema = z.strictObject({
  /** `segments`, or what it is to be measured against: one cap on all sequences together, or none. */
  rule: z.enum(['segments', 'global', 'none'], 'one of segments, global, none').default('segments'),
  fill: z
    .number('a number above 0 and at most 1')
    .gt(0, 'a number above 0 and at most 1')
    .max(1, 'a number above 0 and at most 1')
    .default(0.9),
  segments_max: wholeNumber(1, 32).default(6),
  /** Before so many rollouts, and a whole step of them, have ended, each takes all the cache it may need. */
  rollouts_min: wholeNumber(1, 4096).default(16),
});

type Options = z.infer<typeof optionsSchema>;

const ruleSchema = z.object({
  rollouts: z.number(),
  admission: z.object({
    kvTokensMax: z.number(),
    segments: z.array(z.object({ fromTokens: z.number(), sequencesMax: z.number() })).readonly(),
  }),
});

/** By job: the rule it has, and of how many rollouts it was made. And what the placement remembers. */
const memorySchema = z.object({ placement: z.unknown(), rules: z.record(z.string(), ruleSchema) });

type Rules = z.infer<typeof memorySchema>['rules'];

/** A rule is made anew once so many times as many rollouts have ended. */
const NEWS = 1.25;

/**
 * Places stages and engines like `fifo`, and tells engines how to admit sequences: more than the cache could hold at
 * their longest, but only so many in each segment of their lengths. Lengths are those of the job's rollouts that have
 * ended; a step's first ends are its short ones, so nothing is concluded before a whole step of them is there.
 */
export const segmentCap: PolicyDefinition<Options> = {
  name: 'segmentCap',
  after: 'WAIT and Nested WAIT (Ao, Luo, Simchi-Levi and Wang, 2025)',
  summary: 'like fifo; engines admit more than their cache holds, capped by segments of length',
  isWorkConserving: fifo.isWorkConserving,
  turnsMax: fifo.turnsMax,
  options: optionsSchema,
  create: (options) => policyWith(options),
};

function policyWith(options: Options): Policy {
  const place = fifo.create({});
  const rule: RuleOptions = { rule: options.rule, fill: options.fill, segmentsMax: options.segments_max };
  return (snapshot) => {
    const before = remembered(memorySchema, snapshot.memory);
    const plan = place({ ...snapshot, memory: before?.placement ?? null });
    const rules = rulesFor(snapshot, before?.rules ?? {}, rule, options.rollouts_min);
    const admission = ordersFor(snapshot, plan, rules);
    const memory = { placement: plan.memory ?? null, rules };
    return { ...plan, ...(admission.length > 0 ? { admission } : {}), memory };
  };
}

/** The rules of all jobs that have one; those made of enough rollouts stay. */
function rulesFor(snapshot: Snapshot, before: Rules, options: RuleOptions, rolloutsMin: number): Rules {
  const rules: [string, Rules[string]][] = [];
  for (const job of snapshot.jobs.values()) {
    const { id, kv, lengths } = job;
    const { rollouts } = lengths;
    if (kv === undefined || rollouts < Math.max(rolloutsMin, job.stepRollouts)) continue;
    const known = Object.hasOwn(before, id) ? before[id] : undefined;
    const isNews = known === undefined || rollouts >= known.rollouts * NEWS || rollouts < known.rollouts;
    rules.push([id, isNews ? { rollouts, admission: admissionFor(kv, lengths, options) } : known]);
  }
  return Object.fromEntries(rules);
}

/** For every engine that is awake, stays so, and has another rule than its job. */
function ordersFor(snapshot: Snapshot, plan: Plan, rules: Rules): AdmissionOrder[] {
  const leaving = new Set(plan.sleep.map(({ job, lane }) => `${lane} ${job}`));
  const orders: AdmissionOrder[] = [];
  for (const job of snapshot.jobs.values()) {
    const admission = ruleOf(job, rules);
    for (const { lane, status, admission: own = null } of job.engines) {
      const isAwake = status === 'awake' && !job.finished && !leaving.has(`${lane} ${job.id}`);
      if (!isAwake || isSameAdmission(own, admission)) continue;
      const of = `of ${job.lengths.rollouts} rollouts`;
      orders.push({ job: job.id, lane, admission, reason: admission === null ? 'no rule yet' : of });
    }
  }
  return orders;
}

function ruleOf({ id }: JobState, rules: Rules): Admission | null {
  return (Object.hasOwn(rules, id) ? rules[id]?.admission : undefined) ?? null;
}
