/**
 * The page's whole script: reads the nearest mark of a chart out under the pointer, or one after the other with the
 * arrow keys. Its data is, by chart, a list of [share of the width, share of the height from below, text]. Without it
 * every chart is still there.
 */
export const BENCH_SCRIPT = `'use strict';
function attachMarks(id, marks) {
  const canvas = document.getElementById('plot-' + id);
  const output = canvas.querySelector('output');
  const spot = canvas.querySelector('.cursor');
  spot.className = 'spot';
  let at = -1;
  const hide = () => { spot.hidden = output.hidden = true; };
  const show = (index) => {
    at = index;
    const [x, y, text] = marks[index];
    output.textContent = text;
    spot.style.left = 100 * x + '%';
    spot.style.top = 100 * (1 - y) + '%';
    // Beside the mark where there is room, else along the edge that is further from it.
    const isNarrow = canvas.getBoundingClientRect().width < 560;
    const isHigh = y > 0.5;
    const beside = (share) => 'calc(' + 100 * share + '% + 12px)';
    output.style.left = isNarrow ? '0' : x > 0.5 ? 'auto' : beside(x);
    output.style.right = isNarrow ? 'auto' : x > 0.5 ? beside(1 - x) : 'auto';
    output.style.top = isHigh ? (isNarrow ? 'auto' : beside(1 - y)) : isNarrow ? '0' : 'auto';
    output.style.bottom = isHigh ? (isNarrow ? '0' : 'auto') : isNarrow ? 'auto' : beside(y);
    spot.hidden = output.hidden = false;
  };
  canvas.addEventListener('pointermove', (event) => {
    const box = canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let [best, near] = [-1, 40 * 40];
    marks.forEach(([x, y], i) => {
      const far = (x * box.width - px) ** 2 + ((1 - y) * box.height - py) ** 2;
      if (far < near) [best, near] = [i, far];
    });
    if (best < 0) hide();
    else show(best);
  });
  canvas.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || marks.length === 0) return;
    event.preventDefault();
    show(Math.max(0, Math.min(marks.length - 1, at + by)));
  });
  canvas.addEventListener('pointerleave', hide);
  canvas.addEventListener('blur', hide);
}
const data = JSON.parse(document.getElementById('data').textContent);
for (const [id, marks] of Object.entries(data.charts)) attachMarks(id, marks);
`;
