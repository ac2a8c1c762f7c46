/** The timeline's events, as they run in the page: it zooms and pans by wheel, drag, pinch, keys and buttons. */
export const TIMELINE_SCRIPT = `
function attachTimeline(data) {
  const box = document.getElementById('timeline');
  const canvas = box.querySelector('canvas');
  const output = box.querySelector('output');
  const picture = new TimelinePicture(canvas, data);
  let drawing = 0;
  const show = (view) => {
    picture.view = view;
    output.hidden = true;
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => picture.draw());
  };
  const moves = {
    pan: (share) => {
      const { fromUs, toUs } = picture.view;
      const by = share * (toUs - fromUs);
      show(fitted(fromUs + by, toUs + by, data.endUs));
    },
    zoom: (factor, atUs = (picture.view.fromUs + picture.view.toUs) / 2) =>
      show(zoomed(picture.view, factor, atUs, data.endUs)),
    to: (fromUs, toUs) => show(fitted(fromUs, toUs, data.endUs)),
  };
  attachPointers(canvas, output, picture, moves);
  attachWheelAndKeys(canvas, picture, moves);
  attachButtons(data, moves);
  new ResizeObserver(() => picture.resize()).observe(box);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => picture.draw());
}

function attachPointers(canvas, output, picture, { pan, zoom }) {
  const held = new Map();
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, event.clientX - canvas.getBoundingClientRect().left);
  });
  canvas.addEventListener('pointermove', (event) => {
    const at = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - at.left, event.clientY - at.top];
    const before = held.get(event.pointerId);
    if (before === undefined) {
      output.textContent = picture.describe(x, y);
      output.hidden = output.textContent === '';
      output.style.top = y + 16 + 'px';
      output.style.left = Math.max(0, Math.min(x, picture.width - 300)) + 'px';
      return;
    }
    held.set(event.pointerId, x);
    const other = [...held].find(([id]) => id !== event.pointerId);
    if (!other) return pan((before - x) / (picture.width - picture.gutter));
    const [wide, wider] = [Math.abs(before - other[1]), Math.abs(x - other[1])];
    if (wider > 8) zoom(wide / wider, picture.usOf((x + other[1]) / 2));
  });
  for (const name of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(name, (event) => held.delete(event.pointerId));
  }
  canvas.addEventListener('pointerleave', () => { output.hidden = true; });
}

function attachWheelAndKeys(canvas, picture, { pan, zoom, to }) {
  canvas.addEventListener('wheel', (event) => {
    // The page scrolls as ever until the timeline was clicked or a zoom key is held.
    if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (sideways) pan((event.deltaX || event.deltaY) / (picture.width - picture.gutter));
    else zoom(Math.exp(event.deltaY * 0.002), picture.usOf(event.clientX - canvas.getBoundingClientRect().left));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), ArrowUp: () => zoom(0.7), ArrowDown: () => zoom(1.4),
    '+': () => zoom(0.7), '=': () => zoom(0.7), '-': () => zoom(1.4), 0: () => to(0, Infinity), Home: () => to(0, Infinity),
  };
  canvas.addEventListener('keydown', (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function attachButtons(data, { pan, zoom, to }) {
  const acts = {
    in: () => zoom(0.5), out: () => zoom(2), left: () => pan(-0.4), right: () => pan(0.4), whole: () => to(0, Infinity),
  };
  for (const button of document.querySelectorAll('[data-act]')) {
    button.addEventListener('click', acts[button.dataset.act]);
  }
  for (const button of document.querySelectorAll('[data-view]')) {
    const { fromUs, toUs } = data.views[button.dataset.view];
    button.addEventListener('click', () => to(fromUs, toUs));
  }
}`;
