import { expect, it } from 'vitest';
import { openGpu } from '#src/gpu/device.js';
import { Lane } from '#src/lanes/lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import { Outcomes, randomRequests, SMALL } from '../engine/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { ADAMW, awkwardModel, randomRollouts } from '../train/fixtures.js';
import {
  Copies,
  endedOf,
  expectOrdered,
  gap,
  inFlightUs,
  intruders,
  ofGeneration,
  spansOf,
  undisturbed,
} from './fixtures.js';

const device = useGpu();
const BUDGETS = { sliceUs: 400, inFlightUs: 800 };
const STALL_MS_MAX = 50;
/** Of the callbacks so many are late. */
const LATE_SHARE = 0.2;
const STALLS_WANTED = 30;
const SEQUENCES = 8;
const GAP_MS_MAX = 60;
/** Predicted times are sums of floats. */
const ROUNDING_US = 1e-6;
const TRAINER = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };

/** Holds this thread up for 0 to 50 ms again and again: timers and the device's answers, all that waits in it is late. */
class Stalls {
  readonly #asleep = new Int32Array(new SharedArrayBuffer(4));
  #nextMs = 0;
  #on = false;
  count = 0;

  constructor(private readonly random: Random) {}

  /** In the event loop, from now until `end`. */
  begin(): void {
    this.#on = true;
    const again = (): void => {
      if (!this.#on) return;
      if (nowMs() > this.#nextMs) this.stall();
      setImmediate(again);
    };
    again();
  }

  end(): void {
    this.#on = false;
  }

  stall(): void {
    this.count++;
    Atomics.wait(this.#asleep, 0, 0, STALL_MS_MAX * this.random.uniform());
    this.#nextMs = nowMs() + STALL_MS_MAX * this.random.uniform();
  }
}

it.for(seeds())('late timers and callbacks put nothing more in flight, seed %i', async (seed, context) => {
  const label = `seed ${seed}`;
  const random = new Random(seed).fork('jitter');
  const model = awkwardModel(random, true);
  const { config, layout, buckets: weights } = model;
  const requests = randomRequests(random, model, 12);
  const copies = new Copies(requests, await undisturbed(device, model, requests));
  const sequences = randomRollouts(random, model, [20, 30]);
  const stalls = new Stalls(random.fork('stalls'));
  const outcomes = new Outcomes();
  const gpu = await openGpu();
  const options = { lane: 0, settings: laneSettings(BUDGETS), doorbell: null };
  const lane = new Lane(gpu, options, (update) => {
    if (random.uniform() < LATE_SHARE) stalls.stall();
    outcomes.receive(update);
  });
  await lane.handle({
    kind: 'createTrainer',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: TRAINER,
    weights,
  });
  await lane.handle({
    kind: 'createEngine',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: SMALL,
    store: null,
  });
  await lane.handle({ kind: 'publish', job: 'job', version: 0, store: null });
  stalls.begin();
  for (;;) {
    const left = copies.made - endedOf(outcomes);
    if (left === 0 && stalls.count >= STALLS_WANTED) break;
    const wanted = stalls.count < STALLS_WANTED ? SEQUENCES - left : 0;
    await lane.handle({
      kind: 'add',
      job: 'job',
      sequences: Array.from({ length: wanted }, () => copies.next()),
    });
    await gap(GAP_MS_MAX * random.uniform());
    const stage = { requestedMs: nowMs(), stage: 'oldLogProbs', which: 'policy' as const, sequences };
    await lane.handle({ kind: 'score', job: 'job', ...stage });
  }
  stalls.end();
  const { preemptions, slices } = lane.takeRecords(true);
  await lane.handle({ kind: 'close' });
  await lane.running;
  copies.check(outcomes, new Set(), label);
  expectOrdered(preemptions, label);
  expect(intruders(ofGeneration(slices), spansOf(preemptions, slices)), label).toEqual([]);
  const inFlight = inFlightUs(slices);
  const told = { stalls: stalls.count, preemptions: preemptions.length, slices: slices.length };
  await context.annotate(`${label}: ${JSON.stringify({ ...told, inFlightUs: Math.max(...inFlight) })}`);
  expect(inFlight.length, `${label}: slices on top of others`).toBeGreaterThan(20);
  for (const us of inFlight) expect(us, label).toBeLessThanOrEqual(BUDGETS.inFlightUs + ROUNDING_US);
});
