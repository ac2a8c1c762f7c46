/** Steps looked back over: some of them read no prompts. */
const STEPS_MAX = 16;

/** How long the latest steps of an engine take the device by prediction, whatever they had to wait for. */
export class StepTimes {
  /** A ring, in µs. */
  readonly #us: number[] = [];
  #next = 0;

  /** A step that is submitted to its end. One of whose kernels nothing is known yet, or without any, tells nothing. */
  add(us: number): void {
    if (!(us > 0) || !Number.isFinite(us)) return;
    this.#us[this.#next] = us;
    this.#next = (this.#next + 1) % STEPS_MAX;
  }

  /** The least of the latest, in ms: a step that decodes, if any of them did nothing else. Null before there is one. */
  get decodeMs(): number | null {
    return this.#us.length === 0 ? null : Math.min(...this.#us) / 1000;
  }
}
