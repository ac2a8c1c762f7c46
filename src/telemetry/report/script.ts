import { TIMELINE_FUNCTIONS } from './timeline-view.js';
import { TIMELINE_PICTURE } from './timeline-picture.js';
import { TIMELINE_SCRIPT } from './timeline-script.js';

/** Reads values off a chart under the pointer, or with the arrow keys. The charts themselves need no script. */
const READOUT_SCRIPT = `
function attachReadout(id, chart) {
  const canvas = document.getElementById('plot-' + id);
  const cursor = canvas.querySelector('.cursor');
  const output = canvas.querySelector('output');
  const shown = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4))));
  const nearest = (xs, x) => xs.reduce((best, other, i) => (Math.abs(other - x) < Math.abs(xs[best] - x) ? i : best), 0);
  let at = 0;
  const show = (x) => {
    const main = chart.series[0];
    at = nearest(main.xs, x);
    const left = (100 * (main.xs[at] - chart.from)) / (chart.to - chart.from);
    const values = chart.series.map((series, i) => {
      const index = nearest(series.xs, main.xs[at]);
      const near = i === 0 || series.xs[index] === main.xs[at];
      return near ? series.name + ' ' + shown(series.ys[index]) : '';
    });
    output.textContent = ['step ' + main.xs[at], ...values.filter((text) => text)].join(' · ');
    cursor.style.left = left + '%';
    output.style.left = left > 50 ? 'auto' : left + '%';
    output.style.right = left > 50 ? 100 - left + '%' : 'auto';
    cursor.hidden = output.hidden = false;
  };
  const hide = () => { cursor.hidden = output.hidden = true; };
  canvas.addEventListener('pointermove', (event) => {
    const box = canvas.getBoundingClientRect();
    show(chart.from + ((event.clientX - box.left) / box.width) * (chart.to - chart.from));
  });
  canvas.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const xs = chart.series[0].xs;
    show(xs[Math.max(0, Math.min(xs.length - 1, at + by))]);
  });
  canvas.addEventListener('pointerleave', hide);
  canvas.addEventListener('blur', hide);
}`;

/** The whole script of the page. It reads its data from the element with the id "data". */
export const SCRIPT = `'use strict';
${TIMELINE_FUNCTIONS.map(String).join('\n')}
${READOUT_SCRIPT}
${TIMELINE_PICTURE}
${TIMELINE_SCRIPT}
const data = JSON.parse(document.getElementById('data').textContent);
for (const [id, chart] of Object.entries(data.charts)) attachReadout(id, chart);
if (document.getElementById('timeline')) attachTimeline(data.timeline);
`;
