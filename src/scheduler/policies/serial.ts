import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import type { Snapshot } from '../state.js';
import { Allotment, reach } from './allotment.js';
import { fillInOrder } from './fill-in-order.js';
import { NO_OPTIONS } from './options.js';
import { byTier, placeStages } from './stage-placement.js';

/**
 * One job at a time, in order of arrival, until it finishes: what a machine does that is not shared. The other jobs'
 * requests wait and keep nothing, their engines sleep.
 */
export const serial: PolicyDefinition<object> = {
  name: 'serial',
  after: null,
  summary: 'one job at a time, in order of arrival, until it finishes',
  isWorkConserving: false,
  turnsMax: 1,
  options: NO_OPTIONS,
  create: () => plan,
};

function plan(snapshot: Snapshot): Plan {
  const draft = new Draft(snapshot);
  const first = [...snapshot.jobs.values()].find((job) => !job.finished);
  const isFirst = (request: { readonly job: string }): boolean => request.job === first?.id;
  placeStages(draft, byTier(snapshot.requests.filter(isFirst)));
  for (const request of snapshot.requests) {
    if (!isFirst(request)) draft.reserve(request, [], `${first?.id} runs until it finishes`);
  }
  const allotment = new Allotment(draft);
  if (first !== undefined) fillInOrder(allotment, [first]);
  reach(allotment, { whyOut: (job) => (job === first ? null : 'not its turn') });
  return draft.plan();
}
