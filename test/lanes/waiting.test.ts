import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { Program } from '#src/gpu/ops.js';
import { CostModel } from '#src/lanes/cost-model.js';
import { Doorbell } from '#src/lanes/doorbell.js';
import { Executor } from '#src/lanes/executor.js';
import { PreemptionLog } from '#src/lanes/preemption-log.js';
import { ProgramQueue } from '#src/lanes/program-queue.js';
import { RemoteLane } from '#src/lanes/remote-lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { assert } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import { threadCpuMs } from '#src/lib/thread-cpu.js';
import { SMALL } from '../engine/fixtures.js';
import { useGpu } from '../helpers/gpu.js';
import { ADAMW, awkwardModel } from '../train/fixtures.js';

const device = useGpu();
/** Of a core. A thread that polls would take a whole one. */
const SHARE_MAX = 0.03;
const onLinux = process.platform === 'linux';

it('tells the processor time of one thread, where the platform does', () => {
  const before = threadCpuMs();
  if (!onLinux) {
    expect(before).toBeNull();
    return;
  }
  assert(before !== null, 'Linux tells it');
  const fromMs = nowMs();
  const used = (): number => (threadCpuMs() ?? 0) - before;
  while (used() < 20 && nowMs() < fromMs + 5000);
  expect(used()).toBeGreaterThanOrEqual(20);
  // The scheduler of a busy machine may book the last of it late.
  expect(used()).toBeLessThan(nowMs() - fromMs + 10);
});

it('costs an idle lane nothing, with an engine and a trainer that have nothing to do', async () => {
  const { config, layout, buckets: weights } = awkwardModel(new Random(1600), false);
  const lane = await RemoteLane.open(
    { lane: 0, adapter: null, settings: laneSettings({ sliceUs: 2000, inFlightUs: 4000 }) },
    {
      onTokens: () => undefined,
      onRecords: () => undefined,
      onBroken: (error) => expect.fail(error.message),
    },
  );
  const options = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };
  await lane.request({ kind: 'createTrainer', job: 'job', weight: 1, config, layout, options, weights });
  await lane.request({
    kind: 'createEngine',
    job: 'job',
    weight: 1,
    config,
    layout,
    options: SMALL,
    store: null,
  });
  await lane.request({ kind: 'publish', job: 'job', version: 0, store: null });
  await sleep(100);
  const shares: number[] = [];
  for (let window = 0; window < 3; window++) {
    const before = await lane.request({ kind: 'flush' });
    const fromMs = nowMs();
    await sleep(700);
    const after = await lane.request({ kind: 'flush' });
    expect(after.cpuMs === null).toBe(!onLinux);
    shares.push(((after.cpuMs ?? 0) - (before.cpuMs ?? 0)) / (nowMs() - fromMs));
  }
  await lane.close();
  expect(Math.min(...shares), `shares of a core: ${shares.join(', ')}`).toBeLessThan(SHARE_MAX);
});

it('costs next to nothing while the device is busy for long, however wrong the prediction was', async () => {
  const { gpu } = device;
  const bytes = 16 * 2 ** 20;
  const [source, target] = [gpu.createStorage('source', bytes), gpu.createStorage('target', bytes)];
  const copies = function* (count: number): Program {
    for (let i = 0; i < count; i++)
      yield { kind: 'copy', source, sourceOffset: 0, target, targetOffset: 0, bytes };
  };
  for (const slowness of [1, 4, 16]) {
    const cost = new CostModel(Infinity);
    for (let i = 0; i < 100; i++) cost.observeCopies(1000, 1000 * slowness);
    const settings = laneSettings({ sliceUs: Infinity, inFlightUs: Infinity });
    const doorbell = new Doorbell(new SharedArrayBuffer(4));
    const executor = new Executor(gpu, 0, settings, cost, new PreemptionLog(0), doorbell);
    const engine = new ProgramQueue('job', 'engine', 6, () => null);
    executor.addResident(engine);
    const running = executor.run();
    const submitted = engine.run(copies(300));
    executor.wake();
    await submitted;
    const [fromMs, before] = [nowMs(), threadCpuMs() ?? 0];
    await executor.idle(engine);
    const share = ((threadCpuMs() ?? 0) - before) / (nowMs() - fromMs);
    expect(nowMs() - fromMs).toBeGreaterThan(50);
    expect(share, `predicted ${slowness} times as slow`).toBeLessThan(SHARE_MAX);
    executor.stop();
    await running;
  }
  for (const buffer of [source, target]) gpu.destroyBuffer(buffer);
});
