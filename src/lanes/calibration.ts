import type { DispatchOp, Program } from '../gpu/ops.js';
import { UserError } from '../lib/errors.js';
import type { CostModel } from './cost-model.js';

/** A kernel is known after two timings; a few more rounds make up for slices that could not be timed. */
const ROUNDS_MAX = 6;
/** A busy host makes anything look slow: nothing is refused before its fastest of so many more timings is too long. */
const DOUBTS_MAX = 24;

export interface CalibrationParts {
  /** The smallest pieces of a resident's work, cut as the cost model says. */
  readonly make: () => Program;
  /** Resolves when the device is done with the program and its timings are in. */
  readonly run: (program: Program) => Promise<void>;
  readonly cost: CostModel;
  readonly sliceUs: number;
}

/**
 * Runs the smallest pieces of a resident's work until each kernel has been timed: that compiles the kernels before
 * anybody waits for them, and teaches the cost model.
 *
 * @throws UserError when one of them takes longer than a slice even at its fastest: no cutting can keep such a budget
 */
export async function calibrate({ make, run, cost, sliceUs }: CalibrationParts): Promise<void> {
  let ops: DispatchOp[] = [];
  let isNew = true;
  const watched = function* (): Program {
    for (const op of make()) {
      if (op.kind === 'dispatch') ops.push(op);
      isNew ||= op.kind === 'dispatch' && cost.isNew(op);
      yield op;
    }
  };
  let tooLong: DispatchOp | undefined;
  for (let round = 0; round < ROUNDS_MAX + DOUBTS_MAX; round++) {
    ops = [];
    isNew = false;
    await run(watched());
    tooLong = ops.find((op) => cost.fastestUs(op) > sliceUs);
    if (tooLong === undefined && (!isNew || round >= ROUNDS_MAX)) return;
    if (tooLong !== undefined) cost.timeAgain(tooLong);
  }
  if (tooLong === undefined) return;
  const us = cost.fastestUs(tooLong);
  throw new UserError(
    `lanes.slice_budget_us = ${sliceUs}: the smallest dispatch of ${tooLong.kernel} takes ${Math.ceil(us)} µs on this adapter and cannot be cut further: set it to at least ${Math.ceil(1.5 * us)}`,
  );
}
