import { z } from 'zod';
import type { ExclusiveStage } from '../scheduler/stages.js';

/** What a run's `config.toml` says of one job, as far as a simulation of it needs it. */
export interface JobConfig {
  readonly id: string;
  readonly weight: number;
  readonly trainerLane: number;
  /** Ascending. */
  readonly lanes: readonly number[];
  readonly tokenLatencyMs: number | null;
  /** Jobs of the same model take the same time for the same work. */
  readonly model: string;
  readonly promptsPerStep: number;
  readonly samplesPerPrompt: number;
  readonly tokensMax: number;
  readonly stalenessVersionsMax: number;
  /** Of a step, in their order. */
  readonly stages: readonly ExclusiveStage[];
  /** First steps, in which only the critic is trained. */
  readonly criticSteps: number;
  readonly criticEpochs: number;
  readonly updatesPerStep: number;
  readonly heldoutPrompts: number;
  readonly heldoutEverySteps: number;
  readonly slots: number;
  readonly batchRows: number;
}

const workSchema = z.object({
  model: z.object({ path: z.string() }).optional(),
  rollout: z.object({
    prompts_per_step: z.number(),
    samples_per_prompt: z.number(),
    max_tokens: z.number().default(1),
  }),
  algorithm: z.object({
    name: z.string().default('grpo'),
    kl_coefficient: z.number(),
    staleness_versions_max: z.number(),
    old_log_probs: z.string(),
    updates_per_step: z.number().default(1),
  }),
  critic: z
    .object({ warmup_steps: z.number().default(0), epochs: z.number().default(1) })
    .default({ warmup_steps: 0, epochs: 1 }),
  engine: z.object({ slots: z.number(), batch_tokens: z.number() }),
  evaluation: z
    .object({ heldout_prompts: z.number().default(0), every_steps: z.number().default(0) })
    .default({ heldout_prompts: 0, every_steps: 0 }),
});
const lanesSchema = z.object({ count: z.number(), slice_budget_us: z.number().optional() });
const placeSchema = z.object({
  id: z.string(),
  weight: z.number(),
  trainer_lane: z.number(),
  lanes: z.array(z.number()),
  token_latency_ms: z.number().optional(),
});
const scenarioSchema = z.object({
  lanes: lanesSchema,
  job: z.array(placeSchema.and(workSchema)).min(1),
});
const soloSchema = workSchema.extend({ lanes: lanesSchema });

/** What a run's `config.toml` says of its machine and its jobs. */
export interface RunConfigFile {
  readonly lanes: number;
  /** Null in the files of old runs. */
  readonly sliceMs: number | null;
  readonly jobs: readonly JobConfig[];
}

/**
 * Reads a scenario, or the config of an only job, which is named "main" then.
 *
 * @throws when it is neither.
 */
export function readRunConfig(written: unknown): RunConfigFile {
  if (typeof written === 'object' && written !== null && 'job' in written) {
    const { lanes, job } = scenarioSchema.parse(written);
    return { ...machineOf(lanes), jobs: job.map((own) => jobConfig(own, own)) };
  }
  const own = soloSchema.parse(written);
  const lanes = Array.from({ length: own.lanes.count }, (_, lane) => lane);
  const place = { id: 'main', weight: 1, trainer_lane: 0, lanes };
  return { ...machineOf(own.lanes), jobs: [jobConfig(place, own)] };
}

function machineOf({ count, slice_budget_us: sliceUs }: z.infer<typeof lanesSchema>) {
  return { lanes: count, sliceMs: sliceUs === undefined ? null : sliceUs / 1000 };
}

function jobConfig(place: z.infer<typeof placeSchema>, work: z.infer<typeof workSchema>): JobConfig {
  const { rollout, algorithm, critic, engine, evaluation } = work;
  const hasCritic = algorithm.name === 'ppo';
  return {
    id: place.id,
    weight: place.weight,
    trainerLane: place.trainer_lane,
    lanes: place.lanes,
    tokenLatencyMs: place.token_latency_ms ?? null,
    model: work.model?.path ?? '',
    promptsPerStep: rollout.prompts_per_step,
    samplesPerPrompt: rollout.samples_per_prompt,
    tokensMax: rollout.max_tokens,
    stalenessVersionsMax: algorithm.staleness_versions_max,
    stages: stagesOfStep({
      hasCritic,
      recomputes: algorithm.old_log_probs === 'recomputed',
      hasReference: algorithm.kl_coefficient > 0,
    }),
    criticSteps: hasCritic ? critic.warmup_steps : 0,
    criticEpochs: critic.epochs,
    updatesPerStep: algorithm.updates_per_step,
    heldoutPrompts: evaluation.heldout_prompts,
    heldoutEverySteps: evaluation.every_steps,
    slots: engine.slots,
    batchRows: engine.batch_tokens,
  };
}

/** The stages of a job's step, in the order in which a live run asks for them. */
export function stagesOfStep(job: {
  readonly hasCritic: boolean;
  readonly recomputes: boolean;
  readonly hasReference: boolean;
}): ExclusiveStage[] {
  return [
    ...(job.hasCritic ? (['valueCompute'] as const) : []),
    ...(job.recomputes ? (['oldLogProbs'] as const) : []),
    ...(job.hasReference ? (['refLogProbs'] as const) : []),
    ...(job.hasCritic ? (['criticTraining'] as const) : []),
    'actorTraining',
  ];
}
