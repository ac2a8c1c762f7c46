import { SOLO_POLICY } from '../contest.js';
import type { CompareResult } from '../result.js';

/** What the numbers are, with both ends of every time. */
export function definitions({ mode, staleness_unit: unit }: CompareResult): string {
  const terms: readonly (readonly [term: string, meaning: string])[] = [
    [
      'repeats',
      'Repeat r runs every policy, and every job alone, with the scenario’s seed + r − 1: the same prompts and draws for ' +
        'all. Within a repeat the order is mixed, so that a machine that changes its mood favours nobody.',
    ],
    [
      'interval',
      '95 % confidence interval of the mean over repeats, by Student’s t. Of a difference: of the differences repeat by ' +
        'repeat. When it holds 0 the difference is called inside the noise. No correction is made for looking at many.',
    ],
    [
      'alone',
      `The job by itself on the same lanes, from its coming, under the policy ${SOLO_POLICY}: the same baseline for all.`,
    ],
    [
      'goodput',
      'Tokens that reached a gradient, over the makespan; of a job, over its time from coming to end.',
    ],
    ['makespan', 'From the first job’s coming to the last one’s end.'],
    [
      'slowdown, fairness',
      'A job’s time from coming to end over its time alone. Fairness is Jain’s index over 1 / slowdown of all jobs.',
    ],
    [
      'queue wait',
      'From asking for a stage’s lanes to their grant, by the host’s clock; all repeats together.',
    ],
    [
      'time to yield',
      mode === 'live'
        ? 'From the host’s request for a stage until generation’s last slice had finished; all repeats together.'
        : 'Drawn from the cost model whenever a stage finds generation at work: it shows how often that was, not how well.',
    ],
    [
      'busy',
      mode === 'live'
        ? 'Time in which slices ran, by the device’s timestamps where the adapter has them, over lanes × the whole run.'
        : 'Time in which lanes worked by the cost model, over lanes × the whole run.',
    ],
    [
      'wasted',
      'Tokens of rollouts that were aborted, too old, or unused because their group taught nothing, and tokens computed ' +
        'again because a cache was lost, over all tokens computed.',
    ],
    ['staleness', `How many versions behind the newest the ${unit} were that a step was trained on.`],
  ];
  const items = terms.map(([term, meaning]) => `<dt>${term}</dt><dd>${meaning}</dd>`);
  return `<h2>What the words mean</h2><div class="card"><dl>${items.join('')}</dl></div>`;
}
