import type { Plan } from '../scheduler/plan.js';

/** A plan's orders in words, for the trace: what changes and why. */
export function planChanges({ wake, sleep, resize, grant }: Plan): string[] {
  const engine = ({ job, lane }: { readonly job: string; readonly lane: number }): string =>
    `${job} engine on lane ${lane}`;
  return [
    ...wake.map((order) => `wake ${engine(order)}, ${order.slots} slots: ${order.reason}`),
    ...sleep.map((order) => `put ${engine(order)} to sleep: ${order.reason}`),
    ...resize.map((order) => `resize ${engine(order)} to ${order.slots} slots: ${order.reason}`),
    ...grant.map(({ request, reason }) => `grant request ${request}: ${reason}`),
  ];
}
