import type { ExclusiveStage } from '../scheduler/stages.js';
import { type CostModel, linear } from './cost-model.js';
import type { SimJobSpec } from './scenario.js';

/** What of a job its stages' times depend on. */
type StagedJob = Pick<
  SimJobSpec,
  'stages' | 'stageCosts' | 'computeScale' | 'weightBytes' | 'updatesPerStep' | 'criticEpochs' | 'criticSteps'
>;

/** The stages of that step, in their order: while only the critic is trained, none of the policy's. */
export function stagesOf(
  { stages, criticSteps = 0 }: Pick<StagedJob, 'stages' | 'criticSteps'>,
  step: number,
): readonly ExclusiveStage[] {
  if (step > criticSteps) return stages;
  return stages.filter((stage) => stage === 'valueCompute' || stage === 'criticTraining');
}

/**
 * What a stage takes on a lane of speed 1, in ms, publishing included. Every update pays the constant part of a gradient
 * step; the critic takes all updates again in every epoch.
 *
 * @param amount tokens of prompts and completions; of `init`, bytes of weights
 */
export function stageMs(costs: CostModel, job: StagedJob, stage: ExclusiveStage, amount: number): number {
  const own = job.stageCosts?.[stage];
  if (own !== undefined) return linear(own, amount);
  if (stage === 'init') return linear(costs.init, amount);
  const { computeScale, weightBytes, updatesPerStep = 1, criticEpochs = 1 } = job;
  const gradientMs = costs.train.ms * updatesPerStep + costs.train.msPerUnit * amount;
  if (stage === 'actorTraining') return gradientMs * computeScale + linear(costs.publish, weightBytes);
  if (stage === 'criticTraining') return gradientMs * criticEpochs * computeScale;
  return linear(costs.score, amount) * computeScale;
}
