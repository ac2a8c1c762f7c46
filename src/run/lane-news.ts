import type { Logger } from 'pino';
import { secondsText } from '../telemetry/format.js';
import type { Progress } from '../telemetry/progress.js';
import type { Conductor } from './conductor.js';
import type { JobRun } from './job-run.js';

export interface LaneNewsParts {
  readonly conductor: Conductor;
  /** Those that are there. */
  readonly jobs: () => readonly JobRun[];
  readonly logger: Logger;
  readonly progress: Progress;
}

/** Lanes that are lost and come back: passed on to those whom it concerns, and told to the user in one line. */
export class LaneNews {
  /** What became of the lanes that are being replaced, in words. */
  readonly #lost = new Map<number, { readonly reason: string; readonly consequence: string }>();

  constructor(private readonly parts: LaneNewsParts) {}

  lost(lane: number, error: Error): void {
    const { conductor, jobs, logger } = this.parts;
    const [reason = ''] = error.message.split('\n');
    const here = jobs();
    const training = here.filter(
      ({ trainerLane, stepUnderWay, isOver }) => !isOver && trainerLane === lane && stepUnderWay > 0,
    );
    const rollouts = conductor.laneLost(lane, reason);
    const consequences = [
      ...training.map(({ id, stepUnderWay: step }) =>
        here.length > 1 ? `step ${step} of ${id} is taken again` : `step ${step} is taken again`,
      ),
      ...(rollouts > 0 ? [`${rollouts} rollouts go on from their last token`] : []),
    ];
    this.#lost.set(lane, { reason, consequence: consequences.map((text) => `; ${text}`).join('') });
    const step = training[0]?.stepUnderWay;
    logger.warn({ lane, step, rollouts }, `lane lost: ${error.message}`);
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
