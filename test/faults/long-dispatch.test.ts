import { expect, it } from 'vitest';
import type { Program } from '#src/gpu/ops.js';
import { laneSettings } from '#src/lanes/settings.js';
import { assert } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { obeysLaw, type PreemptionRecord, type SliceRecord } from '#src/telemetry/records.js';
import { useGpu } from '../helpers/gpu.js';
import { seeds } from '../helpers/seeds.js';
import { expectOrdered, gap, HandFed, inFlightUs, until } from './fixtures.js';
import { LoopKernel } from './loop-kernel.js';

const device = useGpu();
/** A slice holds one dispatch, so that it is known which one it was even where they are not timed one by one. */
const BUDGETS = { sliceUs: 250, inFlightUs: 2000 };
const SHORT_US = 200;
const LONG_US = 300_000;
const SLICES_TO_RECOVER = 20;
const PREEMPTIONS = 20;

/** Generation of short dispatches without end, with a long one among them when it is asked for. */
class Work {
  /** Name of the kernel that is to take long next; null for none. */
  injected: string | null = null;
  /** Called when that is on the device. */
  onInjected = (): void => undefined;
  stopped = false;

  constructor(
    private readonly loop: LoopKernel,
    /** What is run between long ones under the name that a long one will have. */
    private readonly alike: string | null,
  ) {}

  *program(): Program {
    for (let i = 0; !this.stopped; i++) {
      yield this.loop.dispatch('short', SHORT_US);
      if (this.alike !== null && i % 3 === 0) yield this.loop.dispatch(this.alike, SHORT_US / 2);
      if (this.injected === null) continue;
      yield this.loop.dispatch(this.injected, LONG_US);
      this.injected = null;
      yield { kind: 'submitted', call: () => this.onInjected() };
    }
  }
}

function* urgent(loop: LoopKernel): Program {
  yield loop.dispatch('urgent', SHORT_US);
}

/** Preempts at random moments and returns what became of it. */
async function preemptions(fed: HandFed, random: Random, loop: LoopKernel): Promise<PreemptionRecord[]> {
  for (let i = 0; i < PREEMPTIONS; i++) {
    await gap(4 * random.uniform());
    await fed.preemptToEnd(urgent(loop));
  }
  return fed.log.take(true);
}

const obeyed = (records: readonly PreemptionRecord[]): number => records.filter(obeysLaw).length;

const KINDS = ['never seen', 'always short so far'] as const;
const cases = seeds().flatMap((seed) => KINDS.map((kind) => ({ seed, kind })));

it.for(cases)(
  'a dispatch of 300 ms that was $kind is found out, seed $seed',
  async ({ seed, kind }, context) => {
    const label = `seed ${seed}, ${kind}`;
    const random = new Random(seed).fork(kind);
    const loop = await LoopKernel.calibrate(device.gpu);
    const fed = new HandFed(device, laneSettings(BUDGETS));
    const [kernel, alike] = kind === 'never seen' ? ['long', null] : ['fickle', 'fickle'];
    const work = new Work(loop, alike);
    const running = fed.run(work.program());
    await gap(50);
    const before = await preemptions(fed, random, loop);
    const expectedUs = (): number => fed.cost.predictUs(loop.dispatch(kernel, LONG_US));
    expect(expectedUs(), `${label}: predicted before`).toBeLessThan(5000);

    const injected = new Promise<void>((resolve) => (work.onInjected = resolve));
    work.injected = kernel;
    await injected;
    await gap(5 + 50 * random.uniform());
    await fed.preemptToEnd(urgent(loop));
    const [caught, ...more] = fed.log.take(true);
    assert(caught !== undefined && more.length === 0, `${label}: ${more.length} more preemptions than one`);
    expect(obeysLaw(caught), label).toBe(false);
    expect(caught.blame?.kernel, label).toBe(kernel);
    expect(caught.blame?.predictedUs, label).toBeLessThan(5000);
    expect(caught.blame?.realUs, label).toBeGreaterThan(LONG_US / 2);

    // What is learnt: the dispatch itself where it was timed, and in any case that less may be in flight.
    fed.executor.takeRecords();
    const slices: SliceRecord[] = [];
    const recovered = (): boolean => {
      slices.push(...fed.executor.takeRecords().slices);
      return slices.length >= SLICES_TO_RECOVER;
    };
    await until(recovered, 'some slices more');
    const mostUs = Math.max(...inFlightUs(slices.slice(0, SLICES_TO_RECOVER)));
    if (kind === 'never seen') expect(expectedUs(), `${label}: predicted`).toBeGreaterThan(LONG_US / 3);
    expect(mostUs, `${label}: in flight`).toBeLessThan(0.95 * BUDGETS.inFlightUs);

    const after = await preemptions(fed, random, loop);
    work.stopped = true;
    await running;
    await fed.stop();
    loop.destroy();
    const told = {
      obeyedBefore: obeyed(before),
      obeyedAfter: obeyed(after),
      inFlightUs,
      blame: caught.blame,
    };
    await context.annotate(`${label}: ${JSON.stringify(told)}`);
    expect(obeyed(after), `${label}: ${JSON.stringify(told)}`).toBeGreaterThan(PREEMPTIONS / 2);
    const all = [...before, caught, ...after];
    expect(all.length, label).toBe(fed.asked);
    expectOrdered(all, label);
    expect(all.flatMap(({ blame }) => blame?.kernel ?? [])).not.toContain('urgent');
  },
);
