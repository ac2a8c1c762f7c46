import type { Job } from '../train/jobs.js';
import { Trainer } from '../train/trainer.js';
import { WARM_UP_STEP, warmUpBatch } from '../train/warm-up.js';
import { LearnerResident, type LearnerResidentParts } from './learner-resident.js';
import type { LaneRequest } from './messages.js';

/** A job's trainer on a lane. */
export class TrainerResident extends LearnerResident<Trainer> {
  constructor(
    parts: LearnerResidentParts,
    { config, layout, options, weight }: Extract<LaneRequest, { kind: 'createTrainer' }>,
  ) {
    super(parts, 'trainer', new Trainer(parts.kernels, config, layout, options), weight);
  }

  protected override smallestStep(): Job<unknown> {
    const { contextTokensMax, rowsMax } = this.model.options;
    const batch = warmUpBatch(Math.min(contextTokensMax, rowsMax));
    return this.model.step(batch, this.parts.cost, WARM_UP_STEP);
  }
}
