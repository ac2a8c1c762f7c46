import { beforeEach, describe, expect, test } from 'vitest';
import { reportHtml } from '#src/telemetry/report.js';
import { SCRIPT } from '#src/telemetry/report/script.js';
import { syntheticRun } from '../synthetic.js';
import { pageData } from './page-data.js';
import { PageDouble } from './page-double.js';

const data = pageData(reportHtml(syntheticRun(3, 12)));
const GUTTER = 64;
let page: PageDouble;
beforeEach(() => {
  page = new PageDouble(SCRIPT, data);
});

describe('the timeline', () => {
  const canvas = (): ReturnType<PageDouble['byId']> => page.byId('timeline').querySelector('canvas');
  const tip = (): ReturnType<PageDouble['byId']> => page.byId('timeline').querySelector('output');
  const seconds = (): number[] =>
    canvas()
      .texts.filter((text) => / s$/.test(text))
      .map((text) => parseFloat(text));
  const widthOf = (colour: string): number =>
    canvas()
      .drawn.filter((mark) => mark.colour === colour)
      .reduce((sum, { w }) => sum + w, 0);

  test('draws the whole run at first: both lanes, all rows, inside the drawing', () => {
    expect(canvas().texts.filter((text) => text.startsWith('lane'))).toEqual(
      data.timeline.lanes.map(({ name }) => name),
    );
    expect(canvas().texts.filter((text) => text === 'engine')).toHaveLength(2);
    expect(canvas().texts.filter((text) => text === 'yields')).toHaveLength(1);
    expect([Math.min(...seconds()), Math.max(...seconds())]).toEqual([0, 30]);
    for (const colour of ['trainer', 'engine', 'yield', 'version', 'track']) {
      expect(widthOf(colour), colour).toBeGreaterThan(10);
    }
    for (const { x, y, w, h } of canvas().drawn) {
      expect(x).toBeGreaterThanOrEqual(GUTTER);
      expect(x + w).toBeLessThanOrEqual(canvas().clientWidth + 1e-9);
      expect(y + h).toBeLessThanOrEqual(parseFloat(canvas().style['height'] ?? '0'));
    }
  });

  test('its buttons lead to a yield and back, and say what is there', () => {
    page.button('1').send('click');
    const slowest = Math.max(
      ...data.timeline.lanes.flatMap(({ yields }) => yields.map(({ yieldUs }) => yieldUs)),
    );
    expect(Math.max(...seconds()) - Math.min(...seconds())).toBeLessThan(0.05);
    const mark = canvas().drawn.find(({ colour, h }) => colour === 'yield' && h > 2);
    canvas().send('pointermove', {
      clientX: (mark?.x ?? 0) + (mark?.w ?? 0) / 2,
      clientY: (mark?.y ?? 0) + 3,
    });
    expect(tip().hidden).toBe(false);
    expect(tip().textContent).toContain(`could start ${Number((slowest / 1000).toPrecision(3))} ms later`);
    page.button('whole').send('click');
    expect(Math.max(...seconds())).toBe(30);
  });

  test('zooms and pans by key, button and drag', () => {
    expect(canvas().send('keydown', { key: 'ArrowUp' })).toBe(true);
    page.button('in').send('click');
    const before = seconds();
    expect(Math.max(...before) - Math.min(...before)).toBeLessThan(12);
    page.button('right').send('click');
    expect(Math.min(...seconds())).toBeGreaterThan(Math.min(...before));
    canvas().send('pointerdown', { clientX: 200, clientY: 60 });
    canvas().send('pointermove', { clientX: 900, clientY: 60 });
    canvas().send('pointerup', { clientX: 900, clientY: 60 });
    expect(Math.min(...seconds())).toBeLessThan(Math.min(...before));
    expect(canvas().send('keydown', { key: '0' })).toBe(true);
    expect(Math.max(...seconds())).toBe(30);
    expect(canvas().send('keydown', { key: 'Tab' })).toBe(false);
    expect(canvas().send('keydown', { key: '+', ctrlKey: true })).toBe(false);
  });

  test('zooms by pinching', () => {
    canvas().send('pointerdown', { pointerId: 1, clientX: 400, clientY: 60 });
    canvas().send('pointerdown', { pointerId: 2, clientX: 500, clientY: 60 });
    canvas().send('pointermove', { pointerId: 2, clientX: 800, clientY: 60 });
    expect(Math.max(...seconds()) - Math.min(...seconds())).toBeLessThan(10);
  });

  test('leaves the wheel to the page until it was chosen', () => {
    const turn = { clientX: 500, clientY: 60, deltaX: 0, deltaY: -600 };
    expect(canvas().send('wheel', turn)).toBe(false);
    expect(Math.max(...seconds())).toBe(30);
    page.document.activeElement = canvas();
    expect(canvas().send('wheel', turn)).toBe(true);
    expect(Math.max(...seconds()) - Math.min(...seconds())).toBeLessThan(15);
  });
});

test('starved generation has a row of its own, which says for how long', () => {
  const lanes = data.timeline.lanes.map((lane, index) =>
    index === 0 ? { ...lane, starved: [[10_000_000, 12_500_000]] } : lane,
  );
  const starving = new PageDouble(SCRIPT, { ...data, timeline: { ...data.timeline, lanes } });
  const box = starving.byId('timeline');
  const canvas = box.querySelector('canvas');
  const marks = canvas.drawn.filter(({ colour }) => colour === 'starved');
  expect(canvas.texts).toContain('starved');
  expect(marks).toHaveLength(1);
  const { x = 0, y = 0, w = 0 } = marks[0] ?? {};
  expect(w).toBeCloseTo((2.5 / 30) * (canvas.clientWidth - GUTTER), 6);
  canvas.send('pointermove', { clientX: x + w / 2, clientY: y + 3 });
  expect(box.querySelector('output').textContent).toBe(
    'starved: generation had work and no device for 2.5 s',
  );
});

test('a chart tells the values under the pointer, and moves by key from there', () => {
  const chart = page.byId('plot-reward');
  const output = chart.querySelector('output');
  const mean = data.charts['reward']?.series.find(({ name }) => name === 'mean');
  chart.send('pointermove', { clientX: (chart.clientWidth * 5.1) / 12 });
  const value = (index: number): string => String(Number((mean?.ys[index] ?? NaN).toPrecision(4)));
  expect(output.textContent).toContain(`step 5 · mean ${value(4)}`);
  expect(output.textContent).toMatch(/worst .* · best/);
  expect(chart.send('keydown', { key: 'ArrowRight' })).toBe(true);
  expect(output.textContent).toContain(`step 6 · mean ${value(5)}`);
  for (let press = 0; press < 20; press++) chart.send('keydown', { key: 'ArrowRight' });
  expect(output.textContent).toContain('step 12 ·');
  expect(output.textContent).toContain('held-out 0.71');
  chart.send('pointerleave');
  expect(output.hidden).toBe(true);
});
