import { afterAll, beforeAll, expect, it } from 'vitest';
import { findAdapter, Gpu, summarizeAdapter } from '#src/gpu/device.js';
import type { Program } from '#src/gpu/ops.js';
import { Kernels } from '#src/kernels/kernels.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { Executor } from '#src/lanes/executor.js';
import { PreemptionLog } from '#src/lanes/preemption-log.js';
import { ProgramQueue } from '#src/lanes/program-queue.js';
import { laneSettings } from '#src/lanes/settings.js';
import { assert } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';

let gpu: Gpu;
beforeAll(async () => {
  const adapter = await findAdapter();
  assert(adapter !== null, 'there is no adapter');
  const device = await adapter.requestDevice({ requiredLimits: { maxImmediateSize: 64 } });
  gpu = new Gpu(device, summarizeAdapter(adapter.info));
});
afterAll(async () => {
  await gpu.device.queue.onSubmittedWorkDone();
  gpu.close();
});

it("learns what kernels cost from the host's clock, and yields without the device's", async () => {
  expect(gpu.hasTimestamps).toBe(false);
  const kernel = new Kernels(gpu).bind(
    'silu_gate',
    { overrides: {}, prelude: {} },
    { gate_up: gpu.createStorage('x', 512), y: gpu.createStorage('y', 256) },
  );
  const op = kernel.dispatch({ inner: 8, row_start: 0 }, [1, 1, 1], 100);
  const cost = new CostModel(50_000);
  const log = new PreemptionLog(0);
  const executor = new Executor(
    gpu,
    0,
    laneSettings({ sliceUs: 50_000, inFlightUs: 100_000 }),
    cost,
    log,
    null,
  );
  const engine = new ProgramQueue('job', 'engine', 6, () => null);
  const trainer = new ProgramQueue('job', 'trainer', 1, () => null);
  executor.addResident(engine);
  executor.addResident(trainer);
  const running = executor.run();
  const dispatches = function* (count: number): Program {
    for (let i = 0; i < count; i++) yield op;
  };
  const finish = async (queue: ProgramQueue, count: number): Promise<number[]> => {
    const done = queue.run(dispatches(count));
    executor.wake();
    await done;
    await executor.idle(queue);
    return executor.takeRecords().slices.map((slice) => slice.dispatches);
  };
  expect(cost.isNew(op)).toBe(true);
  // A kernel is alone in its slice until it has been timed twice: what else could its time be told from?
  expect((await finish(engine, 1)).concat(await finish(engine, 1))).toEqual([1, 1]);
  expect(cost.isNew(op)).toBe(false);
  expect(cost.predictUs(op)).toBeGreaterThan(0);
  expect(Math.max(...(await finish(engine, 40)))).toBeGreaterThan(5);
  const low = engine.run(dispatches(2000));
  const high = trainer.run(dispatches(3));
  executor.request(trainer, 'actorTraining', nowMs());
  await Promise.all([low, high]);
  await executor.idle(engine);
  const [record, ...more] = log.take(true);
  expect(more).toEqual([]);
  expect(record?.yieldedDeviceMs).toBeNull();
  executor.stop();
  await running;
});
