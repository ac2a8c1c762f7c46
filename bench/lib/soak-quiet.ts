/** Of what was told, so much is kept. */
const LINES_KEPT_MAX = 12;

/** Keeps what work tells on stderr from being shown, since a line a run is enough for a soak, but for its last lines. */
export class Quiet {
  #told: readonly string[] = [];

  /** The last lines that were told. */
  get told(): readonly string[] {
    return this.#told;
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    const { stderr } = process;
    const [write, isTTY] = [stderr.write.bind(stderr), stderr.isTTY];
    // Lines, not a block that updates in place.
    stderr.isTTY = false;
    stderr.write = (chunk: string | Uint8Array): boolean => {
      this.#told = [...this.#told, ...String(chunk).trimEnd().split('\n')].slice(-LINES_KEPT_MAX);
      return true;
    };
    try {
      return await work();
    } finally {
      stderr.write = write;
      stderr.isTTY = isTTY;
    }
  }
}
