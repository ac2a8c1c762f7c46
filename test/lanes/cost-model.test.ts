import { describe, expect, it } from 'vitest';
import type { DispatchOp, Op } from '#src/gpu/ops.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { Random } from '#src/lib/prng.js';

const SLICE_US = 2000;

/** What the model looks at; the rest of a dispatch never matters to it. */
function dispatch(kernel: string, work: number): DispatchOp {
  return { kind: 'dispatch', kernel, work } as DispatchOp;
}

/** A machine to learn: a fixed part and a rate for each kernel, noise of a few per cent, and a speed that drifts. */
class Machine {
  slowness = 1;
  readonly #kernels = new Map<string, { fixedUs: number; workPerUs: number }>();

  constructor(
    readonly random: Random,
    readonly noise = 0.05,
  ) {
    for (const name of ['matmul', 'attention', 'norm', 'sample']) {
      this.#kernels.set(name, { fixedUs: random.int(2, 30), workPerUs: 10 ** (1 + 4 * random.uniform()) });
    }
  }

  get kernels(): string[] {
    return [...this.#kernels.keys()];
  }

  trueUs({ kernel, work }: DispatchOp): number {
    const { fixedUs, workPerUs } = this.#kernels.get(kernel) ?? { fixedUs: NaN, workPerUs: NaN };
    return this.slowness * (fixedUs + work / workPerUs);
  }

  measuredUs(op: DispatchOp): number {
    return this.trueUs(op) * (1 + this.noise * this.random.normal());
  }

  randomOp(): DispatchOp {
    return dispatch(this.random.pick(this.kernels), 2 ** (8 + 16 * this.random.uniform()));
  }

  /** A slice of a few dispatches as an executor reports it; now and then each dispatch is timed instead. */
  runSlice(cost: CostModel, timed: boolean): void {
    const ops = Array.from({ length: this.random.int(3, 12) }, () => this.randomOp());
    if (timed || ops.some((op) => cost.isNew(op))) {
      for (const op of ops) cost.observe(op, this.measuredUs(op));
      return;
    }
    const predictedUs = ops.reduce((sum, op) => sum + cost.predictUs(op), 0);
    cost.observeSlice(
      predictedUs,
      ops.reduce((sum, op) => sum + this.measuredUs(op), 0),
    );
  }

  /** Predicted over true time of a slice of many random dispatches. */
  bias(cost: CostModel): number {
    const ops = Array.from({ length: 300 }, () => this.randomOp());
    const sum = (us: (op: DispatchOp) => number): number => ops.reduce((total, op) => total + us(op), 0);
    return sum((op) => cost.predictUs(op)) / sum((op) => this.trueUs(op));
  }
}

function learnt(seed: number, slices = 600): { cost: CostModel; machine: Machine } {
  const machine = new Machine(new Random(seed));
  const cost = new CostModel(SLICE_US);
  for (let slice = 0; slice < slices; slice++) machine.runSlice(cost, slice % 16 === 0);
  return { cost, machine };
}

describe('CostModel', () => {
  it('converges to the true cost of every kernel and size it sees', () => {
    for (let seed = 800; seed < 810; seed++) {
      const { cost, machine } = learnt(seed);
      expect(machine.bias(cost), `seed ${seed}`).toBeGreaterThan(0.85);
      expect(machine.bias(cost), `seed ${seed}`).toBeLessThan(1.15);
      for (const kernel of machine.kernels) {
        // The sizes of one class lie up to a factor of two apart, and a class is one mean.
        for (const work of [2 ** 12, 1.5 * 2 ** 16, 2 ** 22]) {
          const op = dispatch(kernel, work);
          const ratio = cost.predictUs(op) / machine.trueUs(op);
          expect(ratio, `seed ${seed}: ${kernel} of ${work}`).toBeGreaterThan(0.6);
          expect(ratio, `seed ${seed}: ${kernel} of ${work}`).toBeLessThan(1.6);
        }
      }
    }
  });

  it.each([2, 0.5])('converges again within 20 slices when the machine turns %f times as slow', (factor) => {
    for (let seed = 820; seed < 830; seed++) {
      const { cost, machine } = learnt(seed);
      machine.slowness = factor;
      for (let slice = 0; slice < 20; slice++) machine.runSlice(cost, false);
      const bias = machine.bias(cost);
      expect(bias, `seed ${seed}`).toBeGreaterThan(0.8);
      expect(bias, `seed ${seed}`).toBeLessThan(1.25);
    }
  });

  it('is not led astray by one measurement of a thread that had to wait', () => {
    const { cost, machine } = learnt(840);
    const op = dispatch('matmul', 2 ** 16);
    const before = cost.predictUs(op);
    cost.observe(op, 100 * machine.trueUs(op));
    expect(cost.predictUs(op) / before).toBeLessThan(1.25);
    cost.observeSlice(1000, 100_000);
    expect(cost.predictUs(op) / before).toBeLessThan(2.1);
  });

  it('is not moved by slices that the host sees late, the next ones so much the earlier', () => {
    for (let seed = 870; seed < 880; seed++) {
      const { cost, machine } = learnt(seed);
      const ops = Array.from({ length: 40 }, () => machine.randomOp());
      const trueUs = ops.reduce((sum, op) => sum + machine.trueUs(op), 0);
      for (let i = 0; i < 400; i++) {
        const lateUs = 0.9 * trueUs * machine.random.uniform();
        for (const us of [trueUs + lateUs, trueUs - lateUs]) {
          const predictedUs = ops.reduce((sum, op) => sum + cost.predictUs(op), 0);
          cost.observeSlice(predictedUs, us);
        }
      }
      expect(machine.bias(cost), `seed ${seed}`).toBeGreaterThan(0.85);
      expect(machine.bias(cost), `seed ${seed}`).toBeLessThan(1.15);
    }
  });

  it('does not take the first timing of a kernel, which may include its compilation, for its cost', () => {
    const cost = new CostModel(SLICE_US);
    const op = dispatch('fresh', 1000);
    expect(cost.isNew(op)).toBe(true);
    cost.observe(op, 60_000);
    expect(cost.isNew(op)).toBe(true);
    cost.observe(op, 50);
    expect(cost.isNew(op)).toBe(false);
    expect(cost.predictUs(op)).toBe(50);
  });

  it('never predicts nothing for a dispatch, even where the clock is too coarse to see it', () => {
    const cost = new CostModel(SLICE_US);
    const op = dispatch('short', 10);
    for (let i = 0; i < 50; i++) cost.observe(op, 0);
    for (let i = 0; i < 50; i++) cost.observeSlice(100, 0);
    expect(cost.predictUs(op)).toBeGreaterThan(0);
    for (let i = 0; i < 50; i++) cost.observe(op, 500);
    for (let i = 0; i < 50; i++) cost.observeSlice(500, 500);
    expect(cost.predictUs(op)).toBeGreaterThan(100);
  });

  it('guesses sizes it has not seen from the nearest it has', () => {
    const cost = new CostModel(SLICE_US);
    for (let i = 0; i < 3; i++) cost.observe(dispatch('k', 2 ** 20), 1000);
    expect(cost.predictUs(dispatch('k', 2 ** 22))).toBe(4000);
    expect(cost.predictUs(dispatch('k', 2 ** 18))).toBe(250);
    expect(cost.predictUs(dispatch('k', 2 ** 4))).toBe(20);
  });

  it('cuts so that each piece is predicted to take at most half a slice', () => {
    for (let seed = 850; seed < 860; seed++) {
      const { cost, machine } = learnt(seed);
      for (let i = 0; i < 100; i++) {
        const kernel = machine.random.pick(machine.kernels);
        const work = 2 ** (8 + 22 * machine.random.uniform());
        const pieces = cost.pieces(kernel, work);
        const label = `seed ${seed}: ${kernel} of ${work} in ${pieces}`;
        expect(Number.isInteger(pieces) && pieces >= 1, label).toBe(true);
        expect(cost.predictUs(dispatch(kernel, work / pieces)), label).toBeLessThanOrEqual(SLICE_US / 2);
        if (pieces === 1) continue;
        // No more than needed, give or take the step in which it searches.
        const fewer = cost.predictUs(dispatch(kernel, work / Math.ceil(pieces / 2 - 1)));
        expect(fewer, label).toBeGreaterThan(SLICE_US / 2);
      }
    }
  });

  it('cuts for the slowest resident that is there, not for one that has gone', () => {
    const timed = (): CostModel => {
      const cost = new CostModel(SLICE_US);
      for (let i = 0; i < 2; i++) cost.observe(dispatch('k', 1000), 10 * SLICE_US);
      return cost;
    };
    const cost = timed();
    for (let i = 0; i < 40; i++) cost.observeSlice(100, 400, 'engine of slow');
    cost.observeSlice(100, 100, 'engine of quick');
    const both = cost.pieces('k', 1000);
    const slowUs = cost.predictUs(dispatch('k', 1000), 'engine of slow');
    cost.left('engine of slow');
    const quick = cost.pieces('k', 1000);
    expect(quick).toBeLessThan(both / 2);
    // It comes back as slow as it was.
    cost.joined('engine of slow');
    expect(cost.pieces('k', 1000)).toBe(both);
    expect(cost.predictUs(dispatch('k', 1000), 'engine of slow')).toBe(slowUs);
    cost.left('engine of slow');
    cost.left('engine of quick');
    expect(cost.pieces('k', 1000)).toBe(timed().pieces('k', 1000));
  });

  it('stops cutting where pieces get no shorter', () => {
    const cost = new CostModel(20);
    for (let i = 0; i < 3; i++) cost.observe(dispatch('k', 1000), 400);
    // A dispatch always costs its fixed part, which alone is more than half a slice here.
    expect(cost.pieces('k', 1000)).toBeLessThanOrEqual(64);
    expect(cost.pieces('k', 1)).toBe(1);
    expect(cost.pieces('unheard of', 1e9)).toBeLessThanOrEqual(65_536);
  });

  it('predicts copies, fills and host writes by their bytes, and host calls as nothing', () => {
    const cost = new CostModel(SLICE_US);
    const us = (op: Partial<Op>): number => cost.predictUs(op as Op);
    expect(us({ kind: 'copy', bytes: 4 * 2 ** 20 })).toBeGreaterThan(us({ kind: 'copy', bytes: 4 }));
    expect(us({ kind: 'clear', bytes: 4 * 2 ** 20 })).toBeGreaterThan(us({ kind: 'clear', bytes: 4 }));
    expect(us({ kind: 'write', data: new Uint32Array(1000) })).toBeGreaterThan(0);
    expect(us({ kind: 'submitted' })).toBe(0);
  });
});
