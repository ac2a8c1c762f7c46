import type { Plan } from './plan.js';

/** A plan's orders in words, for the trace: what changes and why. */
export function planChanges(plan: Plan): string[] {
  const { wake, sleep, resize, grant, segments = [], admission = [], rounds = [] } = plan;
  const engine = ({ job, lane }: { readonly job: string; readonly lane: number }): string =>
    `${job} engine on lane ${lane}`;
  return [
    ...wake.map((order) => `wake ${engine(order)}, ${order.slots} slots: ${order.reason}`),
    ...sleep.map((order) => `put ${engine(order)} to sleep: ${order.reason}`),
    ...resize.map((order) => `resize ${engine(order)} to ${order.slots} slots: ${order.reason}`),
    ...grant.map(({ request, reason }) => `grant request ${request}: ${reason}`),
    ...segments.map(({ lane, segment, reason }) => {
      const length = segment === null ? 'as its budgets say' : `of ${segment.sliceUs} µs`;
      return `segments on lane ${lane} ${length}: ${reason}`;
    }),
    ...admission.map((order) => {
      const rule = order.admission === null ? 'in full' : `by ${order.admission.segments.length} segments`;
      return `${engine(order)} admits ${rule}: ${order.reason}`;
    }),
    ...rounds.map(({ job, rounds: rule, reason }) => {
      if (rule === null) return `${job}'s rounds start what a step takes: ${reason}`;
      const next = rule.isLongDue ? 'a long round next, then short ones' : 'short rounds';
      return `${job} has ${next} of ${rule.prompts} prompts by ${rule.samples}: ${reason}`;
    }),
  ];
}
