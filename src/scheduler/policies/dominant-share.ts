import { z } from 'zod';
import { Draft } from '../draft.js';
import type { PolicyDefinition } from '../plan.js';
import { Allotment, reach } from './allotment.js';
import { Ledger, recalled } from './dominant-share-ledger.js';
import { setSlots } from './engine-orders.js';
import { byTier, placeStages } from './stage-placement.js';

const POSITIVE = 'must be a whole number above 0';

const optionsSchema = z.strictObject({
  /** How long a block lives, in ms. */
  window_ms: z.int(POSITIVE).min(1, POSITIVE).default(5_000),
  /** Budget of a block: tokens that may be sampled on one lane in one window. */
  tokens_per_window: z.int(POSITIVE).min(1, POSITIVE).default(20_000),
  /** How a block is unlocked: a part with every claim on it (DPF-N), or evenly over its window (DPF-T). */
  unlock: z.enum(['arrivals', 'time'], 'must be arrivals or time').default('arrivals'),
  /** DPF-N's N: into how many fair shares a block is cut. */
  fair_shares: z.int(POSITIVE).min(1, POSITIVE).default(8),
  /** Under `time`, the most one claim may want of a block, as a share of it. */
  claim_share_max: z.number().gt(0, 'must be above 0').max(1, 'must be at most 1').default(0.05),
});

type Options = z.infer<typeof optionsSchema>;

/**
 * Token quotas by DPF (Luo et al., "Privacy budget scheduling", OSDI 2021): see `dpf.ts` for the allocator. A block is
 * a lane in a window of time, its budget tokens to be sampled there. A job with sequences to run claims tokens on as
 * many lanes as its sequences need slots, all or nothing; while its claim stands its engines there are awake with
 * all their slots, without one they are held, and sleep only where others need the memory or where its sequences
 * have slots elsewhere.
 *
 * From the paper: blocks, unlocking, the order by dominant share. Ours: what a block and a claim are (the paper's
 * are privacy budgets of data); a job has one claim at a time, of at most a fair share (a twentieth of a block under
 * DPF-T), which under DPF-N the paper promises at once; a claim ends when as many tokens have been sampled, and what
 * was sampled beyond it is taken from what is free; what is not used by the end of its window expires. Where memory
 * holds one engine of two, the older grant has it.
 *
 * A quota leaves a lane idle when its budget is spent: this policy does not conserve work, by its very definition.
 */
export const dominantShare: PolicyDefinition<Options> = {
  name: 'dominantShare',
  after: 'DPF (Luo et al., OSDI 2021)',
  summary: 'token quotas by lane and window, all or nothing, smallest dominant share first',
  isWorkConserving: false,
  turnsMax: Infinity,
  options: optionsSchema,
  create: (options) => (snapshot) => {
    const draft = new Draft(snapshot);
    placeStages(draft, byTier(snapshot.requests));
    const allotment = new Allotment(draft);
    const ledger = new Ledger(recalled(snapshot.memory), snapshot, options, (job, lane) =>
      allotment.fits(job, lane),
    );
    ledger.update();
    allotGranted(allotment, ledger);
    reach(allotment);
    holdIdle(draft);
    const reviewAtMs = ledger.reviewAtMs();
    return { ...draft.plan(), memory: ledger.memory, ...(reviewAtMs === null ? {} : { reviewAtMs }) };
  },
};

/** Oldest grant first; it may take the memory of whoever holds none on the lane, or a younger one. */
function allotGranted(allotment: Allotment, ledger: Ledger): void {
  const { jobs } = allotment.draft.snapshot;
  for (const [id, lanes] of ledger.granted()) {
    const job = jobs.get(id);
    if (job === undefined) continue;
    for (const lane of lanes) if (allotment.fits(job, lane)) allotment.give(job, lane, job.slotsMax);
  }
}

/** An engine that waits at home for work has no tokens either: what comes for it waits for its claim. */
function holdIdle(draft: Draft): void {
  for (const job of draft.snapshot.jobs.values()) {
    if (job.demand.rollouts > 0) continue;
    for (const engine of job.engines) setSlots(draft, { job, engine }, 0, 'its job claims no tokens');
  }
}
