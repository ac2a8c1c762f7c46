import type { JobMeasured, Measured } from '#src/bench/compare/measured.js';
import { loadScenario, type Scenario } from '#src/run/scenario.js';

export const FOUR_AGENTS = 'examples/scenarios/four-agents.toml';

export function scenario(...set: readonly string[]): Scenario {
  return loadScenario({ file: FOUR_AGENTS, set }).scenario;
}

export function job(changes: Partial<JobMeasured> = {}): JobMeasured {
  return {
    id: 'a',
    arrivedMs: 0,
    finishedMs: 10_000,
    tokensDecoded: 1000,
    tokensTrained: 900,
    tokensWasted: { aborted: 10, expired: 20, filtered: 70, recomputed: 0 },
    queueWaitMs: { actorTraining: [1, 2, 3] },
    yieldMs: null,
    tokenP99Ms: 12,
    weightBytes: 500,
    staleness: [3, 1],
    ...changes,
  };
}

/** One run on one lane; its makespan is that of its jobs. */
export function measured(jobs: readonly JobMeasured[], changes: Partial<Measured> = {}): Measured {
  const ends = jobs.flatMap(({ finishedMs }) => finishedMs ?? []);
  const starts = jobs.flatMap(({ arrivedMs }) => arrivedMs ?? []);
  return {
    endMs: 20_000,
    makespanMs: ends.length < jobs.length ? null : Math.max(...ends) - Math.min(...starts),
    lanes: 1,
    jobs,
    busy: jobs.map(({ id }) => ({ lane: 0, job: id, kind: 'generation', ms: 4000 })),
    yieldMs: [2, 4],
    stalenessUnit: 'tokens',
    violations: 0,
    timeline: {
      spans: jobs.map(({ id }) => ({
        lane: 0,
        job: id,
        kind: 'generation',
        fromMs: 0,
        toMs: 8000,
        busy: 0.5,
      })),
      dropped: 0,
    },
    ...changes,
  };
}
