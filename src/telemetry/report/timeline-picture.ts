/**
 * The timeline's drawing, as it runs in the page: the script of a class that lays lanes out on a canvas, draws a view
 * of them and says what lies under a point. The arithmetic is in timeline-view.ts.
 */
export const TIMELINE_PICTURE = `
const SIZES = { strip: 14, bar: 26, gap: 5, title: 24, axis: 22, gutterMin: 64, gutterMax: 150 };
const FONT = '12px system-ui, sans-serif';

class TimelinePicture {
  constructor(canvas, data) {
    this.canvas = canvas;
    this.pen = canvas.getContext('2d');
    this.endUs = data.endUs;
    this.lanes = data.lanes.map((lane) => ({ ...lane, rows: lane.rows.map(decodeRow) }));
    this.bands = this.layOut();
    this.height = this.bands.at(-1).bottom + SIZES.axis;
    this.width = 0;
    this.view = fitted(0, data.endUs, data.endUs);
    this.pen.font = FONT;
    const names = this.lanes.flatMap((lane) => lane.rows.map((row) => this.pen.measureText(row.name).width + 10));
    this.gutter = Math.min(SIZES.gutterMax, Math.max(SIZES.gutterMin, ...names));
  }

  layOut() {
    const bands = [];
    let y = 0;
    const place = (kind, lane, size, row) => {
      bands.push({ kind, lane, row, top: y, bottom: y + size });
      y += size + SIZES.gap;
    };
    for (const lane of this.lanes) {
      if (bands.length > 0) y += 2 * SIZES.gap;
      place('title', lane, SIZES.title);
      if (lane.yields.length > 0) place('yields', lane, SIZES.strip);
      if (lane.starved.length > 0) place('starved', lane, SIZES.strip);
      for (const row of lane.rows) place('row', lane, SIZES.bar, row);
      place('weights', lane, SIZES.strip);
    }
    return bands;
  }

  xOf(us) {
    return this.gutter + ((us - this.view.fromUs) / (this.view.toUs - this.view.fromUs)) * (this.width - this.gutter);
  }
  usOf(x) {
    return this.view.fromUs + ((x - this.gutter) / (this.width - this.gutter)) * (this.view.toUs - this.view.fromUs);
  }

  resize() {
    this.width = this.canvas.clientWidth;
    this.canvas.style.height = this.height + 'px';
    this.canvas.width = Math.round(this.width * devicePixelRatio);
    this.canvas.height = Math.round(this.height * devicePixelRatio);
    this.draw();
  }

  draw() {
    const { pen } = this;
    if (this.width <= this.gutter) return;
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue('--' + name).trim();
    const names = ['trainer', 'critic', 'engine', 'yield', 'version', 'starved', 'track', 'rule', 'soft', 'ink'];
    this.colours = Object.fromEntries(names.map((name) => [name, colour(name)]));
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    pen.font = FONT;
    pen.textBaseline = 'middle';
    this.drawAxis();
    for (const { kind, lane, row, top, bottom } of this.bands) {
      const words = kind === 'title' ? lane.name : kind === 'row' ? row.name : kind;
      this.text(words, 0, (top + bottom) / 2, kind === 'title' ? 'ink' : 'soft', 'left');
      if (kind === 'row') this.drawRow(row, lane, top);
      if (kind === 'yields') this.drawYields(lane, top);
      if (kind === 'starved') {
        for (const [from, to] of lane.starved) {
          this.fill('starved', 1, this.xOf(from), top, Math.max(2, this.xOf(to) - this.xOf(from)), SIZES.strip);
        }
      }
      if (kind === 'weights') for (const { atUs } of lane.versions) this.fill('version', 1, this.xOf(atUs) - 1, top, 2, SIZES.strip);
    }
  }

  fill(name, alpha, x, y, w, h) {
    const left = Math.max(this.gutter, x);
    const right = Math.min(this.width, x + w);
    if (right <= left) return;
    this.pen.globalAlpha = alpha;
    this.pen.fillStyle = this.colours[name];
    this.pen.fillRect(left, y, right - left, h);
    this.pen.globalAlpha = 1;
  }
  text(words, x, y, name, align) {
    this.pen.fillStyle = this.colours[name];
    this.pen.textAlign = align;
    this.pen.fillText(words, x, y);
  }

  drawAxis() {
    const { view, width, gutter, bands } = this;
    const step = tickStepUs(view, Math.max(2, (width - gutter) / 96));
    for (let us = Math.ceil(view.fromUs / step) * step; us <= view.toUs; us += step) {
      for (const { kind, top, bottom } of bands) {
        if (kind !== 'title') this.fill('rule', 1, this.xOf(us), top, 1, bottom - top + SIZES.gap);
      }
      const words = momentText(us, step);
      const x = Math.min(width - this.pen.measureText(words).width / 2, Math.max(gutter + 12, this.xOf(us)));
      this.text(words, x, this.height - SIZES.axis / 2 + 2, 'soft', 'center');
    }
  }

  drawRow(row, lane, top) {
    const { view } = this;
    const awake = row.resident === 'engine' && lane.awake ? lane.awake : [[0, this.endUs]];
    for (const [from, to] of awake) this.fill('track', 1, this.xOf(from), top, this.xOf(to) - this.xOf(from), SIZES.bar);
    const first = firstAtLeast(row.ends, view.fromUs);
    const last = firstAtLeast(row.starts, view.toUs);
    const columns = Math.floor(this.width - this.gutter);
    // Where spans are finer than the screen, each column shows how much of it was busy.
    if ((last - first) * 4 > columns) {
      columnShares(row, view, columns).forEach((share, i) => {
        if (share > 0) this.fill(row.resident, 0.15 + 0.85 * share, this.gutter + i, top, 1, SIZES.bar);
      });
      return;
    }
    for (let i = first; i < last; i++) {
      const x = this.xOf(row.starts[i]);
      const w = this.xOf(row.ends[i]) - x;
      this.fill(row.resident, 0.25 + 0.75 * row.busy[i], x, top, Math.max(1, w > 4 ? w - 1 : w), SIZES.bar);
    }
  }

  drawYields(lane, top) {
    for (const { fromUs, yieldUs, awayUs } of lane.yields) {
      const [x, yielded, back] = [fromUs, fromUs + yieldUs, fromUs + yieldUs + (awayUs || 0)].map((us) => this.xOf(us));
      this.fill('yield', 0.35, yielded, top + SIZES.strip / 2 - 1, back - yielded, 2);
      this.fill('yield', 1, x, top, Math.max(2, yielded - x), SIZES.strip);
    }
  }

  describe(x, y) {
    const band = this.bands.find(({ top, bottom }) => y >= top && y <= bottom);
    if (!band || x < this.gutter) return '';
    const us = this.usOf(x);
    const reach = this.usOf(x + 3) - us;
    if (band.kind === 'row') return rowText(band.row, us, reach);
    if (band.kind === 'weights') {
      const near = band.lane.versions.filter(({ atUs }) => Math.abs(atUs - us) <= reach);
      return near.slice(0, 3).map(({ label }) => label).join(', ');
    }
    if (band.kind === 'starved') {
      const near = band.lane.starved.find(([from, to]) => us >= from - reach && us <= to + reach);
      return near ? 'starved: generation had work and no device for ' + lengthText(near[1] - near[0]) : '';
    }
    if (band.kind !== 'yields') return '';
    const mark = band.lane.yields.find(({ fromUs, yieldUs }) => us >= fromUs - reach && us <= fromUs + yieldUs + reach);
    if (!mark) return '';
    const back = mark.awayUs === null ? '' : '; the first new token came ' + lengthText(mark.awayUs) + ' after that';
    return mark.stage + ' asked for the device and could start ' + lengthText(mark.yieldUs) + ' later' + back;
  }
}`;
