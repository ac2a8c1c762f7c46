import { assert } from '../lib/assert.js';

/** A named row of the trace: a thread of one of its processes. */
export interface Track {
  readonly pid: number;
  readonly tid: number;
}

export type TraceArgs = Readonly<Record<string, string | number | boolean | null>>;

export interface TraceOptions {
  /** The run's start on lib/clock; it becomes 0. */
  readonly startMs: number;
  /** Events kept; later ones are counted in `dropped` and left out. */
  readonly eventsMax: number;
}

interface Timed {
  readonly track: Track;
  readonly name: string;
  readonly startNs: number;
  readonly endNs: number;
  readonly args: TraceArgs | undefined;
}

interface Thread extends Track {
  readonly name: string;
}

const CHUNK_CHARS = 64 * 1024;

/**
 * A trace in the Chrome JSON format ("Trace Event Format"), which ui.perfetto.dev opens. Times go in as milliseconds
 * on lib/clock and come out as microseconds from the run's start. The format wants slices of one thread to nest, so
 * slices that overlap are spread over further rows of the same name when the trace is written.
 */
export class Trace {
  dropped = 0;
  readonly #options: TraceOptions;
  readonly #processes: string[] = [];
  readonly #threads: Thread[] = [];
  readonly #slices: Timed[] = [];
  readonly #others: string[] = [];
  readonly #open = new Map<string, { readonly track: Track; readonly name: string; readonly id: string }>();
  #events = 0;
  #endNs = 0;

  constructor(options: TraceOptions) {
    this.#options = options;
  }

  /** The track of that process and thread name; made on first use, shown in the order of making. */
  track(process: string, thread: string): Track {
    const known = this.#processes.indexOf(process);
    const pid = known >= 0 ? known + 1 : this.#processes.push(process);
    const threads = this.#threads.filter((other) => other.pid === pid);
    const found = threads.find((other) => other.name === thread);
    if (found) return found;
    // Each track leaves as many ids free as there can be rows of overlapping slices.
    const made = { pid, tid: 1 + this.#threads.length * this.#options.eventsMax, name: thread };
    this.#threads.push(made);
    return made;
  }

  /** A slice with a beginning and a length. */
  complete(track: Track, name: string, startMs: number, durationMs: number, args?: TraceArgs): void {
    assert(durationMs >= 0, `slice ${name} lasts ${durationMs} ms`);
    if (!this.#admit(1)) return;
    this.#slices.push({
      track,
      name,
      startNs: this.#ns(startMs),
      endNs: this.#ns(startMs + durationMs),
      args,
    });
  }

  /** Begins a span that may overlap others of its track; `id` tells it apart among the open ones of that name. */
  asyncBegin(track: Track, name: string, id: string, atMs: number, args?: TraceArgs): void {
    const key = `${track.tid} ${name} ${id}`;
    assert(!this.#open.has(key), `async ${name} ${id} began twice`);
    // Its end is counted now, so that a begun span can always end.
    if (!this.#admit(2)) return;
    this.#open.set(key, { track, name, id });
    this.#push({ ph: 'b', cat: 'async', name, id, ts: this.#ns(atMs) / 1000, ...place(track), args });
  }

  /** Ends a span; one whose beginning was dropped is ignored. */
  asyncEnd(track: Track, name: string, id: string, atMs: number): void {
    if (!this.#open.delete(`${track.tid} ${name} ${id}`)) return;
    this.#push({ ph: 'e', cat: 'async', name, id, ts: this.#ns(atMs) / 1000, ...place(track) });
  }

  /** A moment. */
  instant(track: Track, name: string, atMs: number, args?: TraceArgs): void {
    if (this.#admit(1))
      this.#push({ ph: 'i', s: 't', name, ts: this.#ns(atMs) / 1000, ...place(track), args });
  }

  /** New values of the named counter of the track's process. */
  counter(track: Track, name: string, atMs: number, values: Readonly<Record<string, number>>): void {
    if (this.#admit(1))
      this.#push({ ph: 'C', name, ts: this.#ns(atMs) / 1000, ...place(track), args: values });
  }

  /** The file's text in pieces. Spans still open end with the last event. */
  *chunks(): Generator<string> {
    let chunk = '{"displayTimeUnit":"ms","traceEvents":[\n';
    let separator = '';
    for (const line of this.#lines()) {
      chunk += separator + line;
      separator = ',\n';
      if (chunk.length < CHUNK_CHARS) continue;
      yield chunk;
      chunk = '';
    }
    yield `${chunk}\n],"otherData":{"events_dropped":${this.dropped}}}\n`;
  }

  *#lines(): Generator<string> {
    for (const [index, name] of this.#processes.entries()) {
      yield* named('process', { pid: index + 1, tid: 0 }, name, index);
    }
    for (const thread of this.#threads) {
      const rows = spread(this.#slices.filter((slice) => slice.track.tid === thread.tid));
      for (let row = 0; row < Math.max(1, rows.length); row++) {
        const track = { pid: thread.pid, tid: thread.tid + row };
        yield* named('thread', track, row === 0 ? thread.name : `${thread.name} (${row + 1})`, track.tid);
        for (const { name, startNs, endNs, args } of rows[row] ?? []) {
          const dur = (endNs - startNs) / 1000;
          yield JSON.stringify({ ph: 'X', name, ts: startNs / 1000, dur, ...place(track), args });
        }
      }
    }
    yield* this.#others;
    for (const { track, name, id } of this.#open.values()) {
      yield JSON.stringify({ ph: 'e', cat: 'async', name, id, ts: this.#endNs / 1000, ...place(track) });
    }
  }

  #admit(events: number): boolean {
    const fits = this.#events + events <= this.#options.eventsMax;
    if (fits) this.#events += events;
    else this.dropped += events;
    return fits;
  }

  /** Whole nanoseconds from the run's start: as fine as the viewer goes, and exact to compare. */
  #ns(atMs: number): number {
    assert(Number.isFinite(atMs), `a time of the trace is ${atMs}`);
    const ns = Math.round((atMs - this.#options.startMs) * 1e6);
    this.#endNs = Math.max(this.#endNs, ns);
    return ns;
  }

  #push(event: object): void {
    this.#others.push(JSON.stringify(event));
  }
}

function place(track: Track): { readonly pid: number; readonly tid: number } {
  return { pid: track.pid, tid: track.tid };
}

function* named(kind: 'process' | 'thread', track: Track, name: string, order: number): Generator<string> {
  yield JSON.stringify({ ph: 'M', name: `${kind}_name`, ...place(track), args: { name } });
  yield JSON.stringify({ ph: 'M', name: `${kind}_sort_index`, ...place(track), args: { sort_index: order } });
}

/** Deals slices out to as few rows as a greedy pass needs, so that no two of a row overlap. */
function spread(slices: readonly Timed[]): Timed[][] {
  const rows: { readonly slices: Timed[]; endNs: number }[] = [];
  for (const slice of slices.toSorted((a, b) => a.startNs - b.startNs)) {
    const free = rows.find((row) => row.endNs <= slice.startNs);
    if (free) {
      free.slices.push(slice);
      free.endNs = slice.endNs;
    } else {
      rows.push({ slices: [slice], endNs: slice.endNs });
    }
  }
  return rows.map((row) => row.slices);
}
