import { expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { Trace } from '#src/telemetry/trace.js';
import { parsed, threadNames, type TraceEvent } from './trace-file.js';

test('names processes and threads, and puts times in microseconds from the start', () => {
  const trace = new Trace({ startMs: 1000.5, eventsMax: 100 });
  const engine = trace.track('lane 0', 'engine');
  expect(trace.track('lane 0', 'engine')).toBe(engine);
  trace.complete(engine, 'slice', 1002, 0.25, { dispatches: 3 });
  trace.instant(engine, 'plan', 1000.5);
  trace.counter(engine, 'bytes', 1001.5, { sent: 7 });
  const { traceEvents } = parsed(trace);
  const of = (ph: string): TraceEvent | undefined => traceEvents.find((one) => one.ph === ph);
  expect(of('X')).toMatchObject({ name: 'slice', ts: 1500, dur: 250, args: { dispatches: 3 } });
  expect(of('i')).toMatchObject({ name: 'plan', ts: 0, s: 't' });
  expect(of('C')).toMatchObject({ name: 'bytes', ts: 1000, args: { sent: 7 } });
  const names = traceEvents
    .filter(({ ph, name }) => ph === 'M' && name.endsWith('_name'))
    .map(({ args }) => args);
  expect(names).toEqual([{ name: 'lane 0' }, { name: 'engine' }]);
});

test('never lets two slices of one thread overlap, whatever is thrown at one track', () => {
  for (let seed = 0; seed < 60; seed++) {
    const random = new Random(seed);
    const trace = new Trace({ startMs: 0, eventsMax: 1000 });
    const track = trace.track('lane 0', 'engine');
    const wanted: string[] = [];
    for (let index = 0; index < random.int(1, 120); index++) {
      const startMs = random.uniform() * 100;
      const durationMs = random.uniform() < 0.1 ? 0 : random.uniform() * 4;
      trace.complete(track, `s${index}`, startMs, durationMs);
      wanted.push(`s${index}`);
    }
    const slices = parsed(trace).traceEvents.filter(({ ph }) => ph === 'X');
    expect(slices.map(({ name }) => name).sort(), `seed ${seed}`).toEqual(wanted.sort());
    for (const tid of new Set(slices.map((slice) => slice.tid))) {
      // Compared in whole nanoseconds: sums of decimal microseconds are off by a binary hair.
      const row = slices
        .filter((slice) => slice.tid === tid)
        .map(({ ts = NaN, dur = NaN }) => ({
          from: Math.round(ts * 1000),
          to: Math.round((ts + dur) * 1000),
        }))
        .sort((a, b) => a.from - b.from || a.to - b.to);
      for (const [index, slice] of row.entries()) {
        const before = row[index - 1];
        if (before) expect(slice.from, `seed ${seed}`).toBeGreaterThanOrEqual(before.to);
      }
    }
  }
});

test('slices that follow each other stay on one thread, with its plain name', () => {
  const trace = new Trace({ startMs: 0, eventsMax: 1000 });
  const track = trace.track('lane 0', 'engine');
  for (let index = 0; index < 50; index++) trace.complete(track, 'slice', index * 0.1, 0.1);
  const { traceEvents } = parsed(trace);
  expect([...threadNames(traceEvents).values()]).toEqual(['engine']);
});

test('keeps to its bound and counts what it left out', () => {
  const trace = new Trace({ startMs: 0, eventsMax: 10 });
  const track = trace.track('lane 0', 'engine');
  for (let index = 0; index < 25; index++) trace.complete(track, 'slice', index, 1);
  const { traceEvents, otherData } = parsed(trace);
  expect(traceEvents.filter(({ ph }) => ph === 'X')).toHaveLength(10);
  expect(trace.dropped).toBe(15);
  expect(otherData.events_dropped).toBe(15);
});

test('every async span ends: by itself, at the end of the trace, or not at all if it was dropped', () => {
  const trace = new Trace({ startMs: 0, eventsMax: 5 });
  const track = trace.track('tasks', 'rewards');
  trace.asyncBegin(track, 'reward', 'a', 1);
  trace.asyncBegin(track, 'reward', 'b', 2);
  trace.asyncBegin(track, 'reward', 'c', 3);
  trace.asyncEnd(track, 'reward', 'a', 4);
  trace.asyncEnd(track, 'reward', 'c', 5);
  const spans = parsed(trace).traceEvents.filter(({ ph }) => ph === 'b' || ph === 'e');
  const brief = spans.map(({ ph, id, ts }) => `${ph} ${id} ${ts}`);
  expect(brief).toEqual(['b a 1000', 'b b 2000', 'e a 4000', 'e b 4000']);
  expect(trace.dropped).toBe(2);
  expect(() => trace.asyncBegin(track, 'reward', 'b', 6)).toThrow('began twice');
});

test('refuses times that are none', () => {
  const trace = new Trace({ startMs: 0, eventsMax: 5 });
  const track = trace.track('lane 0', 'engine');
  expect(() => trace.complete(track, 'slice', 1, -0.1)).toThrow('-0.1 ms');
  expect(() => trace.instant(track, 'plan', NaN)).toThrow('NaN');
});
