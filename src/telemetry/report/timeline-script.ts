/**
 * The lane timeline: a canvas that zooms and pans by wheel, drag, pinch, keys and buttons. What can be computed
 * without a page stands in timeline-view.ts; here are only the drawing and the events.
 */
export const TIMELINE_SCRIPT = `
function attachTimeline(data) {
  const box = document.getElementById('timeline');
  const canvas = box.querySelector('canvas');
  const output = box.querySelector('output');
  const pen = canvas.getContext('2d');
  const lanes = data.lanes.map((lane) => ({ ...lane, rows: lane.rows.map(decodeRow) }));
  const [strip, bar, gap, title, axis] = [14, 26, 5, 24, 22];
  const font = '12px system-ui, sans-serif';
  pen.font = font;
  const names = lanes.flatMap((lane) => lane.rows.map((row) => row.name));
  const gutter = Math.min(150, Math.max(64, ...names.map((name) => pen.measureText(name).width + 10)));
  const bands = layOut();
  const height = bands.at(-1).bottom + axis;
  let width = 0;
  let view = fitted(0, data.endUs, data.endUs);

  function layOut() {
    const placed = [];
    let y = 0;
    const place = (kind, lane, size, row) => {
      if (kind === 'title' && placed.length > 0) y += 2 * gap;
      placed.push({ kind, lane, row, top: y, bottom: y + size });
      y += size + gap;
    };
    for (const lane of lanes) {
      place('title', lane, title);
      if (lane.yields.length > 0) place('yields', lane, strip);
      for (const row of lane.rows) place('row', lane, bar, row);
      place('weights', lane, strip);
    }
    return placed;
  }
  const xOf = (us) => gutter + ((us - view.fromUs) / (view.toUs - view.fromUs)) * (width - gutter);
  const usOf = (x) => view.fromUs + ((x - gutter) / (width - gutter)) * (view.toUs - view.fromUs);
  const colour = (name) => getComputedStyle(box).getPropertyValue('--' + name).trim();

  function fill(name, alpha, x, y, w, h) {
    const left = Math.max(gutter, x);
    const right = Math.min(width, x + w);
    if (right <= left) return;
    pen.globalAlpha = alpha;
    pen.fillStyle = name;
    pen.fillRect(left, y, right - left, h);
    pen.globalAlpha = 1;
  }
  function text(words, x, y, name, align) {
    pen.fillStyle = name;
    pen.textAlign = align;
    pen.fillText(words, x, y);
  }
  function drawRow(row, lane, top, colours) {
    const awake = row.resident === 'engine' && lane.awake ? lane.awake : [[0, data.endUs]];
    for (const [from, to] of awake) fill(colours.track, 1, xOf(from), top, xOf(to) - xOf(from), bar);
    const first = firstAtLeast(row.ends, view.fromUs);
    const last = firstAtLeast(row.starts, view.toUs);
    const columns = Math.floor(width - gutter);
    if ((last - first) * 4 > columns) {
      columnShares(row, view, columns).forEach((share, i) => {
        if (share > 0) fill(colours[row.resident], 0.15 + 0.85 * share, gutter + i, top, 1, bar);
      });
      return;
    }
    for (let i = first; i < last; i++) {
      const x = xOf(row.starts[i]);
      const w = xOf(row.ends[i]) - x;
      fill(colours[row.resident], 0.25 + 0.75 * row.busy[i], x, top, Math.max(1, w > 4 ? w - 1 : w), bar);
    }
  }
  function drawYields(lane, top, colours) {
    for (const mark of lane.yields) {
      const x = xOf(mark.fromUs);
      const w = xOf(mark.fromUs + mark.yieldUs) - x;
      fill(colours.yield, 0.35, x + w, top + strip / 2 - 1, xOf(mark.fromUs + mark.yieldUs + (mark.awayUs || 0)) - x - w, 2);
      fill(colours.yield, 1, x, top, Math.max(2, w), strip);
    }
  }
  function drawWeights(lane, top, colours) {
    for (const { atUs } of lane.versions) {
      const x = xOf(atUs);
      fill(colours.version, 1, x - 1, top, 2, strip);
    }
  }
  function drawAxis(colours) {
    const step = tickStepUs(view, Math.max(2, (width - gutter) / 96));
    for (let us = Math.ceil(view.fromUs / step) * step; us <= view.toUs; us += step) {
      for (const { kind, top, bottom } of bands) {
        if (kind !== 'title') fill(colours.rule, 1, xOf(us), top, 1, bottom - top + gap);
      }
      const words = momentText(us, step);
      const x = Math.min(width - pen.measureText(words).width / 2, Math.max(gutter + 12, xOf(us)));
      text(words, x, height - axis / 2 + 2, colours.soft, 'center');
    }
  }
  function draw() {
    if (width <= gutter) return;
    const hues = ['trainer', 'engine', 'yield', 'version', 'track', 'rule', 'soft', 'ink'];
    const colours = Object.fromEntries(hues.map((name) => [name, colour(name)]));
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = font;
    pen.textBaseline = 'middle';
    drawAxis(colours);
    for (const { kind, lane, row, top, bottom } of bands) {
      const middle = (top + bottom) / 2;
      if (kind === 'title') text(lane.name, 0, middle, colours.ink, 'left');
      else text(kind === 'row' ? row.name : kind, 0, middle, colours.soft, 'left');
      if (kind === 'row') drawRow(row, lane, top, colours);
      if (kind === 'yields') drawYields(lane, top, colours);
      if (kind === 'weights') drawWeights(lane, top, colours);
    }
  }
  let drawing = 0;
  function show(next) {
    view = next;
    output.hidden = true;
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(draw);
  }
  const pan = (share) => {
    const by = share * (view.toUs - view.fromUs);
    show(fitted(view.fromUs + by, view.toUs + by, data.endUs));
  };
  const zoom = (factor, atUs = (view.fromUs + view.toUs) / 2) => show(zoomed(view, factor, atUs, data.endUs));
  const whole = () => show(fitted(0, data.endUs, data.endUs));

  function describe(x, y) {
    const band = bands.find(({ top, bottom }) => y >= top && y <= bottom);
    if (!band || x < gutter) return '';
    const us = usOf(x);
    const reach = usOf(x + 3) - us;
    if (band.kind === 'row') return rowText(band.row, us, reach);
    if (band.kind === 'weights') {
      const near = band.lane.versions.filter(({ atUs }) => Math.abs(atUs - us) <= reach);
      return near.slice(0, 3).map(({ label }) => label).join(', ');
    }
    if (band.kind !== 'yields') return '';
    const mark = band.lane.yields.find(({ fromUs, yieldUs }) => us >= fromUs - reach && us <= fromUs + yieldUs + reach);
    if (!mark) return '';
    const back = mark.awayUs === null ? '' : '; the first new token came ' + lengthText(mark.awayUs) + ' after that';
    return mark.stage + ' asked for the device and could start ' + lengthText(mark.yieldUs) + ' later' + back;
  }
  function point(event) {
    const at = canvas.getBoundingClientRect();
    return [event.clientX - at.left, event.clientY - at.top];
  }
  const pointers = new Map();
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, point(event)[0]);
  });
  canvas.addEventListener('pointermove', (event) => {
    const [x, y] = point(event);
    const before = pointers.get(event.pointerId);
    if (before === undefined) {
      const words = describe(x, y);
      output.textContent = words;
      output.hidden = words === '';
      output.style.top = y + 16 + 'px';
      output.style.left = Math.max(0, Math.min(x, width - 300)) + 'px';
      return;
    }
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    pointers.set(event.pointerId, x);
    if (!other) pan((before - x) / (width - gutter));
    else if (Math.abs(x - other[1]) > 8) zoom(Math.abs(before - other[1]) / Math.abs(x - other[1]), usOf((x + other[1]) / 2));
  });
  for (const name of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener('pointerleave', () => { output.hidden = true; });
  canvas.addEventListener('wheel', (event) => {
    // The page scrolls as ever until the timeline was clicked or a zoom key is held.
    if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      pan((event.deltaX || event.deltaY) / (width - gutter));
    } else zoom(Math.exp(event.deltaY * 0.002), usOf(point(event)[0]));
  }, { passive: false });
  const keys = { ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), ArrowUp: () => zoom(0.7), ArrowDown: () => zoom(1.4),
    '+': () => zoom(0.7), '=': () => zoom(0.7), '-': () => zoom(1.4), 0: whole, Home: whole };
  canvas.addEventListener('keydown', (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  const acts = { in: () => zoom(0.5), out: () => zoom(2), left: () => pan(-0.4), right: () => pan(0.4), whole };
  for (const button of document.querySelectorAll('[data-act]')) {
    button.addEventListener('click', acts[button.dataset.act]);
  }
  for (const button of document.querySelectorAll('[data-view]')) {
    const { fromUs, toUs } = data.views[button.dataset.view];
    button.addEventListener('click', () => show(fitted(fromUs, toUs, data.endUs)));
  }
  new ResizeObserver(() => {
    width = canvas.clientWidth;
    canvas.style.height = height + 'px';
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    draw();
  }).observe(box);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
}`;
