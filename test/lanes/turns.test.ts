import { describe, expect, it } from 'vitest';
import type { Program } from '#src/gpu/ops.js';
import { CostModel } from '#src/lanes/cost-model.js';
import type { Entry } from '#src/lanes/entry.js';
import { GenerationFloor } from '#src/lanes/generation-floor.js';
import type { Resident } from '#src/lanes/resident.js';
import { Turns } from '#src/lanes/turns.js';
import { assert, at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { seeds } from '../helpers/seeds.js';

/** A resident that has work as long as it says so. */
class Worker implements Resident {
  hasWork = true;
  /** Device time it got. */
  us = 0;

  constructor(
    readonly job: string,
    readonly weight: number,
    readonly kind: 'engine' | 'trainer' = 'engine',
    readonly priority = 6,
  ) {}

  next(): Program | null {
    return this.hasWork ? endless() : null;
  }
}

function* endless(): Program {
  for (;;) yield { kind: 'submitted', call: () => undefined };
}

function turnsOf(workers: readonly Worker[]): Turns {
  const turns = new Turns(new CostModel(1000), new GenerationFloor(0, 0));
  for (const worker of workers) turns.add(worker);
  return turns;
}

/** The next slice, of whomever's turn it is. */
function give(turns: Turns, us: number): Worker {
  const entry: Entry | null = turns.next(0);
  assert(entry?.resident instanceof Worker, 'nobody is next');
  turns.ran(entry, us);
  entry.resident.us += us;
  // A program half done is no reason to go on with it.
  if (!entry.resident.hasWork) entry.abandon();
  return entry.resident;
}

const SLICE_US_MAX = 500;

describe('equals', () => {
  it.each(seeds())(
    'get device time by weight, none ever behind by more than a slice of each, seed %i',
    (seed) => {
      const random = new Random(seed).fork('turns');
      const workers = Array.from(
        { length: random.int(2, 5) },
        (_, i) => new Worker(`job ${i}`, random.int(1, 7)),
      );
      const turns = turnsOf(workers);
      let before = workers.map(() => 0);
      for (let slice = 0; slice < 3000; slice++) {
        // Over any stretch of time, wherever it begins.
        if (random.uniform() < 0.01) before = workers.map(({ us }) => us);
        give(turns, random.pick([20, random.int(1, SLICE_US_MAX), SLICE_US_MAX]));
        workers.forEach((a, i) => {
          const [b, j] = [at(workers, (i + 1) % workers.length), (i + 1) % workers.length];
          const apart = Math.abs((a.us - at(before, i)) / a.weight - (b.us - at(before, j)) / b.weight);
          // Theorem 1 of the paper.
          const most = SLICE_US_MAX / a.weight + SLICE_US_MAX / b.weight;
          expect(apart, `seed ${seed}, slice ${slice}, ${a.job} and ${b.job}`).toBeLessThanOrEqual(
            most + 1e-6,
          );
        });
      }
    },
  );

  it('save nothing up while they have no work', () => {
    const [idle, busy] = [new Worker('idle', 1), new Worker('busy', 1)];
    const turns = turnsOf([idle, busy]);
    idle.hasWork = false;
    for (let slice = 0; slice < 1000; slice++) expect(give(turns, 100)).toBe(busy);
    idle.hasWork = true;
    const got = Array.from({ length: 20 }, () => give(turns, 100));
    expect(Math.abs(got.filter((each) => each === idle).length - 10)).toBeLessThanOrEqual(1);
  });

  it('begin where the others are when they come late', () => {
    const old = new Worker('old', 2);
    const turns = turnsOf([old]);
    for (let slice = 0; slice < 1000; slice++) give(turns, 100);
    const late = new Worker('late', 1);
    turns.add(late);
    const got = Array.from({ length: 30 }, () => give(turns, 100));
    expect(Math.abs(got.filter((each) => each === late).length - 10)).toBeLessThanOrEqual(1);
  });
});

describe('equals whose turns are even', () => {
  it('alternate strictly, whatever their weights and slices, and from the first on', () => {
    const workers = [new Worker('a', 7), new Worker('b', 1), new Worker('c', 0.1)];
    const turns = turnsOf(workers);
    for (let slice = 0; slice < 100; slice++) give(turns, 400);
    turns.setEven(true);
    const random = new Random(3);
    const got = Array.from({ length: 300 }, () => give(turns, random.int(1, SLICE_US_MAX)));
    got.slice(3).forEach((worker, i) => expect(worker, `slice ${i + 3}`).toBe(got[i]));
    expect(new Set(got.slice(0, 3)).size).toBe(3);
    turns.setEven(false);
    const us = workers.map((worker) => worker.us);
    for (let slice = 0; slice < 810; slice++) give(turns, 100);
    expect((at(workers, 0).us - at(us, 0)) / (at(workers, 1).us - at(us, 1))).toBeCloseTo(7, 0);
  });
});

describe('the more urgent', () => {
  it('go first however much they had, and trainers share among themselves', () => {
    const engines = [new Worker('a', 1), new Worker('b', 1)];
    const trainers = [new Worker('a', 3, 'trainer', 1), new Worker('b', 1, 'trainer', 1)];
    const turns = turnsOf([...engines, ...trainers]);
    for (let slice = 0; slice < 400; slice++) expect(give(turns, 100).kind).toBe('trainer');
    expect(at(trainers, 0).us / at(trainers, 1).us).toBeCloseTo(3, 1);
    for (const trainer of trainers) trainer.hasWork = false;
    for (const entry of turns.entries) if (entry.resident.kind === 'trainer') entry.abandon();
    for (let slice = 0; slice < 10; slice++) give(turns, 100);
    expect(engines.map(({ us }) => us)).toEqual([500, 500]);
  });

  it('are waited for by each job whose engine has work, and by no other', () => {
    const floor = new GenerationFloor(0, 0);
    const turns = new Turns(new CostModel(1000), floor);
    const workers = [new Worker('a', 1), new Worker('b', 1), new Worker('c', 1, 'trainer', 1)];
    for (const worker of workers) turns.add(worker);
    turns.next(0);
    at(workers, 1).hasWork = false;
    turns.next(1500);
    at(workers, 2).hasWork = false;
    for (const entry of turns.entries) entry.abandon();
    turns.next(2500);
    expect(floor.take()).toEqual([
      { lane: 0, job: 'b', fromMs: 0, toMs: 1500 },
      { lane: 0, job: 'a', fromMs: 0, toMs: 2500 },
    ]);
  });

  it('make generation yield, and an engine yields even where there is nobody yet', () => {
    const [engine, trainer] = [new Worker('a', 1), new Worker('a', 1, 'trainer', 1)];
    const turns = turnsOf([engine]);
    expect(turns.yields(engine)).toBe(true);
    turns.add(trainer);
    expect([turns.yields(engine), turns.yields(trainer)]).toEqual([true, false]);
    turns.add(new Worker('b', 1, 'trainer', 0));
    expect(turns.yields(trainer)).toBe(true);
  });
});
