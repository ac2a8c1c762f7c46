import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import type { Snapshot } from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { fillInOrder } from './fill-in-order.js';
import { NO_OPTIONS } from './options.js';
import { byTier, placeStages } from './stage-placement.js';

/**
 * Shortest remaining first (Schrage, 1968), preempting: slots go first to the job that has the fewest tokens left to
 * generate, so that its long tail ends and its training begins. A long job may wait as long as short ones come.
 * Stages by tier.
 */
export const shortestFirst: PolicyDefinition<object> = {
  name: 'shortestFirst',
  after: 'shortest remaining processing time',
  summary: 'slots go first to the job with the fewest tokens left to generate',
  isWorkConserving: true,
  turnsMax: Infinity,
  options: NO_OPTIONS,
  create: () => plan,
};

function plan(snapshot: Snapshot): Plan {
  const draft = new Draft(snapshot);
  placeStages(draft, byTier(snapshot.requests));
  const allotment = new Allotment(draft);
  const jobs = contenders(draft).sort((a, b) => a.demand.tokensRemaining - b.demand.tokensRemaining);
  fillInOrder(allotment, jobs);
  reach(allotment);
  return draft.plan();
}
