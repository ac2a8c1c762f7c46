/**
 * Counter-based randomness: Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers:
 * as easy as 1, 2, 3", SC 2011). The same function stands in `shaders/lib/threefry.wgsl`; a test holds them equal.
 * A draw is a pure function of (key, counter), so nothing depends on who draws first.
 */
export type Key = readonly [number, number];

const PARITY = 0x1bd11bda;
const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24] as const;

/** Two uniform 32-bit words for a 64-bit key and a 64-bit counter. */
export function threefry2x32(key: Key, counter: Key): [number, number] {
  const schedule = [key[0] >>> 0, key[1] >>> 0, (PARITY ^ key[0] ^ key[1]) >>> 0] as const;
  let x0 = (counter[0] + schedule[0]) >>> 0;
  let x1 = (counter[1] + schedule[1]) >>> 0;
  for (let group = 0; group < 5; group++) {
    for (let round = 0; round < 4; round++) {
      const rotation = ROTATIONS[(group % 2) * 4 + round] ?? 0;
      x0 = (x0 + x1) >>> 0;
      x1 = ((x1 << rotation) | (x1 >>> (32 - rotation))) >>> 0;
      x1 = (x1 ^ x0) >>> 0;
    }
    x0 = (x0 + (schedule[(group + 1) % 3] ?? 0)) >>> 0;
    x1 = (x1 + (schedule[(group + 2) % 3] ?? 0) + group + 1) >>> 0;
  }
  return [x0, x1];
}

/** The key of a named child: depends on every byte of the label and on the parent key. */
export function childKey(parent: Key, label: string | number): Key {
  const bytes = new TextEncoder().encode(typeof label === 'number' ? `#${label}` : label);
  let key: Key = threefry2x32(parent, [bytes.length, 0x6f666262]);
  for (let offset = 0; offset < bytes.length; offset += 8) {
    const word = (start: number): number =>
      ((bytes[start] ?? 0) |
        ((bytes[start + 1] ?? 0) << 8) |
        ((bytes[start + 2] ?? 0) << 16) |
        ((bytes[start + 3] ?? 0) << 24)) >>>
      0;
    key = threefry2x32(key, [word(offset), word(offset + 4)]);
  }
  return key;
}

/** The root key of a whole-number seed. */
export function seedKey(seed: number): Key {
  return threefry2x32([seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0], [0, 0]);
}

/** The sampling key of one rollout: a function of the run's seed, the task's key and the sample's index alone. */
export function rolloutKey(seed: number, taskKey: string, sampleIndex: number): Key {
  return childKey(childKey(seedKey(seed), taskKey), sampleIndex);
}

/** A sequential stream over one key, for host-side draws (tasks, tests, initial weights). */
export class Random {
  readonly #key: Key;
  #counter = 0;

  constructor(seed: number | Key) {
    this.#key = typeof seed === 'number' ? seedKey(seed) : seed;
  }

  /** Uniform 32-bit word. */
  word(): number {
    const counter = this.#counter++;
    return threefry2x32(this.#key, [counter >>> 0, Math.floor(counter / 2 ** 32)])[0];
  }

  /** Uniform in [0, 1) with 53 bits. */
  uniform(): number {
    return ((this.word() >>> 5) * 2 ** 26 + (this.word() >>> 6)) / 2 ** 53;
  }

  /** Uniform whole number in [low, high], both included. */
  int(low: number, high: number): number {
    return low + Math.floor(this.uniform() * (high - low + 1));
  }

  /** Standard normal (Box and Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.int(0, items.length - 1)];
    if (item === undefined) throw new Error('assertion failed: pick from an empty list');
    return item;
  }

  /** An independent stream for a named purpose. */
  fork(label: string | number): Random {
    return new Random(childKey(this.#key, label));
  }
}
