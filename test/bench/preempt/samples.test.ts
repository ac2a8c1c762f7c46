import { describe, expect, it } from 'vitest';
import { joinSamples } from '#src/bench/preempt/samples.js';
import { at } from '#src/lib/assert.js';
import { HELD, preemption, UNLIMITED, undisturbed } from './fixtures.js';

const request = (requestedMs: number) => ({
  requestedMs,
  answeredMs: requestedMs + 14,
  resumedMs: requestedMs + 17,
});
const NONE = { preemptions: [], undisturbed: [] };

describe('joinSamples', () => {
  it('puts records beside their requests, in the order of the requests', () => {
    const preemptions = [preemption(200.125, { phase: 0.5 }), preemption(100)];
    const { samples, unrecorded } = joinSamples(HELD, [request(100), request(200.125)], {
      ...NONE,
      preemptions,
    });
    expect(unrecorded).toBe(0);
    expect(samples.map(({ phase }) => phase)).toEqual([0.25, 0.5]);
    expect(at(samples, 0)).toEqual({
      yieldMs: 3,
      yieldHostMs: 3.5,
      isDeviceClock: true,
      detectionMs: 1,
      boundMs: 5.5,
      phase: 0.25,
      hpMs: 14,
      resumeMs: 2,
      heldMs: 10,
      blame: null,
      tokensRecomputed: 0,
    });
  });

  it('counts a request without a record, and leaves it out', () => {
    const joined = joinSamples(HELD, [request(1), request(2)], { ...NONE, preemptions: [preemption(2)] });
    expect(joined.unrecorded).toBe(1);
    expect(joined.samples).toHaveLength(1);
  });

  it('falls back to the host where the device has no clock', () => {
    const preemptions = [preemption(1, { yieldedDeviceMs: null })];
    const [only] = joinSamples(HELD, [request(1)], { ...NONE, preemptions }).samples;
    expect(only).toMatchObject({ yieldMs: 3.5, isDeviceClock: false, heldMs: 9.5 });
  });

  it('has no resume where the engine did not come back, and holds until the answer where no release was seen', () => {
    const preemptions = [preemption(1, { releasedMs: null, resumedMs: null })];
    const [only] = joinSamples(HELD, [request(1)], { ...NONE, preemptions }).samples;
    expect(only).toMatchObject({ resumeMs: null, heldMs: 11 });
  });

  it('takes a request that found nothing to preempt from its own record, and resumes by the host', () => {
    const joined = joinSamples(UNLIMITED, [request(50)], { ...NONE, undisturbed: [undisturbed(50)] });
    expect(joined.samples).toEqual([
      {
        yieldMs: 2,
        yieldHostMs: 2,
        isDeviceClock: true,
        detectionMs: 0.5,
        boundMs: null,
        phase: null,
        hpMs: 14,
        resumeMs: 3,
        heldMs: 12,
        blame: null,
        tokensRecomputed: 0,
      },
    ]);
  });

  it('holds such a request to the law too, with nothing for a dispatch that was not there', () => {
    const [only] = joinSamples(HELD, [request(50)], { ...NONE, undisturbed: [undisturbed(50)] }).samples;
    expect(only?.boundMs).toBeCloseTo(0.5 + 4 + 0.2, 12);
  });

  it('claims no law for what makes no promise', () => {
    const blame = { kernel: 'matmul', predictedUs: 1, realUs: 2 };
    const preemptions = [preemption(1, { budgetMs: Infinity, blame })];
    const [only] = joinSamples(UNLIMITED, [request(1)], { ...NONE, preemptions }).samples;
    expect(only).toMatchObject({ boundMs: null, blame: null });
  });
});
