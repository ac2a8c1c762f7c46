import { at } from '../lib/assert.js';
import { Random, seedKey } from '../lib/prng.js';
import type { SimClock } from './clock.js';
import { draw } from './distribution.js';
import type { SimLane } from './lane.js';
import type { SimScenario } from './scenario.js';

const DAY_MS = 86_400_000;

/** Speeds of all lanes, the slow ones slowed. */
export function laneSpeeds({ lanes, faults, seed }: SimScenario): number[] {
  const random = new Random(seedKey(seed)).fork('slow lanes');
  const { share, factor } = faults?.slowLanes ?? { share: 0, factor: 1 };
  return lanes.map(({ speed }, lane) => (random.fork(lane).uniform() < share ? speed * factor : speed));
}

/** Sets the clock for every loss of a lane; which lanes and when depends on the seed alone. */
export function scheduleLosses(
  { faults, seed }: SimScenario,
  clock: SimClock,
  lanes: readonly SimLane[],
  lose: (lane: SimLane, returnMs: number) => void,
): void {
  for (const { lane, atMs, returnMs } of faults?.losses ?? []) {
    clock.after(atMs, () => lose(at(lanes, lane), returnMs));
  }
  const loss = faults?.laneLoss;
  if (loss === undefined || loss.perLaneDay <= 0) return;
  const randoms = new Random(seedKey(seed)).fork('lane loss');
  for (const lane of lanes) {
    const random = randoms.fork(lane.id);
    // A Poisson process: gaps are exponential.
    const next = (): void => {
      const gapMs = (-Math.log(1 - random.uniform()) * DAY_MS) / loss.perLaneDay;
      clock.after(gapMs, () => {
        lose(lane, draw(loss.returnMs, random));
        next();
      });
    };
    next();
  }
}
