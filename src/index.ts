/**
 * Offbeat as a library: the commands as functions, and the types that task modules and scheduling policies are
 * written against. Nothing inside imports this file.
 */
export { UserError } from './lib/errors.js';

export {
  formatConfig,
  resolveConfig,
  resolvePretrainConfig,
  type ConfigInput,
  type PretrainConfig,
  type RunConfig,
} from './run/config.js';
export { formatScenario, loadScenario, type Scenario, type ScenarioJob } from './run/scenario.js';
export { runJob, type RunOptions } from './run/runner.js';
export { pretrain, type PretrainOptions, type PretrainResult } from './run/pretrain.js';
export { generate } from './run/generate.js';
export type { GenerateInput } from './run/generate-options.js';
export type { Completion, GenerationEvents } from './run/generation.js';
export { diagnose, type Diagnosis } from './gpu/diagnose.js';
export type { Summary } from './telemetry/summary.js';

/** For task modules. */
export type {
  Action,
  Environment,
  EnvironmentContext,
  EnvironmentFactory,
  Episode,
  Example,
  FinishReason,
  Json,
  ResetResult,
  Reward,
  RewardFunction,
  Split,
  StepResult,
  Task,
  Turn,
} from './tasks/task.js';

/** For scheduling policies. */
export type { Plan, Policy, PolicyDefinition } from './scheduler/plan.js';
export { Draft, type Resident, type Room } from './scheduler/draft.js';
export type {
  Demand,
  EngineState,
  JobState,
  LaneState,
  Snapshot,
  StageGrant,
  StageRequest,
} from './scheduler/state.js';
export { STAGES, type Stage } from './scheduler/stages.js';

/** For checkpoints. */
export { loadCheckpoint, loadWeights, saveCheckpoint } from './model/checkpoint.js';
export type { ModelConfig } from './model/config.js';
export {
  paramLayout,
  tensorView,
  findTensor,
  type Buckets,
  type ParamLayout,
  type ParamTensor,
} from './model/layout.js';
export { Tokenizer } from './model/tokenizer.js';
