import type { JobSpec } from '../scheduler/state.js';
import { sequenceTokensMax, type SimFaults, type SimJobSpec } from './scenario.js';

/** A simulated job as the scheduler knows it. */
export function jobSpecOf(spec: SimJobSpec, faults: SimFaults): JobSpec {
  const { id, weight, trainerLane, engineLanes, slotsMax, engineBytes, trainerBytes } = spec;
  const { groupsPerStep, groupSize, tokenLatencyMs, kvTokens: tokens } = spec;
  const stepRollouts = trainerLane === null ? 0 : groupsPerStep * groupSize;
  const kv =
    tokens === undefined
      ? {}
      : { kv: { tokens, sequenceTokensMax: sequenceTokensMax(spec, faults.stragglers?.factor) } };
  const step = stepRollouts === 0 ? {} : { step: { prompts: groupsPerStep, samples: groupSize } };
  const lanes = { trainerLane, engineLanes, slotsMax, engineBytes, trainerBytes };
  return { id, weight, ...lanes, ...kv, ...step, version: 0, stepRollouts, tokenLatencyMs };
}
