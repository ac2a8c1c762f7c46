import { beforeAll, describe, expect, it } from 'vitest';
import { WebGpuEngine } from '#src/engine/webgpu-engine.js';
import { runProgram, submitProgram } from '#src/gpu/slice-encoder.js';
import { whole } from '#src/kernels/launch.js';
import { assert, at } from '#src/lib/assert.js';
import { useGpu } from '../helpers/gpu.js';
import {
  expectSameOutcome,
  expectSameOutcomes,
  type Outcomes,
  runAlone,
  SMALL,
  TestEngine,
} from './fixtures.js';
import {
  BLOCK_BYTES,
  DROPPED,
  FOUR,
  HELD,
  model,
  SPILLED,
  startFour,
  submitFirst,
  submitNext,
} from './kv-fixtures.js';

const device = useGpu();
const NOTHING = { held: 0, spilled: 0, dropped: 0 };

let alone: Outcomes;
beforeAll(async () => {
  alone = await runAlone(device, model, FOUR);
});

describe('leave', () => {
  it('holds all: nothing to do, nothing recomputed, steps go on', async () => {
    const test = await startFour(device, 5);
    expect([...test.engine.leave(HELD)]).toEqual([]);
    expect(test.engine.takeKvCounts()).toEqual({ held: 4, spilled: 0, dropped: 0 });
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'held');
    expect(test.engine.takeTokensRecomputed()).toBe(0);
    test.destroy();
  });

  it('spills all: their bytes lie on the host, none are recomputed, and nothing runs until they return', async () => {
    const test = await startFour(device, 3);
    const bytes = device.gpu.bytesAllocated;
    expect(test.leave(SPILLED)).toEqual({ held: 0, spilled: 4, dropped: 0 });
    expect(test.engine.takeKvCounts()).toEqual(NOTHING);
    // Prompts of 5 to 8 and two more tokens each: one block.
    expect(test.engine.spilledBytes).toBe(4 * BLOCK_BYTES);
    expect(device.gpu.bytesAllocated).toBe(bytes + 4 * BLOCK_BYTES);
    await test.engine.settled();
    expect(test.engine.nextStep()).toBeNull();
    expect(test.engine.sequenceCount).toBe(4);
    test.engine.comeBack();
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'spilled');
    expect(test.engine.takeTokensRecomputed()).toBe(0);
    expect(device.gpu.bytesAllocated).toBe(bytes);
    const { measured } = test.engine.kvCosts;
    expect([measured.spill, measured.restore]).toEqual([1, 1]);
    expect(measured.prefill).toBeGreaterThan(0);
    test.destroy();
  });

  it('drops all: every row in the cache is computed again, once', async () => {
    const test = await startFour(device, 3);
    expect([...test.engine.leave(DROPPED)]).toEqual([]);
    expect(test.engine.takeKvCounts()).toEqual({ held: 0, spilled: 0, dropped: 4 });
    test.engine.comeBack();
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'dropped');
    // One step of prefill and two of decode: the prompt and two tokens of each.
    expect(test.engine.takeTokensRecomputed()).toBe(5 + 6 + 7 + 8 + 4 * 2);
    expect(test.engine.takeTokensRecomputed()).toBe(0);
    test.destroy();
  });

  it('drops none again before it has got further: whoever takes several steps to come back comes to its end', async () => {
    const long = FOUR.map((each) => ({
      ...each,
      promptTokenIds: Array.from({ length: 40 }, (_, position) => (position * each.id) % 30),
    }));
    const expected = await runAlone(device, model, long);
    // Two steps for a prompt, of which a drop after each step would undo the first.
    const test = await TestEngine.load(device, model, { batchTokensMax: 24 });
    test.add(long);
    let drops = 0;
    for (let steps = 0; test.engine.sequenceCount > 0; steps++) {
      expect(steps, 'steps').toBeLessThan(2_000);
      await test.run((step) => step < 1);
      test.engine.comeBack();
      drops += test.leave(DROPPED).dropped;
      test.engine.comeBack();
    }
    expect(drops).toBeGreaterThan(20);
    expectSameOutcomes(test.outcomes, expected, long, 'dropped');
    test.destroy();
  });

  it('drops what the host has no room for: spilled and dropped in one go', async () => {
    for (const [room, spilled] of [
      [0, 0],
      [2 * BLOCK_BYTES - 4, 1],
      [3 * BLOCK_BYTES, 3],
    ] as const) {
      const test = await startFour(device, 4, { spillBytesMax: room });
      expect(test.leave(SPILLED)).toEqual({ held: 0, spilled, dropped: 4 - spilled });
      expect(test.engine.spilledBytes).toBe(spilled * BLOCK_BYTES);
      test.engine.comeBack();
      await test.run();
      expectSameOutcomes(test.outcomes, alone, FOUR, `room for ${room} bytes`);
      expect(test.engine.takeTokensRecomputed() > 0).toBe(spilled < 4);
      test.destroy();
    }
  });

  it('under pressure sends away no more than it must; those that stay go on, those that left wait', async () => {
    const test = await startFour(device, 4);
    // Each holds the two blocks it will ever need.
    const { held, spilled, dropped } = test.leave({ kind: 'pressure', blocksMax: 5 });
    expect([held, spilled + dropped]).toEqual([2, 2]);
    await test.run((step) => step < 3);
    const lengths = FOUR.map(({ id }) => test.outcomes.get(id).tokenIds.length);
    expect(lengths.toSorted((a, b) => a - b)).toEqual([4, 4, 7, 7]);
    test.engine.comeBack();
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'pressure');
    test.destroy();
  });

  it('asks nothing of those that only wait for their last token', async () => {
    const last = at(FOUR, 0);
    const test = await TestEngine.load(device, model, { stepsAheadMax: 64, slots: 1 });
    test.add([last]);
    for (let step = 0; step < last.tokensMax; step++) submitNext(device, test);
    expect(test.engine.nextStep()).toBeNull();
    expect(test.leave(SPILLED)).toEqual(NOTHING);
    expect(test.engine.spilledBytes).toBe(0);
    await test.engine.settled();
    expect(test.engine.sequenceCount).toBe(0);
    expectSameOutcome(test.outcomes.get(last.id), alone.get(last.id), 'the last token');
    test.destroy();
  });

  it('twice over sets the new limit: more leave, or some may return', async () => {
    const test = await startFour(device, 4);
    const pressure = (blocksMax: number) => test.leave({ kind: 'pressure', blocksMax });
    expect(pressure(6).held).toBe(3);
    expect(pressure(2).held).toBe(1);
    expect(test.leave(SPILLED).held).toBe(0);
    await test.engine.settled();
    expect(test.engine.nextStep()).toBeNull();
    expect(pressure(4)).toEqual(NOTHING);
    await test.run((step) => step < 2);
    expect(test.leave(HELD).held).toBe(2);
    test.engine.comeBack();
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'twice');
    test.destroy();
  });

  it('need not have been called for comeBack', async () => {
    const test = await startFour(device, 4);
    test.engine.comeBack();
    test.engine.comeBack();
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'comeBack alone');
    expect(test.engine.takeKvCounts()).toEqual(NOTHING);
    test.destroy();
  });

  it('is refused while a step is half done, or planned and not begun', async () => {
    const test = await startFour(device, 2);
    const step = test.engine.nextStep();
    assert(step !== null, 'no step');
    expect(test.engine.isMidStep).toBe(true);
    expect(() => test.engine.leave(HELD)).toThrow('half done');
    submitFirst(device, step);
    expect(() => test.engine.leave(HELD)).toThrow('half done');
    submitProgram(device.gpu, step);
    expect(test.engine.isMidStep).toBe(false);
    await test.engine.settled();
    test.engine.evict();
    test.destroy();
  });

  it('may be called with steps in flight: their tokens are waited for', async () => {
    const test = await startFour(device, 3, { stepsAheadMax: 3 }, true);
    test.leave({ kind: 'pressure', blocksMax: 4 });
    test.leave(SPILLED);
    test.engine.comeBack();
    // Neither the tokens nor the caches are here.
    expect(test.engine.nextStep()).toBeNull();
    expect(test.engine.stepsInFlight).toBe(3);
    await test.run();
    expectSameOutcomes(test.outcomes, alone, FOUR, 'steps in flight');
    test.destroy();
  });

  it('keeps newcomers behind those that left', async () => {
    const test = await startFour(device, 4, { slots: 4, stepsAheadMax: 1 });
    test.leave(DROPPED);
    const late = { ...at(FOUR, 0), id: 9, tokensMax: 1 };
    test.add([late]);
    await test.engine.settled();
    expect(test.engine.nextStep()).toBeNull();
    test.engine.comeBack();
    await test.run((step) => step < 2);
    expect(test.outcomes.byId.has(late.id)).toBe(false);
    await test.run();
    expect(test.outcomes.get(late.id).reason).toBe('length');
    expectSameOutcomes(test.outcomes, alone, FOUR, 'newcomers');
    test.destroy();
  });

  it('says when a cache has come, for nothing else would', async () => {
    let ready = 0;
    const { config, layout } = model;
    const engine = new WebGpuEngine(
      device.kernels,
      config,
      layout,
      SMALL,
      whole,
      () => undefined,
      () => ready++,
    );
    await runProgram(device.gpu, engine.loadWeights(model.buckets, 0));
    engine.add(at(FOUR, 0));
    submitProgram(device.gpu, engine.nextStep() ?? []);
    await engine.settled();
    submitProgram(device.gpu, engine.leave(SPILLED));
    engine.comeBack();
    expect([engine.nextStep(), ready]).toEqual([null, 0]);
    await engine.settled();
    expect(ready).toBe(1);
    expect(engine.nextStep()).not.toBeNull();
    expect(engine.evict()).toHaveLength(1);
    engine.destroy();
  });
});
