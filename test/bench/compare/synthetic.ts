import type { Contest, Repeat } from '#src/bench/compare/contest.js';
import type { Measured } from '#src/bench/compare/measured.js';
import type { CompareResult } from '#src/bench/compare/result.js';
import { summarize } from '#src/bench/compare/summarize.js';
import { at } from '#src/lib/assert.js';
import { job, measured, scenario } from './fixtures.js';

/** Times of one policy's two jobs in each repeat, ms. */
type Times = readonly (readonly [sums: number | null, hot: number | null])[];

const MACHINE = { description: 'invented', software: true, vendor: '', architecture: '' };

/** An invented contest of two jobs that take 4 and 5 s alone, and how long each policy takes for them. */
export function synthetic(
  policies: Readonly<Record<string, Times>>,
  changes: Partial<Measured> = {},
): { contest: Contest; repeats: readonly Repeat[]; result: CompareResult } {
  const two = scenario();
  const names = Object.keys(policies);
  const count = Math.max(...Object.values(policies).map((times) => times.length));
  const contest = {
    scenario: { ...two, jobs: two.jobs.slice(0, 2) },
    policies: names,
    repeats: count,
  };
  const repeats = Array.from({ length: count }, (_, repeat) => ({
    seed: 4 + repeat,
    solo: new Map([
      ['sums', 4000],
      ['hot', 5000],
    ]),
    runs: Object.values(policies).map((times) => {
      const [sums, hot] = at(times, repeat);
      const jobs = [job({ id: 'sums', finishedMs: sums }), job({ id: 'hot', finishedMs: hot })];
      return measured(jobs, changes);
    }),
  }));
  const circumstances = { mode: 'live', machine: MACHINE, interrupted: false, wallS: 90 } as const;
  return { contest, repeats, result: summarize(contest, repeats, circumstances) };
}

/** The first is slow, the second clearly faster, the third as good as the second but for noise. */
export const THREE = {
  serial: [
    [4000, 9000],
    [4100, 9200],
    [4000, 9100],
  ],
  fifo: [
    [6000, 6100],
    [6100, 6200],
    [6000, 6000],
  ],
  gapRatio: [
    [6000, 6000],
    [6000, 6300],
    [6200, 6000],
  ],
} as const;
