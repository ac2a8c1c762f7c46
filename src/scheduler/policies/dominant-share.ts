import { z } from 'zod';
import { Draft, type Resident } from '../draft.js';
import type { PolicyDefinition } from '../plan.js';
import type { Snapshot } from '../state.js';
import { Ledger, ledgerSchema, NO_LEDGER } from './dominant-share-ledger.js';
import { retire, setSlots, sleepingLanes, wakeWhenRoom } from './engine-orders.js';
import { byTier, placeStages } from './stage-placement.js';

const POSITIVE = 'must be a whole number above 0';

const optionsSchema = z.strictObject({
  /** How long a block lives, in ms. */
  window_ms: z.int(POSITIVE).min(1, POSITIVE).default(5_000),
  /** Budget of a block: tokens that may be sampled on one lane in one window. */
  tokens_per_window: z.int(POSITIVE).min(1, POSITIVE).default(20_000),
  /** How a block is unlocked: evenly over its window (DPF-T), or a part with every claim on it (DPF-N). */
  unlock: z.enum(['time', 'arrivals'], 'must be time or arrivals').default('time'),
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
 * all their slots, without one they are held, and sleep only where others need the memory.
 *
 * From the paper: blocks, unlocking, the order by dominant share. Ours: what a block and a claim are (the paper's
 * are privacy budgets of data); a job has one claim at a time, of at most a twentieth of a block (a fair share
 * under DPF-N, which the paper promises at once); a claim ends when as many tokens have been sampled, and what was sampled
 * beyond it is taken from what is free; what is not used by the end of its window expires. Where memory holds one
 * engine of two, the older grant has it.
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
    retire(draft);
    placeStages(draft, byTier(snapshot.requests));
    const memory = ledgerSchema.safeParse(snapshot.memory);
    const ledger = new Ledger(memory.data ?? NO_LEDGER, snapshot, options);
    ledger.update();
    openAndHold(draft, snapshot, ledger);
    wakeGranted(draft, snapshot, ledger);
    const reviewAtMs = ledger.reviewAtMs();
    return { ...draft.plan(), memory: ledger.memory, ...(reviewAtMs === null ? {} : { reviewAtMs }) };
  },
};

function openAndHold(draft: Draft, snapshot: Snapshot, ledger: Ledger): void {
  for (const job of snapshot.jobs.values()) {
    for (const engine of job.engines) {
      if (ledger.isGranted(job.id, engine.lane)) {
        setSlots(draft, { job, engine }, job.slotsMax, 'its job has tokens left on this lane');
      } else {
        setSlots(draft, { job, engine }, 0, 'its job has no tokens left on this lane');
      }
    }
  }
}

/** Oldest grant first; it may take the memory of whoever holds none on the lane, or a younger one. */
function wakeGranted(draft: Draft, snapshot: Snapshot, ledger: Ledger): void {
  const rank = new Map([...ledger.grantedJobs()].map((id, index) => [id, index]));
  for (const [id, own] of rank) {
    const job = snapshot.jobs.get(id);
    if (job === undefined) continue;
    const mayLeave = ({ job: other, engine }: Resident): boolean =>
      !ledger.isGranted(other.id, engine.lane) || (rank.get(other.id) ?? Infinity) > own;
    for (const lane of sleepingLanes(draft, job)) {
      if (!ledger.isGranted(id, lane)) continue;
      const reason = 'its job has tokens on this lane';
      wakeWhenRoom(draft, { job, lane, slots: job.slotsMax, reason }, mayLeave);
    }
  }
}
