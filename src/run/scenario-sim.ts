import { at } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import { Random, seedKey } from '../lib/prng.js';
import { readHfConfig } from '../model/hf-config.js';
import { layoutBytes, paramLayout } from '../model/layout.js';
import type { CostModel } from '../sim/cost-model.js';
import { type Distribution, draw, loaded } from '../sim/distribution.js';
import { profileNamed } from '../sim/profiles.js';
import { stagesOfStep } from '../sim/run-config-file.js';
import type { SimFaults, SimJobSpec, SimScenario } from '../sim/scenario.js';
import { Assumptions } from './scenario-assumptions.js';
import { placesOf, type Place } from './scenario-places.js';
import type { Scenario, ScenarioJob } from './scenario.js';

/** What the command line says beside the scenario. */
export interface SimWishes {
  readonly lanes?: number;
  readonly seed?: number;
  /** In place of the scenario's profile. */
  readonly costs?: CostModel;
  /** Measured, by the ids of the jobs of a run; they count for jobs of the same id that name none of their own. */
  readonly computeScales?: ReadonlyMap<string, number>;
}

/** A scenario as the simulator takes it. */
export interface SimSetup {
  readonly scenario: SimScenario;
  readonly options: {
    readonly coalesceMs: number;
    readonly progressMs: number;
    readonly horizonMs?: number;
  };
  /** What the scenario leaves open and was filled in, a line each. */
  readonly assumptions: readonly string[];
}

const DEFAULT_PROFILE = 'llvmpipe-2-cores';
/** With more lanes than this, planning for every event by itself would take longer than it tells anything. */
const LANES_BY_EVENT_MAX = 32;
const COALESCE_MS = 1000;
const PROGRESS_MS = 10_000;
/** Completions whose spread nobody gave. */
const LENGTH = { medianShare: 0.25, sigma: 0.8 };
const PROMPT_TOKENS = 64;

/**
 * The very scenario that `offbeat run` takes, for the simulator. What a live run would learn from its model and task
 * stands in the `sim` tables, or is assumed and listed.
 *
 * @throws UserError for what the `sim` tables get wrong: a profile there is not, a trace that cannot be read.
 */
export async function simSetup(scenario: Scenario, wishes: SimWishes = {}): Promise<SimSetup> {
  const { sim, scheduler } = scenario;
  const seed = wishes.seed ?? scenario.seed;
  const laneCount = wishes.lanes ?? sim.lanes ?? scenario.lanes.count;
  const profile = wishes.costs ?? profileNamed(sim.profile ?? DEFAULT_PROFILE);
  const costs = { ...profile, sliceMs: scenario.lanes.sliceBudgetUs / 1000 };
  const assumptions = new Assumptions();
  if (sim.profile === undefined && wishes.costs === undefined) {
    assumptions.note(`costs of the profile ${costs.name} (sim.profile, --calibrate)`);
  }
  if (scheduler.reserve.length > 0) assumptions.note('scheduler.reserve is not simulated');
  const places = placesOf(scenario, laneCount);
  const jobs: SimJobSpec[] = [];
  for (const job of scenario.jobs) {
    const size = await sizeOf(job, costs, wishes, assumptions);
    const arrivals = arrivalsOf(job, seed);
    for (const place of at(places, scenario.jobs.indexOf(job))) {
      const arrivesMs = job.arrivesS * 1000 + arrivals(place.copy);
      jobs.push(jobSpec(job, place, arrivesMs, size, assumptions));
    }
  }
  const lane = { speed: 1, bytesCapacity: sim.laneBytes ?? Infinity };
  const options = planning(scenario, laneCount, assumptions);
  return {
    scenario: {
      seed,
      lanes: Array.from({ length: laneCount }, () => lane),
      jobs,
      costs,
      faults: faultsOf(sim.faults),
    },
    options: { ...options, ...(sim.endsMs === undefined ? {} : { horizonMs: sim.endsMs }) },
    assumptions: assumptions.lines(),
  };
}

function planning({ sim }: Scenario, laneCount: number, assumptions: Assumptions) {
  const isLarge = laneCount > LANES_BY_EVENT_MAX;
  const coalesceMs = sim.coalesceMs ?? (isLarge ? COALESCE_MS : 0);
  const progressMs = sim.progressMs ?? (isLarge ? PROGRESS_MS : 0);
  if (isLarge && sim.coalesceMs === undefined) {
    assumptions.note(`plans at most every ${COALESCE_MS} ms, for so many lanes (sim.coalesce_ms)`);
  }
  return { coalesceMs, progressMs };
}

function faultsOf(faults: Scenario['sim']['faults']): SimFaults {
  if (faults === undefined) return {};
  const { laneLoss, losses, stragglers, slowLanes } = faults;
  return {
    ...(laneLoss === undefined
      ? {}
      : { laneLoss: { perLaneDay: laneLoss.perLaneDay, returnMs: loaded(laneLoss.returnMs, '.') } }),
    ...(losses === undefined ? {} : { losses }),
    ...(stragglers === undefined ? {} : { stragglers }),
    ...(slowLanes === undefined ? {} : { slowLanes }),
  };
}

interface Size {
  readonly weightBytes: number;
  readonly computeScale: number;
}

/** From the model itself where it is there; a model that is yet to be made is no obstacle to a simulation. */
async function sizeOf(
  { id, config, sim }: ScenarioJob,
  costs: CostModel,
  { computeScales }: SimWishes,
  assumptions: Assumptions,
): Promise<Size> {
  const known = sim.weightBytes ?? (await bytesOfModel(config.model.path));
  const weightBytes = known ?? costs.modelBytes;
  if (known === null) {
    assumptions.of(id, `a model of ${weightBytes} bytes, as in the cost model (weight_bytes)`);
  }
  const measured = sim.computeScale ?? computeScales?.get(id);
  if (measured !== undefined) return { weightBytes, computeScale: measured };
  // A smaller model is hardly faster: a step then is mostly what does not depend on its size.
  const computeScale = costs.modelBytes > 0 ? Math.max(1, weightBytes / costs.modelBytes) : 1;
  assumptions.of(id, `compute_scale ${Number(computeScale.toPrecision(3))}, by the bytes of its weights`);
  return { weightBytes, computeScale };
}

async function bytesOfModel(folder: string): Promise<number | null> {
  try {
    return layoutBytes(paramLayout(await readHfConfig(folder), Number.MAX_SAFE_INTEGER));
  } catch (error) {
    if (error instanceof UserError) return null;
    throw error;
  }
}

/** Times on top of `arrives_s`, by copy. */
function arrivalsOf({ id, sim }: ScenarioJob, seed: number): (copy: number) => number {
  const times = loaded(sim.arrivesMs ?? 0, '.');
  if (typeof times === 'object' && !('kind' in times)) return (copy) => at(times, copy % times.length);
  const random = new Random(seedKey(seed)).fork(`arrivals ${id}`);
  return (copy) => draw(times, random.fork(copy));
}

function jobSpec(
  job: ScenarioJob,
  place: Place,
  arrivesMs: number,
  size: Size,
  assumptions: Assumptions,
): SimJobSpec {
  const { config, sim } = job;
  const { rollout, algorithm, critic, engine, steps } = config;
  const given = (name: string, written: typeof sim.turns, otherwise: Distribution): Distribution => {
    if (written !== undefined) return loaded(written, '.');
    assumptions.of(job.id, `${name} ${distributionText(otherwise)}`);
    return otherwise;
  };
  const hasCritic = algorithm.name === 'ppo';
  const stages = stagesOfStep({
    hasCritic,
    recomputes: algorithm.oldLogProbs === 'recomputed',
    hasReference: algorithm.klCoefficient > 0,
  });
  const length: Distribution = {
    kind: 'lognormal',
    median: Math.max(1, rollout.maxTokens * LENGTH.medianShare),
    sigma: LENGTH.sigma,
    max: rollout.maxTokens,
  };
  if (config.evaluation.heldoutPrompts > 0) assumptions.of(job.id, 'no held-out evaluation');
  return {
    id: place.id,
    arrivesMs,
    ...(sim.staysMs === undefined ? {} : { leavesMs: arrivesMs + sim.staysMs }),
    promptTokens: given('prompt_tokens', sim.promptTokens, PROMPT_TOKENS),
    completionTokens: given('completion_tokens', sim.completionTokens, length),
    turns: given('turns', sim.turns, 1),
    environmentWaitMs: given('environment_wait_ms', sim.environmentWaitMs, 0),
    observationTokens: given('observation_tokens', sim.observationTokens, 0),
    rewardMs: given('reward_ms', sim.rewardMs, 0),
    filteredShare: sim.filteredShare ?? 0,
    computeScale: size.computeScale,
    weight: job.weight,
    steps,
    groupsPerStep: rollout.promptsPerStep,
    groupSize: rollout.samplesPerPrompt,
    stalenessVersionsMax: algorithm.stalenessVersionsMax,
    stages,
    slotsMax: engine.slots,
    trainerLane: place.trainerLane,
    engineLanes: place.lanes,
    // As the runner counts them: weights twice for an engine; weights, gradients and both moments for a trainer.
    engineBytes: 2 * size.weightBytes,
    // As much again for a critic: its layers are the policy's.
    trainerBytes: (hasCritic ? 8 : 4) * size.weightBytes,
    updatesPerStep: algorithm.updatesPerStep,
    ...(hasCritic ? { criticEpochs: critic.epochs, criticSteps: critic.warmupSteps } : {}),
    weightBytes: size.weightBytes,
    tokenLatencyMs: job.tokenLatencyMs,
  };
}

function distributionText(distribution: Distribution): string {
  if (typeof distribution === 'number') return String(distribution);
  if (!('kind' in distribution)) return `one of ${distribution.length} numbers`;
  if (distribution.kind === 'uniform') return `from ${distribution.low} to ${distribution.high}`;
  const { median, sigma, max } = distribution;
  return `lognormal, median ${median}, sigma ${sigma}, at most ${max}`;
}
