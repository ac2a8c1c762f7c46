import type { Distribution } from '#src/sim/distribution.js';
import { profileNamed } from '#src/sim/profiles.js';
import type { SimJobSpec, SimScenario } from '#src/sim/scenario.js';
import { job } from './scenarios.js';

const GIB = 2 ** 30;

/**
 * Agentic jobs on a cluster of hypothetical GPUs that is a little too small: long tails, waits for tools, lanes that are
 * lost and come back. Every job may generate on 40 lanes beside the one it trains on.
 */
export function cluster(laneCount: number, jobCount: number, seed = 1): SimScenario {
  const wait: Distribution = { kind: 'lognormal', median: 8000, sigma: 1.2, max: 600_000 };
  const jobs = Array.from({ length: jobCount }, (_, index): SimJobSpec => {
    const home = Math.floor((index * laneCount) / jobCount);
    const engineLanes = Array.from({ length: Math.min(40, laneCount) }, (_, i) => (home + i) % laneCount);
    return job(`job${index}`, {
      arrivesMs: index * 1000,
      promptTokens: { kind: 'lognormal', median: 1500, sigma: 0.6, max: 16_000 },
      completionTokens: { kind: 'lognormal', median: 700, sigma: 1, max: 12_000 },
      turns: [1, 2, 4, 8],
      environmentWaitMs: wait,
      observationTokens: 400,
      steps: 1_000_000,
      groupsPerStep: 32,
      groupSize: 8,
      stalenessVersionsMax: 1,
      stages: ['refLogProbs', 'actorTraining'],
      slotsMax: 64,
      trainerLane: home,
      engineLanes: engineLanes.sort((a, b) => a - b),
      engineBytes: 40 * GIB,
      trainerBytes: 30 * GIB,
      weightBytes: 16 * GIB,
      weight: 1 + (index % 3),
    });
  });
  return {
    seed,
    lanes: Array.from({ length: laneCount }, () => ({ speed: 1, bytesCapacity: 140 * GIB })),
    jobs,
    costs: profileNamed('gpu'),
    faults: {
      laneLoss: {
        perLaneDay: 0.05,
        returnMs: { kind: 'lognormal', median: 300_000, sigma: 0.5, max: 3_600_000 },
      },
      stragglers: { share: 0.005, factor: 4 },
      slowLanes: { share: 0.02, factor: 0.6 },
    },
  };
}

export const DAY_MS = 86_400_000;
