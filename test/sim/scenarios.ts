import type { CostModel } from '#src/sim/cost-model.js';
import type { SimJobSpec, SimScenario } from '#src/sim/scenario.js';

/** Costs that a person can add up: whole milliseconds, and nothing where the test says nothing. */
export function plainCosts(part: Partial<CostModel> = {}): CostModel {
  const nothing = { ms: 0, msPerUnit: 0 };
  return {
    name: 'plain',
    source: 'made for tests',
    modelBytes: 0,
    decode: { stepMs: 10, rowMs: 0, prefillRowMs: 0, batchRows: 1000 },
    train: { ms: 100, msPerUnit: 1 },
    score: { ms: 50, msPerUnit: 0 },
    init: nothing,
    wake: nothing,
    sleep: nothing,
    pull: nothing,
    publish: nothing,
    yieldMs: 0,
    resumeMs: 0,
    ...part,
  };
}

/** One step of two rollouts of 5 tokens each, on one lane, trained at the end. */
export function job(id: string, part: Partial<SimJobSpec> = {}): SimJobSpec {
  return {
    id,
    arrivesMs: 0,
    promptTokens: 3,
    completionTokens: 5,
    turns: 1,
    environmentWaitMs: 0,
    observationTokens: 0,
    rewardMs: 0,
    filteredShare: 0,
    computeScale: 1,
    weight: 1,
    steps: 1,
    groupsPerStep: 1,
    groupSize: 2,
    stalenessVersionsMax: 0,
    stages: ['actorTraining'],
    slotsMax: 8,
    trainerLane: 0,
    engineLanes: [0],
    engineBytes: 10,
    trainerBytes: 5,
    weightBytes: 4,
    tokenLatencyMs: null,
    ...part,
  };
}

export function scenario(jobs: readonly SimJobSpec[], part: Partial<SimScenario> = {}): SimScenario {
  return { seed: 1, lanes: [{ speed: 1, bytesCapacity: 100 }], jobs, costs: plainCosts(), ...part };
}

export function lanes(count: number, bytesCapacity = 100): SimScenario['lanes'] {
  return Array.from({ length: count }, () => ({ speed: 1, bytesCapacity }));
}
