import { blocksFor } from '../kernels/kv-cache.js';
import { CRITIC_DEFAULTS, type PretrainTables, type RunTables } from './config-schema.js';

/** Two keys that do not go together. */
export interface Conflict {
  readonly keys: readonly [readonly PropertyKey[], readonly PropertyKey[]];
  /** Why, and what to do. */
  readonly why: string;
}

/** The first pair of keys of a run that are each in range and cannot be had together. */
export function runConflict(config: RunTables): Conflict | undefined {
  const { engine, rollout, optimizer, lanes, scheduler } = config;
  if (engine.batch_tokens < engine.slots) {
    return {
      keys: [
        ['engine', 'batch_tokens'],
        ['engine', 'slots'],
      ],
      why: 'a batch holds a row for every slot: raise engine.batch_tokens or lower engine.slots',
    };
  }
  if (engine.kv_blocks !== 'auto' && engine.kv_blocks < blocksFor(rollout.max_tokens)) {
    return {
      keys: [
        ['engine', 'kv_blocks'],
        ['rollout', 'max_tokens'],
      ],
      why: `one rollout alone takes ${blocksFor(rollout.max_tokens)} blocks: raise engine.kv_blocks or set it to "auto"`,
    };
  }
  if (optimizer.micro_batch_tokens <= rollout.max_tokens) {
    return {
      keys: [
        ['optimizer', 'micro_batch_tokens'],
        ['rollout', 'max_tokens'],
      ],
      why: 'a micro-batch holds at least one prompt and its completion: raise optimizer.micro_batch_tokens',
    };
  }
  if (lanes.in_flight_budget_us < lanes.slice_budget_us) {
    return {
      keys: [
        ['lanes', 'in_flight_budget_us'],
        ['lanes', 'slice_budget_us'],
      ],
      why: 'one slice must fit in flight: raise lanes.in_flight_budget_us or lower lanes.slice_budget_us',
    };
  }
  return algorithmConflict(config) ?? reservationConflict(scheduler.reserve, lanes.count);
}

function algorithmConflict(config: RunTables): Conflict | undefined {
  return config.algorithm.name === 'ppo' ? ppoConflict(config) : grpoConflict(config);
}

function grpoConflict({ rollout, critic }: RunTables): Conflict | undefined {
  const name = ['algorithm', 'name'];
  if (rollout.samples_per_prompt < 2) {
    return {
      keys: [['rollout', 'samples_per_prompt'], name],
      why: 'a group of one has nothing to be compared with: raise rollout.samples_per_prompt or set algorithm.name to "ppo"',
    };
  }
  const meant = Object.entries(critic).find(([key, value]) => Reflect.get(CRITIC_DEFAULTS, key) !== value);
  if (meant === undefined) return undefined;
  const [key] = meant;
  return {
    keys: [['critic', key], name],
    why: `only PPO has a critic: set algorithm.name to "ppo" or leave critic.${key} out`,
  };
}

function ppoConflict({ steps, algorithm, critic }: RunTables): Conflict | undefined {
  if (algorithm.advantage !== 'std') {
    return {
      keys: [
        ['algorithm', 'advantage'],
        ['algorithm', 'name'],
      ],
      why: 'PPO has its advantages from the critic, not from groups: leave algorithm.advantage out',
    };
  }
  if (critic.warmup_steps < steps) return undefined;
  return {
    keys: [['critic', 'warmup_steps'], ['steps']],
    why: 'the policy would never be trained: raise steps or lower critic.warmup_steps',
  };
}

function reservationConflict(
  reserve: RunTables['scheduler']['reserve'],
  lanes: number,
): Conflict | undefined {
  for (const [index, { lane, from_step, until_step }] of reserve.entries()) {
    const path = ['scheduler', 'reserve', index];
    if (lane >= lanes) {
      return {
        keys: [
          [...path, 'lane'],
          ['lanes', 'count'],
        ],
        why: 'lanes are numbered from 0: raise lanes.count or reserve another lane',
      };
    }
    if (until_step <= from_step) {
      return {
        keys: [
          [...path, 'until_step'],
          [...path, 'from_step'],
        ],
        why: 'until_step is the first step the lane is free again: put it after from_step',
      };
    }
  }
  return undefined;
}

/** As `runConflict`, for pre-training. */
export function pretrainConflict({ model, optimizer }: PretrainTables): Conflict | undefined {
  if (model.heads % model.kv_heads !== 0) {
    return {
      keys: [
        ['model', 'heads'],
        ['model', 'kv_heads'],
      ],
      why: 'every key and value head serves the same number of query heads: make heads divisible by kv_heads',
    };
  }
  if (optimizer.learning_rate_final > optimizer.learning_rate) {
    return {
      keys: [
        ['optimizer', 'learning_rate_final'],
        ['optimizer', 'learning_rate'],
      ],
      why: 'the learning rate falls along the cosine: lower optimizer.learning_rate_final',
    };
  }
  return undefined;
}
