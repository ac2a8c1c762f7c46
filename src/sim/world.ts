import type { Scheduler } from '../scheduler/scheduler.js';
import type { SimClock } from './clock.js';
import type { CostModel } from './cost-model.js';
import type { Desk } from './desk.js';
import type { SimRecords } from './records.js';
import type { SimFaults } from './scenario.js';

/** What the parts of a simulation share. */
export interface World {
  readonly seed: number;
  readonly clock: SimClock;
  readonly costs: CostModel;
  readonly faults: SimFaults;
  readonly scheduler: Scheduler;
  readonly desk: Desk;
  readonly records: SimRecords;
}
