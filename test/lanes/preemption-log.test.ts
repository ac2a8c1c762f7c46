import { describe, expect, it } from 'vitest';
import { type Asked, PreemptionLog } from '#src/lanes/preemption-log.js';
import { assert } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { boundMs, lawfulYieldMs, obeysLaw } from '#src/telemetry/records.js';

function asked(requestedMs: number, more: Partial<Asked> = {}): Asked {
  const detectedMs = requestedMs + 0.1;
  const state = { budgetMs: 5, inFlightUs: 900, phase: 0.5 };
  return { job: 'job', asker: 'job', stage: 'actorTraining', requestedMs, detectedMs, ...state, ...more };
}

/** A request that the engine yields to at once. */
function yieldedAt(log: PreemptionLog, requestedMs: number, stage = 'actorTraining') {
  const preemption = log.request(asked(requestedMs, { stage }));
  preemption?.yielded(requestedMs);
  preemption?.begun(null);
  return preemption;
}

describe('PreemptionLog', () => {
  it('follows a preemption through its moments', () => {
    const log = new PreemptionLog(3);
    const preemption = log.request(asked(10));
    assert(preemption !== null, 'nobody was preempted');
    expect(log.waitsForYield).toBe(true);
    log.released(11);
    preemption.waitedFor({ kernel: 'a', predictedUs: 100, realUs: 150 });
    log.yielded(12);
    log.yielded(13);
    expect(log.waitsForYield).toBe(false);
    preemption.left('job', { held: 2, spilled: 1, dropped: 3 }, 11.1);
    log.released(20);
    preemption.recomputed(7);
    expect(log.take(false)).toEqual([]);
    log.tokens('job', 25);
    log.tokens('job', 26);
    // The device has not told yet when the asker's first dispatch began.
    expect(log.take(false)).toEqual([]);
    preemption.begun(11.5);
    expect(log.take(false)).toEqual([
      {
        ...asked(10),
        lane: 3,
        leavingMs: 1,
        yieldedMs: 12,
        yieldedDeviceMs: 11.5,
        releasedMs: 20,
        resumedMs: 25,
        blame: null,
        kv: { held: 2, spilled: 1, dropped: 3 },
        tokensRecomputed: 7,
      },
    ]);
    expect(log.take(true)).toEqual([]);
  });

  it('blames the slice that took most over its prediction, but only where the law is broken', () => {
    for (const [realUs, kernel] of [
      [9000, 'slow'],
      [100, null],
    ] as const) {
      const log = new PreemptionLog(0);
      const preemption = log.request(asked(10, { budgetMs: 2 }));
      assert(preemption !== null, 'nobody was preempted');
      preemption.waitedFor({ kernel: 'punctual', predictedUs: 5000, realUs: 5100 });
      preemption.waitedFor({ kernel: 'slow', predictedUs: 1000, realUs });
      log.yielded(10.1 + realUs / 1000);
      preemption.begun(null);
      const [record] = log.take(true);
      assert(record !== undefined, 'no record');
      expect(record.blame?.kernel ?? null).toBe(kernel);
      expect(obeysLaw(record)).toBe(kernel === null);
    }
  });

  it('holds the law against the device or the host, whichever saw the stage able to start first', () => {
    const log = new PreemptionLog(0);
    for (const [yieldedMs, begunMs] of [
      [14, 12],
      [14, 19],
      [14, null],
    ] as const) {
      const preemption = log.request(asked(10, { budgetMs: 3.95 }));
      preemption?.yielded(yieldedMs);
      preemption?.begun(begunMs);
      log.released(30);
    }
    const records = log.take(true);
    expect(records.map(lawfulYieldMs)).toEqual([2, 4, 4]);
    for (const record of records) expect(boundMs(record)).toBeCloseTo(4.05);
    expect(records.map(obeysLaw)).toEqual([true, true, true]);
  });

  it('counts one preemption for requests that come while the device is held', () => {
    const log = new PreemptionLog(0);
    yieldedAt(log, 1, 'refLogProbs');
    expect(log.request(asked(2))).toBeNull();
    log.released(3);
    log.tokens('job', 4);
    expect(log.take(false).map(({ stage }) => stage)).toEqual(['refLogProbs']);
  });

  it('ends a preemption that is followed by another before any token', () => {
    const log = new PreemptionLog(0);
    yieldedAt(log, 1, 'refLogProbs');
    log.released(2);
    yieldedAt(log, 3);
    log.released(4);
    log.tokens('job', 5);
    expect(log.take(false).map(({ resumedMs }) => resumedMs)).toEqual([null, 5]);
  });

  it('gives unfinished records only when asked for all, and forgets one that never yielded', () => {
    const log = new PreemptionLog(0);
    yieldedAt(log, 1);
    expect(log.take(false)).toEqual([]);
    expect(log.take(true).map(({ releasedMs }) => releasedMs)).toEqual([null]);
    log.request(asked(2));
    expect(log.take(true)).toEqual([]);
    expect(log.take(true)).toEqual([]);
  });

  it('ends what is open when the engine leaves: a later engine resumes nothing of it', () => {
    const log = new PreemptionLog(0);
    yieldedAt(log, 1);
    log.released(2);
    log.engineLeft('job');
    log.tokens('job', 9);
    expect(log.take(false).map(({ resumedMs }) => resumedMs)).toEqual([null]);
  });

  it('is one for the engines of several jobs: caches of all, resumed by the one the device was at', () => {
    const log = new PreemptionLog(0);
    const preemption = log.request(asked(1, { alsoYielded: ['other'] }));
    log.left('job', { held: 1, spilled: 2, dropped: 0 }, 2);
    log.left('other', { held: 4, spilled: 0, dropped: 3 }, 3);
    // Asked to leave again: those that left before are still away.
    log.left('job', { held: 0, spilled: 1, dropped: 0 }, 4);
    preemption?.yielded(5);
    preemption?.begun(null);
    log.engineLeft('other');
    log.released(6);
    log.tokens('other', 7);
    expect(log.take(false)).toEqual([]);
    log.tokens('job', 8);
    expect(log.take(false)).toMatchObject([
      {
        job: 'job',
        alsoYielded: ['other'],
        kv: { held: 4, spilled: 3, dropped: 3 },
        releasedMs: 6,
        resumedMs: 8,
      },
    ]);
  });

  it('is still released to the others when the engine the device was at leaves', () => {
    const log = new PreemptionLog(0);
    const preemption = log.request(asked(1, { alsoYielded: ['other'] }));
    preemption?.begun(null);
    log.engineLeft('job');
    preemption?.yielded(2);
    log.released(3);
    expect(log.take(true)).toMatchObject([{ yieldedMs: 2, releasedMs: 3, resumedMs: null }]);
  });

  it('keeps requests that found the device free apart', () => {
    const log = new PreemptionLog(2);
    log.undisturbed({ stage: 'init', requestedMs: 1, detectedMs: 2, begunMs: 3 });
    const expected = { lane: 2, stage: 'init', requestedMs: 1, detectedMs: 2, begunMs: 3 };
    expect(log.takeUndisturbed()).toEqual([expected]);
    expect(log.takeUndisturbed()).toEqual([]);
    expect(log.take(true)).toEqual([]);
  });

  it('keeps the moments in order whatever happens', () => {
    for (let seed = 600; seed < 620; seed++) {
      const random = new Random(seed);
      const log = new PreemptionLog(0);
      let requests = 0;
      for (let ms = 1; ms < 400; ms++) {
        const event = random.int(0, 5);
        if (event === 0) {
          const preemption = log.request(asked(ms - random.uniform()));
          if (preemption !== null) requests++;
          if (random.uniform() < 0.5) preemption?.yielded(ms + 0.2);
        }
        if (event === 1) log.yielded(ms + 0.3);
        if (event === 2) log.released(ms + 0.4);
        if (event === 3) log.tokens('job', ms + 0.5);
      }
      const records = log.take(true);
      expect(records.length, `seed ${seed}`).toBeGreaterThan(10);
      expect(records.length, `seed ${seed}`).toBeLessThanOrEqual(requests);
      for (const { requestedMs, yieldedMs, releasedMs, resumedMs } of records) {
        const moments = [requestedMs, yieldedMs, releasedMs, resumedMs].filter((each) => each !== null);
        expect(moments, `seed ${seed}`).toEqual(moments.toSorted((a, b) => a - b));
      }
    }
  });
});
