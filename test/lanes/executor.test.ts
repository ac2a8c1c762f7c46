import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import type { Op, Program } from '#src/gpu/ops.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { Executor } from '#src/lanes/executor.js';
import { PreemptionLog } from '#src/lanes/preemption-log.js';
import { ProgramQueue } from '#src/lanes/program-queue.js';
import { type ExecutorBudgets, laneSettings } from '#src/lanes/settings.js';
import { at } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { SliceRecord } from '#src/telemetry/records.js';
import { readF32, useGpu } from '../helpers/gpu.js';

const device = useGpu();
const BUDGETS: ExecutorBudgets = { sliceUs: 400, inFlightUs: 900 };
/** A slice's predicted time is a sum of floats. */
const ROUNDING_US = 1e-6;
/** Slices of whom nobody outranks. */
const URGENT_SLICE_US = 5000;

const started: { executor: Executor; running: Promise<void> }[] = [];
afterEach(async () => {
  for (const { executor, running } of started.splice(0)) {
    executor.stop();
    await running.catch(() => undefined);
  }
  await device.gpu.device.queue.onSubmittedWorkDone();
});

/** Takes copies for what it first guesses, however long they take here: so the tests know what it predicts. */
class FixedCost extends CostModel {
  override observeCopies(): void {
    // Nothing is learnt.
  }
}

/** Takes every copy for very long. */
class SlowGuess extends FixedCost {
  override predictUs(): number {
    return 19_000;
  }
}

/** An executor at work, with a trainer and an engine that are fed by hand. */
function start(budgets = BUDGETS, cost: CostModel = new FixedCost(budgets.sliceUs)) {
  const log = new PreemptionLog(0);
  const executor = new Executor(device.gpu, 0, laneSettings(budgets), cost, log, null);
  const trainer = new ProgramQueue('job', 'trainer', 1, () => null);
  const engine = new ProgramQueue('job', 'engine', 6, () => null);
  executor.addResident(engine);
  executor.addResident(trainer);
  const running = executor.run();
  started.push({ executor, running });
  const run = (resident: ProgramQueue, program: Program): Promise<void> => {
    const done = resident.run(program);
    executor.wake();
    return done;
  };
  return { executor, trainer, engine, log, running, run };
}

let buffers: { source: GPUBuffer; target: GPUBuffer } | null = null;
const BUFFER_BYTES = 16 * 2 ** 20;

/** A copy that is predicted to take so long: 20 µs and a µs more for every 2000 bytes. */
function copyOf(predictedUs: number): Op {
  buffers ??= {
    source: device.gpu.createStorage('source', BUFFER_BYTES),
    target: device.gpu.createStorage('target', BUFFER_BYTES),
  };
  const bytes = Math.max(4, Math.floor(((predictedUs - 20) * 2000) / 4) * 4);
  return { kind: 'copy', ...buffers, sourceOffset: 0, targetOffset: 0, bytes };
}

function* copies(count: number, predictedUs: number): Program {
  for (let i = 0; i < count; i++) yield copyOf(predictedUs);
}

async function slicesOf(executor: Executor): Promise<SliceRecord[]> {
  await device.gpu.device.queue.onSubmittedWorkDone();
  await sleep(1);
  return executor.takeRecords().slices;
}

describe('slices', () => {
  it('hold as much as their budget and no more; what is longer goes alone', async () => {
    for (let seed = 900; seed < 905; seed++) {
      const random = new Random(seed);
      const { executor, engine, trainer, run } = start();
      const cost = new CostModel(BUDGETS.sliceUs);
      let longest = 0;
      const program = function* (ops: number): Program {
        for (let i = 0; i < ops; i++) {
          const op = copyOf(
            random.pick([30, 60, 150, random.int(21, 390), random.uniform() < 0.1 ? 1500 : 40]),
          );
          longest = Math.max(longest, cost.predictUs(op));
          yield op;
        }
      };
      const work = Array.from({ length: 12 }, (_, i) =>
        run(i % 3 === 0 ? trainer : engine, program(random.int(1, 40))),
      );
      await Promise.all(work);
      const slices = await slicesOf(executor);
      expect(slices.length).toBeGreaterThan(20);
      expect(longest).toBeGreaterThan(1400);
      slices.forEach((slice, i) => {
        const label = `seed ${seed}, slice ${i} of the ${slice.resident}: ${slice.predictedUs} µs`;
        // Nobody has to wait for the trainer, which may have longer slices.
        const sliceUs = slice.resident === 'engine' ? BUDGETS.sliceUs : URGENT_SLICE_US;
        if (slice.predictedUs > sliceUs + ROUNDING_US) expect(slice.predictedUs, label).toBeGreaterThan(1400);
        if (slice.resident !== 'engine') return;
        const before = slices.slice(0, i).filter(({ finishedMs }) => finishedMs > slice.submittedMs);
        const [oldest] = before;
        if (oldest === undefined) return;
        const elapsedUs = Math.max(0, slice.submittedMs - oldest.startedMs) * 1000;
        const allUs = before.reduce((sum, { predictedUs }) => sum + predictedUs, slice.predictedUs);
        const inFlightUs = allUs - Math.min(elapsedUs, oldest.predictedUs);
        expect(inFlightUs, `${label} in flight ${inFlightUs}`).toBeLessThanOrEqual(
          BUDGETS.inFlightUs + ROUNDING_US,
        );
      });
      executor.stop();
    }
  });

  it('keep the device fed: more than one is in flight when the budget has room', async () => {
    // Done long before that, on however busy a machine: no breach takes the room away.
    const budgets = { sliceUs: 40_000, inFlightUs: 80_000 };
    const { executor, engine, run } = start(budgets, new SlowGuess(budgets.sliceUs));
    await run(engine, copies(60, 21));
    const slices = await slicesOf(executor);
    const overlapping = slices.filter(
      (slice, i) => i > 0 && at(slices, i - 1).finishedMs > slice.submittedMs,
    );
    expect(overlapping.length).toBeGreaterThan(slices.length / 3);
  });

  it('are short only at first, and only where the next can be put behind: nobody has to wait for the host', async () => {
    const lengths = async (budgets: typeof BUDGETS): Promise<number[]> => {
      const { executor, engine, run } = start(budgets);
      await run(engine, copies(24, 250));
      const slices = await slicesOf(executor);
      executor.stop();
      return slices.map(({ predictedUs }) => Math.round(predictedUs / 250));
    };
    const queued = await lengths({ sliceUs: 2000, inFlightUs: 4000 });
    expect(queued[0]).toBe(2);
    expect(Math.max(...queued)).toBe(8);
    expect(await lengths({ sliceUs: 2000, inFlightUs: 0 })).toEqual([8, 8, 8]);
    expect(await lengths({ sliceUs: Infinity, inFlightUs: Infinity })).toEqual([24]);
    expect(await lengths({ sliceUs: Infinity, inFlightUs: 0 })).toEqual([24]);
  });

  it('begin anew at a host write, which must not overtake earlier commands', async () => {
    const { gpu } = device;
    const [a, b] = [gpu.createStorage('a', 16), gpu.createStorage('b', 64)];
    const { executor, engine, run } = start();
    await run(
      engine,
      (function* (): Program {
        for (let i = 0; i < 4; i++) {
          yield { kind: 'write', target: a, offset: 0, data: Float32Array.of(i + 1) };
          yield { kind: 'copy', source: a, sourceOffset: 0, target: b, targetOffset: 4 * i, bytes: 4 };
        }
      })(),
    );
    expect([...(await readF32(gpu, b, 4))]).toEqual([1, 2, 3, 4]);
    expect((await slicesOf(executor)).length).toBe(4);
    gpu.destroyBuffer(a);
    gpu.destroyBuffer(b);
  });

  it('bound host writes like any other work: an upload is not one endless slice', async () => {
    const { gpu } = device;
    const target = gpu.createStorage('target', 2 ** 20);
    const data = new Float32Array(100_000);
    const { executor, engine, run } = start();
    await run(
      engine,
      (function* (): Program {
        for (let i = 0; i < 12; i++) yield { kind: 'write', target, offset: 0, data };
      })(),
    );
    const slices = await slicesOf(executor);
    for (const { predictedUs } of slices)
      expect(predictedUs).toBeLessThanOrEqual(BUDGETS.sliceUs + ROUNDING_US);
    expect(slices.length).toBeGreaterThanOrEqual(6);
    gpu.destroyBuffer(target);
  });

  it('call the host as soon as all before is submitted, without a slice of its own', async () => {
    const { executor, engine, run } = start();
    const seen: number[] = [];
    await run(
      engine,
      (function* (): Program {
        for (let i = 0; i < 5; i++) {
          yield copyOf(i === 4 ? 3000 : 300);
          yield { kind: 'submitted', call: () => seen.push(i) };
        }
      })(),
    );
    expect(seen).toEqual([0, 1, 2, 3, 4]);
    expect((await slicesOf(executor)).length).toBe(5);
  });
});

describe('priorities', () => {
  it('let a more urgent resident have every slice from its request on', async () => {
    const { executor, engine, trainer, run } = start();
    const low = run(engine, copies(300, 190));
    const spans: { fromMs: number; untilMs: number }[] = [];
    for (let i = 0; i < 8; i++) {
      await sleep(2);
      const fromMs = nowMs();
      await run(trainer, copies(150, 150));
      spans.push({ fromMs, untilMs: nowMs() });
    }
    await low;
    const slices = await slicesOf(executor);
    expect(slices.filter(({ resident }) => resident === 'trainer').length).toBeGreaterThan(20);
    for (const { fromMs, untilMs } of spans) {
      const burst = slices.filter(({ submittedMs }) => submittedMs > fromMs && submittedMs < untilMs);
      const last = burst.findLastIndex(({ resident }) => resident === 'trainer');
      expect(last).toBeGreaterThanOrEqual(3);
      expect(burst.slice(0, last).filter(({ resident }) => resident === 'engine')).toEqual([]);
    }
  });

  it('keep the programs of one resident in order', async () => {
    const { engine, run } = start();
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 20 }, (_, i) => run(engine, copies(3, 100)).then(() => order.push(i))),
    );
    expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });
});

describe('preemptions', () => {
  it('are recorded once each, with their moments in order, however they fall', async () => {
    for (let seed = 920; seed < 923; seed++) {
      const random = new Random(seed);
      const { executor, engine, trainer, log, run } = start();
      const low = run(engine, copies(4000, 90));
      let requests = 0;
      for (let i = 0; i < 25; i++) {
        await sleep(3 * random.uniform());
        const done = trainer.run(copies(random.int(1, 8), random.int(40, 300)));
        executor.request(trainer, 'actorTraining', nowMs());
        requests++;
        await done;
        await executor.idle(trainer);
        log.tokens('job', nowMs());
      }
      executor.stop();
      engine.abandon(new Error('enough'));
      await low.catch(() => undefined);
      const records = log.take(true);
      expect(records.length, `seed ${seed}`).toBe(requests);
      for (const { requestedMs, yieldedMs, releasedMs, resumedMs } of records) {
        const moments = [requestedMs, yieldedMs, releasedMs ?? NaN, resumedMs ?? NaN];
        expect(moments, `seed ${seed}`).toEqual(moments.toSorted((a, b) => a - b));
      }
    }
  });

  it('are told from the end of the last slice in flight', async () => {
    const { executor, engine, trainer, log, run } = start();
    const low = run(engine, copies(400, 190));
    await sleep(5);
    const requestedMs = nowMs();
    const done = trainer.run(copies(5, 100));
    executor.request(trainer, 'actorTraining', requestedMs);
    await done;
    await low;
    const slices = await slicesOf(executor);
    const [record] = log.take(true);
    const firstOfTrainer = slices.findIndex(({ resident }) => resident === 'trainer');
    const lastBefore = at(slices, firstOfTrainer - 1);
    expect(lastBefore.resident).toBe('engine');
    expect(record?.yieldedMs).toBe(lastBefore.finishedMs);
    const lastOfTrainer = slices.filter(({ resident }) => resident === 'trainer').at(-1);
    expect(record?.releasedMs).toBe(lastOfTrainer?.finishedMs);
  });

  it('are yielded by the slices before the request, not by those the engine submits behind a short one', async () => {
    const { executor, engine, trainer, log, run } = start({ sliceUs: 400, inFlightUs: 4000 });
    const low = run(engine, copies(4000, 190));
    for (let i = 0; i < 10; i++) {
      await sleep(1);
      const done = trainer.run(copies(1, 30));
      executor.request(trainer, 'actorTraining', nowMs());
      await done;
      await executor.idle(trainer);
    }
    executor.stop();
    engine.abandon(new Error('enough'));
    await low.catch(() => undefined);
    expect(log.take(true).length).toBe(10);
  });

  it('are none when the engine has nothing to do', async () => {
    const { executor, trainer, log } = start();
    for (let i = 0; i < 5; i++) {
      const done = trainer.run(copies(3, 100));
      executor.request(trainer, 'actorTraining', nowMs());
      await done;
    }
    await slicesOf(executor);
    expect(log.take(true)).toEqual([]);
  });

  it('are none for requests that find the trainer on the device before the engine ever ran', async () => {
    const { executor, engine, trainer, log, run } = start();
    const first = trainer.run(copies(4000, 300));
    executor.request(trainer, 'refLogProbs', nowMs());
    await sleep(0);
    const low = run(engine, copies(10, 100));
    const second = trainer.run(copies(10, 100));
    executor.request(trainer, 'actorTraining', nowMs());
    await Promise.all([first, second, low]);
    await slicesOf(executor);
    expect(log.take(true)).toEqual([]);
  });

  it('are one for requests that come while the trainer still holds the device', async () => {
    const { executor, engine, trainer, log, run } = start();
    const low = run(engine, copies(300, 190));
    await sleep(2);
    const work = Array.from({ length: 4 }, () => {
      const done = trainer.run(copies(20, 100));
      executor.request(trainer, 'actorTraining', nowMs());
      return done;
    });
    await Promise.all(work);
    await low;
    await slicesOf(executor);
    expect(log.take(true).length).toBe(1);
  });
});

describe('waiting', () => {
  it('burns no processor time when there is nothing to do', async () => {
    const { engine, run } = start();
    await run(engine, copies(10, 100));
    await device.gpu.device.queue.onSubmittedWorkDone();
    const shares: number[] = [];
    for (let i = 0; i < 4; i++) {
      await sleep(20);
      const before = process.cpuUsage();
      await sleep(300);
      const { user, system } = process.cpuUsage(before);
      shares.push((user + system) / 300_000);
    }
    // A thread that polls burns a whole core; the best of four windows leaves out what else the process does.
    expect(Math.min(...shares), `shares of a core ${shares.join(', ')}`).toBeLessThan(0.05);
  });

  it('loses no wake-up, however wakes and work come together', async () => {
    for (let seed = 940; seed < 946; seed++) {
      const random = new Random(seed);
      const { executor, engine, trainer } = start();
      const wakes = [
        () => executor.wake(),
        () => queueMicrotask(() => executor.wake()),
        () => setImmediate(() => executor.wake()),
        () => setTimeout(() => executor.wake(), random.int(0, 2)),
      ];
      for (let i = 0; i < 120; i++) {
        const done = random.pick([engine, trainer]).run(copies(random.int(1, 3), random.int(21, 200)));
        // One wake after the work is there must do; the others must do no harm.
        for (let extra = random.int(0, 3); extra > 0; extra--) random.pick(wakes)();
        random.pick(wakes)();
        if (random.uniform() < 0.6) await done;
      }
      const last = engine.run(copies(1, 30));
      executor.wake();
      const lost = sleep(5000).then(() => 'lost');
      expect(await Promise.race([last.then(() => 'done'), lost]), `seed ${seed}`).toBe('done');
    }
  });

  it('looks again at once when a resident says, while it is asked, that it has more', async () => {
    const { executor } = start();
    let asked = 0;
    let ran = 0;
    const program = function* (): Program {
      yield copyOf(30);
      ran++;
    };
    const late = {
      job: 'job',
      kind: 'engine' as const,
      priority: 3,
      weight: 1,
      hasWork: true,
      next: () => {
        asked++;
        if (asked < 4) executor.wake();
        return asked === 4 ? program() : null;
      },
    };
    executor.addResident(late);
    await sleep(50);
    expect(asked).toBeGreaterThanOrEqual(4);
    expect(ran).toBe(1);
  });

  it('for a resident to be idle ends when its last slice has', async () => {
    const { executor, engine, trainer, run } = start();
    const done = run(engine, copies(600, 100));
    await sleep(0);
    void run(trainer, copies(40, 100));
    expect(executor.isBusy(engine)).toBe(true);
    expect(() => executor.removeResident(engine)).toThrow('busy engine');
    await executor.idle(engine);
    expect(executor.isBusy(engine)).toBe(false);
    await done;
    executor.removeResident(engine);
    expect(() => executor.removeResident(engine)).toThrow('stranger');
  });

  it('for a resident whose program turns out empty ends too', async () => {
    const { executor } = start();
    let offered = 0;
    const empty = {
      job: 'job',
      kind: 'engine' as const,
      priority: 3,
      weight: 1,
      hasWork: false,
      next: () => (offered++ === 0 ? copies(0, 1) : null),
    };
    executor.addResident(empty);
    await executor.idle(empty);
    expect(executor.isBusy(empty)).toBe(false);
  });
});

describe('the end', () => {
  it('comes cleanly with work in flight, whatever is half done', async () => {
    for (let round = 0; round < 20; round++) {
      const { executor, engine, trainer, running, run } = start();
      let begun = 0;
      let closed = 0;
      const half = function* (): Program {
        begun++;
        try {
          yield* copies(5000, 150);
        } finally {
          closed++;
        }
      };
      const work = [run(engine, half()), run(trainer, half())];
      const settled = Promise.allSettled(work);
      await sleep(round % 4);
      executor.stop();
      expect(closed).toBe(begun);
      const reason = new Error('stopped');
      for (const queue of [engine, trainer]) queue.abandon(reason);
      await running;
      expect(await settled).toEqual(work.map(() => ({ status: 'rejected', reason })));
      const after = executor.takeRecords().slices.length;
      await sleep(5);
      expect(executor.takeRecords().slices, `${after} slices before`).toEqual([]);
    }
  });

  it('waits for kernel timings still on their way', async () => {
    const y = device.gpu.createStorage('y', 256);
    const x = device.gpu.createStorage('x', 512);
    const kernel = device.kernels.bind('silu_gate', { overrides: {}, prelude: {} }, { gate_up: x, y });
    for (let round = 0; round < 10; round++) {
      const { executor, engine, running, run } = start();
      await run(
        engine,
        (function* (): Program {
          for (let i = 0; i < 10; i++)
            yield kernel.dispatch({ inner: 8, row_start: 0 }, [1, 1, 1], 8 * 2 ** i);
        })(),
      );
      executor.stop();
      await running;
    }
    device.gpu.destroyBuffer(x);
    device.gpu.destroyBuffer(y);
  });

  it('is the error of a program that throws', async () => {
    const { executor, engine, trainer, running, run } = start();
    const failed = expect(running).rejects.toThrow('a bug in a program');
    void run(trainer, copies(100, 100)).catch(() => undefined);
    void run(
      engine,
      (function* (): Program {
        yield* copies(20, 100);
        throw new Error('a bug in a program');
      })(),
    ).catch(() => undefined);
    await failed;
    const waits = executor.idle(trainer);
    if (executor.isBusy(trainer)) await expect(waits).rejects.toThrow('a bug in a program');
  });

  it('is the error of a host call', async () => {
    const { engine, running, run } = start();
    const failed = expect(running).rejects.toThrow('a bug in a call');
    const call = (): void => {
      throw new Error('a bug in a call');
    };
    void run(
      engine,
      (function* (): Program {
        yield copyOf(100);
        yield { kind: 'submitted', call };
      })(),
    ).catch(() => undefined);
    await failed;
  });
});
