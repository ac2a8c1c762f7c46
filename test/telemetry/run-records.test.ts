import { expect, test } from 'vitest';
import type { SliceRecord } from '#src/telemetry/records.js';
import { RunRecords } from '#src/telemetry/run-records.js';
import { laneRecords, preemptionRecord, syntheticRun } from './synthetic.js';

const slice = (index: number, resident: 'trainer' | 'engine'): SliceRecord => ({
  lane: 0,
  job: 'main',
  resident,
  submittedMs: index,
  startedMs: index,
  finishedMs: index + 0.5,
  predictedUs: 400,
  dispatches: 2,
});

test('keeps the first slices and sums over all of them', () => {
  const records = new RunRecords({ startMs: 0, slicesMax: 3 });
  records.addLane(0, 'gpu');
  records.addLane(0, 'the one that replaced it');
  const slices = [0, 1, 2, 3, 4].map((index) => slice(index, index === 1 ? 'trainer' : 'engine'));
  records.add(laneRecords({ slices, slicesDropped: 7 }));
  expect(records.slices.items).toEqual(slices.slice(0, 3));
  expect(records.slices.dropped).toBe(2 + 7);
  expect(records.lanes).toEqual([{ lane: 0, adapter: 'gpu' }]);
  expect(records.busy(0)).toEqual([
    { lane: 0, job: 'main', resident: 'trainer', slices: 1, dispatches: 2, busyMs: 0.5 },
    { lane: 0, job: 'main', resident: 'engine', slices: 4, dispatches: 8, busyMs: 2 },
  ]);
  expect(records.busy(1)).toEqual([]);
});

test('has a time to yield for each preemption, and a resume for each that came back', () => {
  const { records } = syntheticRun(5, 6);
  expect(records.timesToYieldMs()).toEqual(
    records.preemptions.items.map(({ requestedMs, yieldedMs }) => yieldedMs - requestedMs),
  );
  expect(records.timesToYieldDeviceMs()).toHaveLength(6);
  expect(records.resumesMs()).toHaveLength(5);
  for (const ms of records.resumesMs()) expect(ms).toBeGreaterThan(0);
});

test('sums the law, starvation and the idle time of hints over records it does not keep', () => {
  const records = new RunRecords({ startMs: 0, recordsMax: 2 });
  const preemptions = [0, 20, 40].map((requestedMs) =>
    preemptionRecord({ requestedMs, yieldedMs: requestedMs + (requestedMs === 40 ? 9 : 2) }),
  );
  const starved = [0, 5000, 9000].map((fromMs) => ({ lane: 0, job: 'main', fromMs, toMs: fromMs + 1500 }));
  records.add(laneRecords({ preemptions, starved, hintIdleMs: 0.25 }));
  records.add(laneRecords({ hintIdleMs: 0.5 }));
  expect(records.preemptions.items).toHaveLength(2);
  expect(records.law).toMatchObject({ count: 3, violations: 1, kv: { held: 6, spilled: 0, dropped: 0 } });
  expect(records.law.worst).toEqual([preemptions[2]]);
  expect(records.law.obeyedShare).toBeCloseTo(2 / 3, 12);
  expect(records.starved).toMatchObject({ dropped: 1 });
  expect(records.starvedMs).toBe(4500);
  expect(records.hintIdleMs).toBe(0.75);
});

test('survives a structured clone, since lanes post these records', () => {
  const { records } = syntheticRun(5, 2);
  const sent = [
    records.slices.items,
    records.preemptions.items,
    records.undisturbed.items,
    records.versions.items,
    records.stages.items,
  ];
  expect(structuredClone(sent)).toEqual(sent);
});
