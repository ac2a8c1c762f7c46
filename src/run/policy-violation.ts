import { INVARIANTS, type Violation } from '../scheduler/check.js';
import type { Plan } from '../scheduler/plan.js';

const VIOLATIONS_SHOWN_MAX = 3;
const ORDERS_SHOWN_MAX = 8;

/**
 * One line for the run's log and for whoever writes the policy: what was broken, by its number, and the plan that
 * broke it.
 *
 * @param violations at least one
 */
export function violationText(policy: string, violations: readonly Violation[], plan: Plan): string {
  const broken = firstOf(
    violations.map(
      ({ invariant, message }) => `invariant ${invariant} (${INVARIANTS[invariant]}): ${message}`,
    ),
    VIOLATIONS_SHOWN_MAX,
  );
  const orders = firstOf(ordersOf(plan), ORDERS_SHOWN_MAX);
  return `policy ${policy} breaks ${broken}; its plan: ${orders || 'none'}; the run goes on under the last good plan`;
}

/** A plan in words, an order each. */
function ordersOf(plan: Plan): string[] {
  const because = (reason: string): string => (reason === '' ? '' : ` (${reason})`);
  return [
    ...plan.sleep.map(({ job, lane, moveTo, reason }) => {
      const target = moveTo === 'queue' ? 'the queue' : `lane ${moveTo}`;
      return `sleep ${job} on lane ${lane} to ${target}${because(reason)}`;
    }),
    ...plan.resize.map(
      ({ job, lane, slots, reason }) => `resize ${job} on lane ${lane} to ${slots} slots${because(reason)}`,
    ),
    ...plan.grant.map(({ request, reason }) => `grant request ${request}${because(reason)}`),
    ...plan.reservations.map(
      ({ request, lanes, reason }) =>
        `keep lane ${lanes.join(', ') || 'none'} for request ${request}${because(reason)}`,
    ),
    ...plan.wake.map(
      ({ job, lane, slots, version, reason }) =>
        `wake ${job} on lane ${lane} with ${slots} slots at version ${version}${because(reason)}`,
    ),
  ];
}

function firstOf(texts: readonly string[], max: number): string {
  const more = texts.length - max;
  return [...texts.slice(0, max), ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}
