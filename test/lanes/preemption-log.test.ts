import { describe, expect, it } from 'vitest';
import { PreemptionLog } from '#src/lanes/preemption-log.js';
import { Random } from '#src/lib/prng.js';

describe('PreemptionLog', () => {
  it('follows a preemption through its four moments', () => {
    const log = new PreemptionLog(3);
    log.request('job', 'actorTraining', 10, null);
    expect(log.waitsForYield).toBe(true);
    log.released(11);
    log.yielded(12);
    log.yielded(13);
    expect(log.waitsForYield).toBe(false);
    log.released(20);
    expect(log.take(false)).toEqual([]);
    log.tokens(25);
    log.tokens(26);
    expect(log.take(false)).toEqual([
      {
        lane: 3,
        job: 'job',
        stage: 'actorTraining',
        requestedMs: 10,
        yieldedMs: 12,
        yieldedDeviceMs: null,
        releasedMs: 20,
        resumedMs: 25,
        kv: 'held',
        tokensRecomputed: 0,
      },
    ]);
    expect(log.take(true)).toEqual([]);
  });

  it("takes the moment by the device's clock when it comes, for the preemption it belongs to", () => {
    const log = new PreemptionLog(0);
    const first = log.request('job', 'refLogProbs', 1, null);
    expect(log.request('job', 'oldLogProbs', 1.5, null)).toBeNull();
    log.yielded(2);
    log.released(3);
    const second = log.request('job', 'actorTraining', 4, 4);
    first?.(1.9);
    second?.(4.2);
    log.released(5);
    expect(log.take(true).map(({ yieldedDeviceMs }) => yieldedDeviceMs)).toEqual([1.9, 4.2]);
  });

  it('counts one preemption for requests that come while the device is held', () => {
    const log = new PreemptionLog(0);
    log.request('job', 'refLogProbs', 1, 1);
    log.request('job', 'actorTraining', 2, 2);
    log.released(3);
    log.tokens(4);
    expect(log.take(true).map(({ stage }) => stage)).toEqual(['refLogProbs']);
  });

  it('ends a preemption that is followed by another before any token', () => {
    const log = new PreemptionLog(0);
    log.request('job', 'refLogProbs', 1, 1);
    log.released(2);
    log.request('job', 'actorTraining', 3, 3);
    log.released(4);
    expect(log.take(false).map(({ releasedMs, resumedMs }) => [releasedMs, resumedMs])).toEqual([[2, null]]);
    log.tokens(5);
    expect(log.take(false).map(({ releasedMs, resumedMs }) => [releasedMs, resumedMs])).toEqual([[4, 5]]);
  });

  it('gives unfinished records only when asked for all, and forgets one that never yielded', () => {
    const log = new PreemptionLog(0);
    log.request('job', 'actorTraining', 1, 1);
    expect(log.take(false)).toEqual([]);
    expect(log.take(true).map(({ releasedMs }) => releasedMs)).toEqual([null]);
    log.request('job', 'actorTraining', 2, null);
    expect(log.take(true)).toEqual([]);
    log.released(3);
    expect(log.take(true)).toEqual([]);
  });

  it('ends what is open when the engine leaves: a later engine resumes nothing of it', () => {
    const log = new PreemptionLog(0);
    log.request('job', 'actorTraining', 1, 1);
    log.released(2);
    log.engineLeft();
    log.tokens(9);
    expect(log.take(false).map(({ resumedMs }) => resumedMs)).toEqual([null]);
  });

  it('keeps the moments in order whatever happens', () => {
    for (let seed = 870; seed < 900; seed++) {
      const random = new Random(seed);
      const log = new PreemptionLog(0);
      let requests = 0;
      const records = [];
      for (let ms = 1; ms < 300; ms++) {
        const event = random.int(0, 5);
        if (event === 0) log.request('job', 'actorTraining', ms - random.uniform(), random.pick([null, ms]));
        if (event === 0) requests++;
        if (event === 1) log.yielded(ms);
        if (event === 2) log.released(ms);
        if (event === 3) log.tokens(ms);
        if (event === 4) records.push(...log.take(false));
        if (event === 5 && random.uniform() < 0.1) log.engineLeft();
      }
      records.push(...log.take(true));
      expect(records.length).toBeGreaterThan(0);
      expect(records.length).toBeLessThanOrEqual(requests);
      for (const { requestedMs, yieldedMs, releasedMs, resumedMs } of records) {
        const moments = [requestedMs, yieldedMs, releasedMs ?? Infinity, resumedMs ?? Infinity];
        expect(moments, `seed ${seed}`).toEqual(moments.toSorted((a, b) => a - b));
      }
    }
  });
});
