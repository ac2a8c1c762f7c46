import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import type { JobId, Snapshot } from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { fillInOrder } from './fill-in-order.js';
import { NO_OPTIONS } from './options.js';
import { byTier, placeStages } from './stage-placement.js';

/**
 * Strict alternation, what synchronous RL does: while any stage of a job holds a lane, the job generates nowhere. Its
 * engines hold their sequences, caches and all, on every lane they have; other jobs may use those lanes meanwhile.
 */
export const alternate: PolicyDefinition<object> = {
  name: 'alternate',
  after: null,
  summary: 'a job trains or generates, never both: what synchronous RL does',
  isWorkConserving: false,
  turnsMax: 1,
  options: NO_OPTIONS,
  create: () => plan,
};

function plan(snapshot: Snapshot): Plan {
  const draft = new Draft(snapshot);
  placeStages(draft, byTier(snapshot.requests));
  const inStages = jobsInStages(draft);
  const allotment = new Allotment(draft);
  fillInOrder(
    allotment,
    contenders(draft).filter(({ id }) => !inStages.has(id)),
  );
  reach(allotment);
  return draft.plan();
}

/** Of those granted before, and those granted now. */
function jobsInStages(draft: Draft): ReadonlySet<JobId> {
  const { grants, requests } = draft.snapshot;
  const granted = new Set(draft.plan().grant.map(({ request }) => request));
  const begun = requests.filter(({ id }) => granted.has(id));
  return new Set([...grants, ...begun].map(({ job }) => job));
}
