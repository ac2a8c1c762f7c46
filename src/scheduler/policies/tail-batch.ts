import { z } from 'zod';
import type { Plan, Policy, PolicyDefinition, RoundOrder } from '../plan.js';
import { isSameRule, type RoundRule, type StepShape } from '../rounds.js';
import type { Snapshot } from '../state.js';
import { fifo } from './fifo.js';

const SHARE_MUST = 'a number from 0 to 3';
const spareShare = z.number(SHARE_MUST).min(0, SHARE_MUST).max(3, SHARE_MUST);

const optionsSchema = z.strictObject({
  /** How many more prompts a short round starts than its step takes, as a share of these. RollPacker starts a quarter more. */
  prompts_spare: spareShare.default(0.25),
  /** And how many more samples of each. */
  samples_spare: spareShare.default(0.25),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * Places stages and engines like `fifo`, and tells every job that trains how its rounds begin: short ones, which start
 * more than their step takes and end with the first to finish; and a long one whenever a whole step's prompts have
 * been deferred, run to its end with nothing to spare.
 *
 * It pays where decode rows stand idle while the last rollouts of a step end; on a device that is full it costs, for
 * what a short round discards has been computed.
 */
export const tailBatch: PolicyDefinition<Options> = {
  name: 'tailBatch',
  after: 'RollPacker (2025)',
  summary: 'like fifo; short rounds train what ends first, stragglers wait for long rounds of their own',
  isWorkConserving: fifo.isWorkConserving,
  turnsMax: fifo.turnsMax,
  options: optionsSchema,
  create: (options) => policyWith(options),
};

function policyWith(options: Options): Policy {
  const place = fifo.create({});
  return (snapshot): Plan => {
    const plan = place(snapshot);
    const rounds = ordersFor(snapshot, options);
    return rounds.length > 0 ? { ...plan, rounds } : plan;
  };
}

function ordersFor(snapshot: Snapshot, options: Options): RoundOrder[] {
  const orders: RoundOrder[] = [];
  for (const { id, step, finished, trainerLane, demand, rounds: before = null } of snapshot.jobs.values()) {
    if (step === undefined || finished || trainerLane === null) continue;
    const { deferredPrompts = 0 } = demand;
    const rounds = ruleFor(step, deferredPrompts, options);
    if (isSameRule(rounds, before)) continue;
    orders.push({ job: id, rounds, reason: `${deferredPrompts} of ${step.prompts} prompts deferred` });
  }
  return orders;
}

function ruleFor(step: StepShape, deferredPrompts: number, options: Options): RoundRule {
  // A share that comes to a whole number up to rounding is that number.
  const withSpare = (count: number, share: number): number => count + Math.ceil(count * share - 1e-9);
  return {
    prompts: withSpare(step.prompts, options.prompts_spare),
    samples: withSpare(step.samples, options.samples_spare),
    isLongDue: deferredPrompts >= step.prompts,
  };
}
