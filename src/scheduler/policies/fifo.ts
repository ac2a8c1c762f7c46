import { z } from 'zod';
import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import type { Snapshot } from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { fillInOrder } from './fill-in-order.js';
import { NO_OPTIONS, remembered } from './options.js';
import { placeStages } from './stage-placement.js';

/** Jobs with rollouts outstanding, by when they began to have any. */
const memorySchema = z.object({ queue: z.array(z.string()) });

/**
 * First come, first served. Stages are granted strictly in order of arrival: no tiers, nobody overtakes on a lane.
 * Generation waits in a queue of its own: a job joins it when it first has rollouts and leaves it when it has none,
 * and those in front take their slots before those behind.
 */
export const fifo: PolicyDefinition<object> = {
  name: 'fifo',
  after: null,
  summary: 'stages and generation strictly in order of arrival',
  isWorkConserving: true,
  turnsMax: 1,
  options: NO_OPTIONS,
  create: () => plan,
};

function plan(snapshot: Snapshot): Plan {
  const draft = new Draft(snapshot);
  placeStages(draft, snapshot.requests);
  const wanting = contenders(draft);
  const before = remembered(memorySchema, snapshot.memory)?.queue ?? [];
  const place = new Map(before.map((id, index) => [id, index]));
  const placeOf = (id: string): number => place.get(id) ?? before.length;
  // The sort is stable: those that are new stay in order of arrival.
  const queue = wanting.sort((a, b) => placeOf(a.id) - placeOf(b.id));
  const allotment = new Allotment(draft);
  fillInOrder(allotment, queue);
  reach(allotment);
  return { ...draft.plan(), memory: { queue: queue.map((job) => job.id) } };
}
