import { afterEach, expect, it } from 'vitest';
import { openGpu } from '#src/gpu/device.js';
import { Lane } from '#src/lanes/lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { createEngine, createTrainer, Post, scriptOf } from './many-jobs-fixtures.js';

/** No dispatch is as short as that. */
const IMPOSSIBLE = { sliceUs: 0.001, inFlightUs: 600 };

const open: Lane[] = [];
afterEach(async () => {
  for (const lane of open.splice(0)) await lane.handle({ kind: 'close' });
});

it('a resident that the lane refuses leaves nothing behind, and can be asked for again', async () => {
  const gpu = await openGpu();
  const lane = new Lane(
    gpu,
    { lane: 0, settings: laneSettings(IMPOSSIBLE), doorbell: null },
    new Post().receive,
  );
  open.push(lane);
  const script = scriptOf('a', 1, 5, 1);
  const bytes: number[] = [];
  for (let attempt = 0; attempt < 2; attempt++) {
    await expect(createTrainer(lane, script)).rejects.toThrow(/^lanes\.slice_budget_us = 0\.001: /);
    await expect(createEngine(lane, script)).rejects.toThrow(/^lanes\.slice_budget_us = 0\.001: /);
    bytes.push(gpu.bytesAllocated);
  }
  // What kernels keep for themselves stays.
  expect(bytes[1]).toBe(bytes[0]);
});
