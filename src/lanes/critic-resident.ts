import type { Program } from '../gpu/ops.js';
import { nowMs } from '../lib/clock.js';
import { Critic } from '../train/critic.js';
import type { Job } from '../train/jobs.js';
import { WARM_UP_CRITIC_STEP, warmUpValues } from '../train/warm-up.js';
import { LearnerResident, type LearnerResidentParts } from './learner-resident.js';
import type { JobRequest, LaneAnswers } from './messages.js';

type Request<K extends JobRequest['kind']> = Extract<JobRequest, { kind: K }>;

/** A job's critic on a lane: it gives values, and is fitted to what they should have been. */
export class CriticResident extends LearnerResident<Critic> {
  constructor(parts: LearnerResidentParts, { config, layout, options, weight }: Request<'createCritic'>) {
    super(parts, 'critic', new Critic(parts.kernels, config, layout, options), weight);
  }

  /** The value at each position with a weight; nothing changes. */
  async values({ requestedMs, sequences }: Request<'values'>): Promise<LaneAnswers['values']> {
    const stage = { stage: 'valueCompute', requestedMs, detectedMs: nowMs() };
    return { values: await this.ask(this.model.values(sequences, this.parts.cost), stage) };
  }

  /** One optimizer step, and the state after it where it is to be committed. */
  train(request: Request<'trainCritic'>): Promise<LaneAnswers['trainCritic']> {
    const { requestedMs, sequences, options, commit = false } = request;
    const stage = { stage: 'criticTraining', requestedMs, detectedMs: nowMs() };
    return this.orFail(async () => {
      const ending = { handOver: nothing, exports: commit ? 'state' : 'nothing' } as const;
      const job = this.model.stepAndExport(sequences, this.parts.cost, options, ending);
      const { result, state } = await this.ask(job, stage);
      return { ...result, state };
    });
  }

  protected override smallestStep(): Job<unknown> {
    const { contextTokensMax, rowsMax } = this.model.options;
    const batch = warmUpValues(Math.min(contextTokensMax, rowsMax));
    return this.model.step(batch, this.parts.cost, WARM_UP_CRITIC_STEP);
  }
}

function* nothing(): Program {
  // Nobody generates with a critic.
}
