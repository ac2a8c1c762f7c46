import type { LaneFault } from '#src/lanes/faults.js';
import type { FaultScript } from './soak-draw.js';

/**
 * Gives lanes their faults and notes which struck: a lane is opened again only when the one before it is gone, and it
 * may only go of what the script has for it.
 */
export class Deaths {
  readonly #struck: LaneFault[] = [];
  readonly #unplanned: string[] = [];

  constructor(private readonly script: FaultScript) {}

  /** What a run asks for as it opens a lane. */
  readonly faultsOf = (lane: number, epoch: number): readonly LaneFault[] => {
    const plan = this.script[lane] ?? [];
    if (epoch > 0) this.#died(lane, epoch - 1);
    const fault = plan[epoch];
    return fault === undefined ? [] : [fault];
  };

  /** In the order in which lanes were opened again. Those whom nobody missed, at the run's very end, are not here. */
  get struck(): readonly LaneFault[] {
    return this.#struck;
  }

  /** Lanes that died of nothing they were told to. */
  get unplanned(): readonly string[] {
    return this.#unplanned;
  }

  #died(lane: number, epoch: number): void {
    const fault = this.script[lane]?.[epoch];
    if (fault === undefined) this.#unplanned.push(`lane ${lane} died of itself after ${epoch} others`);
    else this.#struck.push(fault);
  }
}
