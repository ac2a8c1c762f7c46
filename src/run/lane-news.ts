import type { Logger } from 'pino';
import { secondsText } from '../telemetry/format.js';
import type { Progress } from '../telemetry/progress.js';
import type { Conductor } from './conductor.js';
import type { DurableTrainer } from './durable-trainer.js';
import { TRAINER_LANE } from './fleet.js';

export interface LaneNewsParts {
  readonly conductor: Conductor;
  readonly trainer: DurableTrainer;
  readonly logger: Logger;
  readonly progress: Progress;
}

/** Lanes that are lost and come back: passed on to those whom it concerns, and told to the user in one line. */
export class LaneNews {
  /** What became of the lanes that are being replaced, in words. */
  readonly #lost = new Map<number, { readonly reason: string; readonly consequence: string }>();

  constructor(private readonly parts: LaneNewsParts) {}

  lost(lane: number, error: Error): void {
    const { conductor, trainer, logger } = this.parts;
    const [reason = ''] = error.message.split('\n');
    const step = lane === TRAINER_LANE ? trainer.stepUnderWay : 0;
    const rollouts = conductor.laneLost(lane, reason);
    const consequences = [
      ...(step > 0 ? [`step ${step} is taken again`] : []),
      ...(rollouts > 0 ? [`${rollouts} rollouts go on from their last token`] : []),
    ];
    this.#lost.set(lane, { reason, consequence: consequences.map((text) => `; ${text}`).join('') });
    logger.warn({ lane, step: step > 0 ? step : undefined, rollouts }, `lane lost: ${error.message}`);
  }

  rebuilt(lane: number, seconds: number): void {
    const { conductor, logger, progress } = this.parts;
    const { reason, consequence } = this.#lost.get(lane) ?? { reason: 'unknown', consequence: '' };
    this.#lost.delete(lane);
    conductor.laneReady(lane);
    logger.info({ lane, seconds }, 'lane rebuilt');
    progress.note(`lane ${lane} was lost (${reason}): rebuilt in ${secondsText(seconds)}${consequence}`);
  }
}
