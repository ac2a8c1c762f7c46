import { createContext, runInContext } from 'node:vm';

type Listener = (event: Record<string, unknown>) => void;

/** As much of an element as the report's script touches. */
class ElementDouble {
  readonly style: Record<string, string> = {};
  readonly dataset: Record<string, string> = {};
  readonly children = new Map<string, ElementDouble>();
  hidden = true;
  textContent = '';
  className = '';
  clientWidth = 1064;
  clientHeight = 340;
  width = 0;
  height = 0;
  readonly #listeners = new Map<string, Listener[]>();

  querySelector(selector: string): ElementDouble {
    let child = this.children.get(selector);
    if (!child) this.children.set(selector, (child = new ElementDouble()));
    return child;
  }
  addEventListener(name: string, listener: Listener): void {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
  }
  /** Returns whether the page kept the event from doing what it does by default. */
  send(name: string, event: Record<string, unknown> = {}): boolean {
    let prevented = false;
    const whole = { pointerId: 1, preventDefault: () => (prevented = true), ...event };
    for (const listener of this.#listeners.get(name) ?? []) listener(whole);
    return prevented;
  }
  getBoundingClientRect(): { left: number; top: number; width: number; height: number } {
    return { left: 0, top: 0, width: this.clientWidth, height: this.clientHeight };
  }
  setPointerCapture(): void {
    // A double has nothing to capture.
  }
  getContext(): Record<string, unknown> {
    return this.pen;
  }

  readonly drawn: { x: number; y: number; w: number; h: number; colour: string }[] = [];
  readonly texts: string[] = [];
  readonly pen: Record<string, unknown> = {
    measureText: (text: string) => ({ width: 6 * text.length }),
    setTransform: () => undefined,
    clearRect: () => {
      this.drawn.length = 0;
      this.texts.length = 0;
    },
    fillRect: (x: number, y: number, w: number, h: number) =>
      this.drawn.push({ x, y, w, h, colour: String(this.pen['fillStyle']) }),
    fillText: (text: string) => this.texts.push(text),
  };
}

/** A page that runs the report's script against its data; colours are named after their variables. */
export class PageDouble {
  readonly #byId = new Map<string, ElementDouble>();
  readonly buttons: ElementDouble[] = [];
  readonly document = {
    activeElement: null as ElementDouble | null,
    getElementById: (id: string) => this.byId(id),
    querySelectorAll: (selector: string) => {
      const name = selector.slice('[data-'.length, -1);
      return this.buttons.filter((button) => name in button.dataset);
    },
  };

  constructor(script: string, data: unknown) {
    this.byId('data').textContent = JSON.stringify(data);
    for (const act of ['whole', 'in', 'out', 'left', 'right']) this.#addButton('act', act);
    for (const view of ['0', '1']) this.#addButton('view', view);
    const context = createContext({
      document: this.document,
      devicePixelRatio: 1,
      getComputedStyle: () => ({ getPropertyValue: (name: string) => name.slice(2) }),
      requestAnimationFrame: (draw: () => void) => {
        draw();
        return 1;
      },
      cancelAnimationFrame: () => undefined,
      matchMedia: () => ({ addEventListener: () => undefined }),
      ResizeObserver: class {
        constructor(readonly resized: () => void) {}
        observe(): void {
          this.resized();
        }
      },
    });
    runInContext(script, context);
  }

  byId(id: string): ElementDouble {
    let element = this.#byId.get(id);
    if (!element) this.#byId.set(id, (element = new ElementDouble()));
    return element;
  }
  button(value: string): ElementDouble {
    const found = this.buttons.find(({ dataset }) => Object.values(dataset).includes(value));
    if (!found) throw new Error(`no button ${value}`);
    return found;
  }
  #addButton(name: string, value: string): void {
    const button = new ElementDouble();
    button.dataset[name] = value;
    this.buttons.push(button);
  }
}
