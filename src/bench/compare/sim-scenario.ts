import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../lib/errors.js';
import { camelKeys } from '../../run/config-case.js';
import type { Scenario, ScenarioJob } from '../../run/scenario.js';
import type { ExclusiveStage } from '../../scheduler/stages.js';
import { profileNamed } from '../../sim/profiles.js';
import { simJobSchema, type SimJobSpec, type SimScenario, simWork } from '../../sim/scenario.js';

/** The machine that the simulated lanes are like. */
export const PROFILE = 'llvmpipe-2-cores';

/**
 * A scenario as the simulator takes it: the work of each job is what its `[job.sim]` says, a completion as long as
 * `max_tokens` where it says nothing. Memory is not simulated.
 *
 * @throws UserError for a key of `[job.sim]` that is unknown or out of range, and a model that is not there.
 */
export function simScenarioOf({ seed, lanes, jobs }: Scenario): SimScenario {
  const spec = { speed: 1, bytesCapacity: Infinity };
  return {
    seed,
    lanes: Array.from({ length: lanes.count }, () => spec),
    jobs: jobs.map(simJobOf),
    costs: profileNamed(PROFILE),
  };
}

function simJobOf(job: ScenarioJob): SimJobSpec {
  const { rollout, algorithm, engine, model, steps } = job.config;
  const written = { completion_tokens: rollout.maxTokens, ...job.sim, arrives_ms: 1000 * job.arrivesS };
  const parsed = simJobSchema.safeParse(written);
  const [issue] = parsed.success ? [] : parsed.error.issues;
  if (!parsed.success) {
    const key = ['sim', ...(issue?.path.map(String) ?? [])].join('.');
    throw new UserError(`job ${job.id}: ${key} must be ${issue?.message ?? 'a table of keys'}`);
  }
  const stages: ExclusiveStage[] = [
    ...(algorithm.oldLogProbs === 'recomputed' ? (['oldLogProbs'] as const) : []),
    ...(algorithm.klCoefficient > 0 ? (['refLogProbs'] as const) : []),
    'actorTraining',
  ];
  const weightBytes = bytesOf(model.path, job.id);
  return {
    ...simWork(camelKeys(parsed.data), process.cwd()),
    id: job.id,
    weight: job.weight,
    steps,
    groupsPerStep: rollout.promptsPerStep,
    groupSize: rollout.samplesPerPrompt,
    stalenessVersionsMax: algorithm.stalenessVersionsMax,
    stages,
    slotsMax: engine.slots,
    trainerLane: job.trainerLane,
    engineLanes: job.lanes,
    engineBytes: 2 * weightBytes,
    trainerBytes: 4 * weightBytes,
    weightBytes,
    tokenLatencyMs: job.tokenLatencyMs,
  };
}

/** Of a checkpoint's weights as its files have them. */
function bytesOf(folder: string, job: string): number {
  try {
    const files = readdirSync(folder).filter((name) => name.endsWith('.safetensors'));
    return files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  } catch {
    throw new UserError(`job ${job}: model.path ${folder} cannot be read: name a checkpoint folder`);
  }
}
