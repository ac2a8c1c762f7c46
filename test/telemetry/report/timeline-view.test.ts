import { createContext, runInContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { timelineData } from '#src/telemetry/report/timeline-data.js';
import {
  columnShares,
  decodeRow,
  firstAtLeast,
  fitted,
  lengthText,
  momentText,
  rowText,
  tickStepUs,
  TIMELINE_FUNCTIONS,
  zoomed,
  type Row,
} from '#src/telemetry/report/timeline-view.js';
import { syntheticRun } from '../synthetic.js';

function randomRow(random: Random): Row {
  const spans = Array.from({ length: random.int(1, 60) }, () => [
    random.int(0, 900),
    random.int(0, 3000),
    1,
    0,
  ]);
  return decodeRow({ name: 'engine', resident: 'engine', spans: spans.flat() });
}

test('decoding gives back the slices that were encoded', () => {
  const run = syntheticRun(4, 1, 400);
  const us = (ms: number): number => Math.round((ms - run.records.startMs) * 1000);
  const lane = timelineData(run.records, run.endMs).lanes[0];
  for (const [index, resident] of ['trainer', 'engine'].entries()) {
    const encoded = lane?.rows[index];
    expect(encoded?.name).toBe(resident);
    const row = decodeRow(encoded ?? { name: '', resident: '', spans: [] });
    const slices = run.slices.filter((slice) => slice.lane === 0 && slice.resident === resident);
    expect([...row.starts]).toEqual(slices.map(({ startedMs }) => us(startedMs)));
    expect([...row.ends]).toEqual(slices.map(({ finishedMs }) => us(finishedMs)));
    expect(row.busy.every((busy) => busy === 1)).toBe(true);
  }
});

test('firstAtLeast is the first index by definition', () => {
  for (let seed = 0; seed < 100; seed++) {
    const random = new Random(seed);
    const values = Float64Array.from({ length: random.int(0, 40) }, () => random.int(0, 30)).sort();
    const wanted = random.int(-1, 31);
    const expected = values.findIndex((value) => value >= wanted);
    expect(firstAtLeast(values, wanted), `seed ${seed}`).toBe(expected < 0 ? values.length : expected);
  }
});

test('column shares add up to the busy time in view', () => {
  for (let seed = 0; seed < 100; seed++) {
    const random = new Random(seed);
    const row = randomRow(random);
    const end = row.ends.at(-1) ?? 0;
    const view = fitted(random.int(0, end), random.int(0, end), Math.max(20, end));
    const columns = random.int(1, 400);
    const columnUs = (view.toUs - view.fromUs) / columns;
    const shown = columnShares(row, view, columns).reduce((sum, share) => sum + share * columnUs, 0);
    const busy = row.starts.reduce(
      (sum, start, i) =>
        sum + Math.max(0, Math.min(row.ends[i] ?? 0, view.toUs) - Math.max(start, view.fromUs)),
      0,
    );
    expect(shown, `seed ${seed}`).toBeCloseTo(busy, 3);
  }
});

describe('the view', () => {
  test('stays within the run and keeps the zoomed moment in place', () => {
    for (let seed = 0; seed < 200; seed++) {
      const random = new Random(seed);
      const endUs = random.int(50, 1e8);
      let view = fitted(0, endUs, endUs);
      for (let act = 0; act < 20; act++) {
        const at = view.fromUs + random.uniform() * (view.toUs - view.fromUs);
        const next = zoomed(view, 0.3 + 2 * random.uniform(), at, endUs);
        expect(next.fromUs, `seed ${seed}`).toBeGreaterThanOrEqual(0);
        expect(next.toUs, `seed ${seed}`).toBeLessThanOrEqual(endUs + 1e-6);
        expect(next.toUs - next.fromUs, `seed ${seed}`).toBeGreaterThanOrEqual(20 - 1e-6);
        const free = next.fromUs > 0 && next.toUs < endUs && next.toUs - next.fromUs > 20.001;
        const place = (at - view.fromUs) / (view.toUs - view.fromUs);
        if (free)
          expect((at - next.fromUs) / (next.toUs - next.fromUs), `seed ${seed}`).toBeCloseTo(place, 6);
        view = next;
      }
    }
  });

  test('labels are round, few enough, and as fine as they are close', () => {
    expect(tickStepUs({ fromUs: 0, toUs: 1e8 }, 10)).toBe(1e7);
    expect(tickStepUs({ fromUs: 0, toUs: 33_000 }, 8)).toBe(5000);
    expect([momentText(2.5e6, 5e5), momentText(2e7, 1e7), momentText(18_944_000, 2000)]).toEqual([
      '2.5 s',
      '20 s',
      '18.944 s',
    ]);
    expect([lengthText(12), lengthText(2391), lengthText(1_234_000)]).toEqual(['12 µs', '2.39 ms', '1.23 s']);
  });
});

test('a row is described in words, at a slice, at joined slices, and nowhere', () => {
  const row = decodeRow({ name: 'engine', resident: 'engine', spans: [100, 50, 1, 0, 1000, 2000, 40, 250] });
  expect(rowText(row, 120, 1)).toBe('one slice of engine: 50 µs');
  expect(rowText(row, 1500, 1)).toBe('40 slices of engine within 2 ms, 75 % of it busy');
  expect(rowText(row, 600, 5)).toBe('');
  expect(rowText(row, 9999, 5)).toBe('');
});

test('the functions work from their source alone, as in the page', () => {
  const context = createContext({ Float64Array });
  runInContext(TIMELINE_FUNCTIONS.map(String).join('\n'), context);
  const encoded = { name: 'engine', resident: 'engine', spans: [100, 50, 1, 0, 1000, 2000, 40, 250] };
  const inPage = runInContext(
    `(() => {
      const row = decodeRow(${JSON.stringify(encoded)});
      const view = zoomed(fitted(0, 4000, 4000), 0.5, 1000, 4000);
      const step = tickStepUs(view, 5);
      return JSON.stringify([view, [...columnShares(row, view, 7)], rowText(row, 1500, 1), momentText(1500, step)]);
    })()`,
    context,
  ) as string;
  const row = decodeRow(encoded);
  const view = zoomed(fitted(0, 4000, 4000), 0.5, 1000, 4000);
  const step = tickStepUs(view, 5);
  expect(JSON.parse(inPage)).toEqual([
    view,
    [...columnShares(row, view, 7)],
    rowText(row, 1500, 1),
    momentText(1500, step),
  ]);
});
