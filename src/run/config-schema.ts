import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { POLICIES } from '../scheduler/policies/index.js';
import {
  evenNumber,
  numberAbove,
  numberBelow,
  numberFromTo,
  oneOf,
  plainValue,
  samplingFilters,
  section,
  seed,
  TEMPERATURE_MAX,
  text,
  tokenId,
  TOKENS_MAX,
  trueOrFalse,
  wholeNumber,
} from './config-fields.js';

/** The model that comes with Offbeat. */
const SHIPPED_MODEL = fileURLToPath(new URL('../../models/arithmetic-tiny', import.meta.url));

const STEPS_MAX = 1_000_000;
/** Row tables are dispatched with one row a workgroup, of which a device takes so many. */
const ROWS_MAX = 65_535;
const DAY_MS = 86_400_000;
export const LANES_MAX = 16;

const policyNames = [...POLICIES.keys()];
const policyMust = policyNames.map((name) => `"${name}"`).join(' or ');

const task = section({
  /** A built-in name, or the path of a module such as "./my-task.js". */
  name: text().default('arithmetic'),
  /** Checked by the task itself. */
  options: z.record(z.string(), plainValue(), 'a table').default({}),
});

const optimizerFields = {
  beta1: numberBelow(0, 1).default(0.9),
  beta2: numberBelow(0, 1).default(0.99),
  epsilon: numberAbove(0, 1).default(1e-8),
  weight_decay: numberFromTo(0, 10).default(0.01),
  /** Larger gradients are scaled down to this global norm; a huge one never clips. */
  grad_norm_max: numberAbove(0, 1e9).default(1),
  warmup_steps: wholeNumber(0, STEPS_MAX).default(0),
  micro_batch_tokens: wholeNumber(1, ROWS_MAX).default(2048),
};

const rollout = section({
  prompts_per_step: wholeNumber(1, 4096).default(16),
  /** In GRPO a group of one has nothing to be compared with, and would teach nothing. */
  samples_per_prompt: wholeNumber(1, 1024).default(8),
  /** Sampled in one rollout, all its turns together. */
  max_tokens: wholeNumber(1, TOKENS_MAX).default(32),
  /** Of a task of several turns: turns of one rollout at most, whatever its environment says. */
  turns_max: wholeNumber(1, 10_000).default(16),
  /** Sampled in one turn at most; 0 lets a turn take all that `max_tokens` leaves. */
  turn_tokens_max: wholeNumber(0, TOKENS_MAX).default(0),
  /** Prompt, observations and sampled tokens of one rollout; 0 takes what the model's context and a micro-batch hold. */
  context_tokens_max: wholeNumber(0, TOKENS_MAX).default(0),
  temperature: numberAbove(0, TEMPERATURE_MAX).default(1),
  top_k: samplingFilters.top_k.default(0),
  top_p: samplingFilters.top_p.default(1),
  min_p: samplingFilters.min_p.default(0),
  stop_token_ids: z
    .array(tokenId, 'a list of token ids')
    .max(15, 'a list of at most 15 token ids')
    .default([]),
});

const engine = section({
  /** Sequences that run at once on one lane. */
  slots: wholeNumber(1, 4096).default(128),
  /** Rows of one ragged batch: a decode row for each slot, the rest prefill. */
  batch_tokens: wholeNumber(1, ROWS_MAX).default(512),
  /** Blocks of 16 tokens in the cache of one lane; "auto" has room for every slot. */
  kv_blocks: z
    .union(
      [
        z.literal('auto'),
        z
          .int()
          .min(1)
          .max(2 ** 20),
      ],
      `"auto" or a whole number from 1 to ${2 ** 20}`,
    )
    .default('auto'),
  /** Steps submitted before the first one's tokens must be back. */
  steps_ahead: wholeNumber(1, 64).default(4),
});

const algorithm = section({
  /** `grpo` compares the rollouts of a prompt with each other, `ppo` each token with what a critic expected. */
  name: oneOf('grpo', 'ppo').default('grpo'),
  /** The importance ratio is clipped to [1 − clip_low, 1 + clip_high]. */
  clip_low: numberFromTo(0, 1).default(0.2),
  clip_high: numberFromTo(0, 100).default(0.28),
  /** Of the KL to the model the run began with; 0 keeps no reference. */
  kl_coefficient: numberFromTo(0, 100).default(0),
  advantage: oneOf('std', 'mean').default('std'),
  loss_aggregation: oneOf('token', 'sequence', 'constant').default('token'),
  /** How many versions behind the newest a rollout's oldest token may be when it is trained on. */
  staleness_versions_max: wholeNumber(0, 64).default(1),
  updates_per_step: wholeNumber(1, 64).default(1),
  /** Where the ratio's denominator comes from: the log-probabilities recorded while sampling, or computed anew. */
  old_log_probs: oneOf('recorded', 'recomputed').default('recorded'),
  /** Of `ppo`: what a reward is worth a token earlier. */
  gamma: numberFromTo(0, 1).default(1),
  /** Of `ppo`: how far advantages trust rewards over the critic's values; 1 looks at rewards only. */
  gae_lambda: numberFromTo(0, 1).default(1),
});

/** Of `ppo`: what gives a value to every token. What is not here it has in common with the policy: see `optimizer`. */
const critic = section({
  /** Constant: `optimizer.warmup_steps` is the policy's. */
  learning_rate: numberFromTo(0, 1).default(1e-3),
  /** How far a value may move from what it was when the batch was made before its loss stops pulling it on. */
  cliprange_value: numberAbove(0, 1e9).default(0.5),
  /** First steps in which the critic is trained alone. */
  warmup_steps: wholeNumber(0, STEPS_MAX).default(0),
  /** How often the critic goes over each step's batch, in as many updates as the policy. */
  epochs: wholeNumber(1, 64).default(1),
});

/** The critic's keys as they are when nobody names them. */
export const CRITIC_DEFAULTS = critic.parse({});

const reservation = section({
  /** Lane 0 trains and cannot be reserved. */
  lane: wholeNumber(1, LANES_MAX - 1),
  from_step: wholeNumber(1, STEPS_MAX),
  /** The first step it is free again. */
  until_step: wholeNumber(1, STEPS_MAX + 1),
});

/** `offbeat run`, key by key as its TOML file writes it. Everything has a default: the shipped example. */
export const runSchema = z.strictObject({
  seed: seed.default(1),
  steps: wholeNumber(1, STEPS_MAX).default(40),
  model: section({
    /** A Hugging Face checkpoint folder. */
    path: text().min(1, 'the path of a checkpoint folder').default(SHIPPED_MODEL),
  }).prefault({}),
  task: task.prefault({}),
  rollout: rollout.prefault({}),
  engine: engine.prefault({}),
  algorithm: algorithm.prefault({}),
  critic: critic.prefault({}),
  optimizer: section({ learning_rate: numberFromTo(0, 1).default(3e-4), ...optimizerFields }).prefault({}),
  evaluation: section({
    heldout_prompts: wholeNumber(0, 65_536).default(128),
    /** 0 evaluates only before and after the run. */
    every_steps: wholeNumber(0, STEPS_MAX).default(0),
    /** 0 is greedy. */
    temperature: numberFromTo(0, TEMPERATURE_MAX).default(1),
  }).prefault({}),
  lanes: section({
    count: wholeNumber(1, LANES_MAX).default(1),
    /** Only adapters whose name contains this text; "" takes the fastest. */
    adapter: text().default(''),
    /** Device memory of one lane that engines and trainers may fill by plan, in MiB; 0 when nobody counts. */
    memory_mib: wholeNumber(0, 2 ** 24).default(0),
    /**
     * Predicted µs of one slice at most. The default keeps 95 % of generation's throughput where a submission costs
     * 0.1 ms, as on a software adapter; a GPU does with much less: `offbeat bench preempt` shows with how much.
     */
    slice_budget_us: wholeNumber(50, 10_000_000).default(4000),
    /** Predicted µs submitted and unfinished at most. */
    in_flight_budget_us: wholeNumber(50, 10_000_000).default(8000),
    /** Share of the device that generation gets even while training never rests. */
    generation_floor: numberBelow(0, 0.9).default(0),
    /** What becomes of the caches of generation while training holds the device. */
    kv_on_preempt: oneOf('held', 'spilled', 'dropped', 'pressure').default('held'),
    /** Blocks that "pressure" lets stay on the device. */
    kv_blocks_while_training: wholeNumber(0, 2 ** 20).default(0),
    /** Training says a moment ahead that it will come, and generation goes shallow. */
    hints: trueOrFalse().default(true),
    /**
     * Bring weights and optimizer to the host after every step (three times the weights), so that a run goes on when
     * the device that trains is lost. Without it such a run ends.
     */
    recover: trueOrFalse().default(true),
    /** How many lanes that were lost are opened again in one run, before it ends with the reason. */
    rebuilds_max: wholeNumber(0, 1_000_000).default(3),
  }).prefault({}),
  scheduler: section({
    policy: z
      .string(policyMust)
      .refine((name) => POLICIES.has(name), policyMust)
      .default('priority'),
    /** Lanes kept out of use for a part of the run. */
    reserve: z.array(reservation, 'a list of tables').max(256, 'a list of at most 256 tables').default([]),
  }).prefault({}),
  reward: section({
    workers: wholeNumber(1, 64).default(1),
    timeout_ms: wholeNumber(1, DAY_MS).default(2000),
  }).prefault({}),
  /** Tasks of several turns; their environments run in the workers that also score. */
  environment: section({
    /** For one reset or step, from when a worker begins on it; a wait that the environment asks for is not counted. */
    timeout_ms: wholeNumber(1, DAY_MS).default(30_000),
    /** Longest wait that an environment may ask for in one turn. */
    wait_ms_max: wholeNumber(1, DAY_MS).default(600_000),
  }).prefault({}),
  output: section({
    /** Save the trained model in the run folder's `model/`. */
    checkpoint: trueOrFalse().default(true),
  }).prefault({}),
});

const LENGTH_MAX = 65_536;

/** `offbeat pretrain`, key by key. The shape of the model has no defaults: it is what the file is for. */
export const pretrainSchema = z.strictObject({
  seed: seed.default(1),
  steps: wholeNumber(1, STEPS_MAX),
  model: section({
    hidden_size: wholeNumber(1, LENGTH_MAX),
    intermediate_size: wholeNumber(1, LENGTH_MAX),
    layers: wholeNumber(1, 1024),
    heads: wholeNumber(1, 1024),
    /** Divides `heads`; each key and value head serves heads / kv_heads query heads. */
    kv_heads: wholeNumber(1, 1024),
    /** Even: rotary positions turn pairs of elements. */
    head_dim: evenNumber(2, 1024),
    context_tokens: wholeNumber(1, TOKENS_MAX),
    rope_theta: numberAbove(0, 1e12).default(10_000),
    rms_norm_eps: numberAbove(0, 1).default(1e-5),
    tie_word_embeddings: trueOrFalse().default(true),
  }),
  task: task.prefault({}),
  corpus: section({
    /** Probability that a written digit or word of an example is wrong. */
    sloppiness: numberFromTo(0, 1).default(0),
  }).prefault({}),
  optimizer: section({
    learning_rate: numberFromTo(0, 1),
    ...optimizerFields,
    /** After the warm-up: stay, or fall along half a cosine. */
    decay: oneOf('cosine', 'constant').default('cosine'),
    /** Where the cosine ends. */
    learning_rate_final: numberFromTo(0, 1).default(0),
  }),
  batch: section({
    /** Examples in one optimizer step. */
    sequences: wholeNumber(1, 65_536).default(64),
  }).prefault({}),
});

export type RunTables = z.output<typeof runSchema>;
export type PretrainTables = z.output<typeof pretrainSchema>;
