import { expect, test } from 'vitest';
import { RunRecords } from '#src/telemetry/run-records.js';
import { runTrace } from '#src/telemetry/run-trace.js';
import { laneRecords, preemptionRecord, syntheticRun } from './synthetic.js';
import { parsed, threadNames, type TraceEvent } from './trace-file.js';

const run = syntheticRun(2, 4);
const { traceEvents } = parsed(runTrace(run.records, { endMs: run.endMs }));
const threads = threadNames(traceEvents);
const processes = new Map(
  traceEvents
    .filter(({ name }) => name === 'process_name')
    .map(({ pid, args }) => [pid, String(args?.['name'])]),
);
const on = (process: string, thread: string): TraceEvent[] =>
  traceEvents.filter(
    ({ ph, pid, tid }) =>
      ph !== 'M' && processes.get(pid)?.startsWith(process) && threads.get(tid) === thread,
  );

test('has a process for each lane with its adapter, one for the scheduler and one for the tasks', () => {
  expect([...processes.values()]).toEqual([
    'lane 0 — llvmpipe (LLVM 15, 256 bits)',
    'lane 1 — llvmpipe (LLVM 15, 256 bits)',
    'scheduler',
    'tasks',
  ]);
});

test('has every slice once, on the track of its lane and resident, without the job where there is one', () => {
  expect(on('lane 0', 'engine').length + on('lane 0', 'trainer').length + on('lane 1', 'engine').length).toBe(
    run.slices.length,
  );
  const first = run.slices[0];
  expect(on('lane 0', 'engine')[0]).toMatchObject({
    name: 'engine',
    ts: 0,
    args: { predicted_us: first?.predictedUs, queued_us: 1000, dispatches: first?.dispatches },
  });
});

test('shows each preemption as yielding, away and resuming, and an unfinished one as far as it went', () => {
  const names = on('lane 0', 'preemptions').map(({ name }) => name);
  const whole = ['time to yield', 'actorTraining', 'resume'];
  expect(names).toEqual([...whole, ...whole, ...whole, 'time to yield', 'actorTraining']);
});

test('tells of each preemption whether it obeyed the law, and marks starvation', () => {
  const records = new RunRecords({ startMs: 0 });
  records.addLane(0, 'gpu');
  const blame = { kernel: 'matmul_tile', predictedUs: 1900, realUs: 9000 };
  records.add(
    laneRecords({
      preemptions: [preemptionRecord({}), preemptionRecord({ requestedMs: 20, yieldedMs: 29, blame })],
      starved: [{ lane: 0, job: 'main', fromMs: 100, toMs: 1600 }],
    }),
  );
  const events = parsed(runTrace(records, { endMs: 2000 })).traceEvents;
  expect(events.filter(({ name }) => name === 'time to yield').map(({ args }) => args)).toMatchObject([
    { bound_ms: 6, obeys_law: true, phase: 0.5, kv_held: 2 },
    { bound_ms: 6, obeys_law: false, blamed: 'matmul_tile', blamed_predicted_us: 1900, blamed_real_us: 9000 },
  ]);
  expect(events.find(({ name }) => name === 'starved')).toMatchObject({ ts: 100_000, dur: 1_500_000 });
});

test('shows versions, stages, plans and rewards', () => {
  expect(on('lane 1', 'weights').map(({ name }) => name)).toEqual(['pull v1', 'pull v2', 'pull v4']);
  expect(on('scheduler', 'actorTraining').map(({ name }) => name)).toEqual(
    Array(4).fill(['waiting', 'granted']).flat(),
  );
  expect(on('scheduler', 'plans').every(({ ph }) => ph === 'i')).toBe(true);
  const last = on('scheduler', 'actorTraining').at(-1);
  // The last stage was never released: it is drawn to the end of the run.
  expect((last?.ts ?? 0) + (last?.dur ?? 0)).toBeCloseTo((run.endMs - run.records.startMs) * 1000, 2);
  const rewards = on('tasks', 'rewards');
  expect(rewards.filter(({ ph }) => ph === 'b')).toHaveLength(16);
  expect(rewards.filter(({ ph }) => ph === 'e')).toHaveLength(16);
});

test('a trace that is full lacks slices, not preemptions', () => {
  const small = parsed(runTrace(run.records, { endMs: run.endMs, eventsMax: 120 }));
  const names = small.traceEvents.map(({ name }) => name);
  expect(names.filter((name) => name === 'time to yield')).toHaveLength(4);
  expect(small.otherData.events_dropped).toBeGreaterThan(run.slices.length / 2);
});

test('with several jobs, names carry the job', () => {
  const records = new RunRecords({ startMs: 0 });
  records.addLane(0, 'gpu');
  const slice = {
    lane: 0,
    resident: 'engine',
    submittedMs: 0,
    startedMs: 0,
    finishedMs: 1,
    predictedUs: 1,
    dispatches: 1,
  } as const;
  records.add(
    laneRecords({
      slices: [
        { ...slice, job: 'a' },
        { ...slice, job: 'b' },
      ],
    }),
  );
  expect([...threadNames(parsed(runTrace(records, { endMs: 1 })).traceEvents).values()]).toEqual([
    'preemptions',
    'a engine',
    'b engine',
    'weights',
  ]);
});
