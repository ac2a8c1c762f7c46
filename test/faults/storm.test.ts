import { expect, it } from 'vitest';
import type { Program } from '#src/gpu/ops.js';
import { laneSettings } from '#src/lanes/settings.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import { obeysLaw } from '#src/telemetry/records.js';
import { randomRequests } from '../engine/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { awkwardModel } from '../train/fixtures.js';
import { Copies, expectOrdered, gap, HandFed, intruders, ofGeneration, undisturbed } from './fixtures.js';
import { LoopKernel } from './loop-kernel.js';

const device = useGpu();
const PREEMPTIONS = 1000;
const GAP_MS_MAX = 0.5;
const SEQUENCES = 10;
const SHORT = laneSettings({ sliceUs: 200, inFlightUs: 400 });
const CALM = laneSettings({ sliceUs: 2000, inFlightUs: 4000 });

it.for(seeds())('a storm of 1,000 preemptions loses nothing, seed %i', async (seed, context) => {
  const random = new Random(seed).fork('storm');
  const model = awkwardModel(random, false);
  const requests = randomRequests(random, model, 16);
  const copies = new Copies(requests, await undisturbed(device, model, requests));
  const aborted = new Set<number>();
  const loop = await LoopKernel.calibrate(device.gpu);
  const fed = new HandFed(device, SHORT);
  const bytesBefore = device.gpu.bytesAllocated;
  const engine = await fed.load(model);
  const burst = function* (): Program {
    for (let dispatches = random.int(1, 3); dispatches > 0; dispatches--)
      yield loop.dispatch('urgent', random.pick([1, 20, 60]));
  };
  /** What may happen while the engine yields, or is kept from the device. */
  const meanwhile = [
    () => fed.add(copies.next()),
    () => {
      const id = random.int(0, copies.made - 1);
      aborted.add(id);
      engine.abort(id);
    },
    // While the urgent one has the device, this neither opens another preemption nor ends the one under way.
    () => void fed.preempt(burst()),
    () => fed.executor.hint(nowMs(), nowMs() + 1),
    () => fed.executor.wake(),
  ];
  const label = `seed ${seed}`;
  const beganMs = nowMs();
  const tokens: number[] = [];
  for (let i = 0; i < PREEMPTIONS; i++) {
    while (engine.sequenceCount < SEQUENCES) fed.add(copies.next());
    if (random.uniform() < 0.2) fed.executor.hint(nowMs() + random.uniform(), nowMs() + 2);
    await gap(GAP_MS_MAX * random.uniform());
    const done = fed.preemptToEnd(burst());
    if (random.uniform() < 0.3) random.pick(meanwhile)();
    if (random.uniform() < 0.1) await gap(0.1 * random.uniform());
    if (random.uniform() < 0.1) random.pick(meanwhile)();
    await done;
    if (i % (PREEMPTIONS / 2) === 0) tokens.push(fed.tokens);
  }
  tokens.push(fed.tokens);
  const tookMs = nowMs() - beganMs;
  fed.executor.configure(CALM);
  await fed.finish();
  const preemptions = fed.log.take(true);
  const { slices } = fed.executor.takeRecords();
  copies.check(fed.outcomes, aborted, label);
  await fed.stop();
  const obeyed = preemptions.filter(obeysLaw).length;
  await context.annotate(`${label}: ${JSON.stringify({ tookMs, obeyed, tokens, slices: slices.length })}`);
  expect(preemptions.length, label).toBe(fed.asked);
  expect(preemptions.length, label).toBeGreaterThanOrEqual(PREEMPTIONS);
  expect(tokens, `${label}: tokens as it went on`).toEqual([...new Set(tokens)]);
  expectOrdered(preemptions, label);
  expect(intruders(ofGeneration(slices), fed.spans), label).toEqual([]);
  expect(device.gpu.bytesAllocated, `${label}: bytes`).toBe(bytesBefore);
  loop.destroy();
});
