import type { Gpu } from '../gpu/device.js';
import type { DispatchOp } from '../gpu/ops.js';
import { SliceEncoder } from '../gpu/slice-encoder.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import type { CostModel } from './cost-model.js';
import { DeviceClock } from './device-clock.js';
import type { Longest } from './in-flight.js';

const QUERIES_MAX = 256;
const KITS = 4;
/** One slice in so many is timed dispatch by dispatch even when all its kernels are known. */
const SAMPLE_EVERY = 64;
/** Of the others, one in so many is timed as a whole. */
const WHOLE_EVERY = 12;
/** When a slice takes much longer or shorter than predicted, so many after it are timed as a whole. */
const DOUBTED = 8;
const DOUBT_RATIO = 1.4;
/** Empty passes timed at first, to learn how the device's clock stands to the host's. */
const PINGS = 8;

interface Kit {
  readonly querySet: GPUQuerySet;
  readonly resolved: GPUBuffer;
  readonly staging: GPUBuffer;
}

/** What a slice holds, for its timing. */
export interface Timed {
  /** In order. */
  readonly dispatches: readonly DispatchOp[];
  /** What all of them together are predicted to take. */
  readonly dispatchesUs: number;
}

/** A slice about to be filled. */
export interface TimedSlice {
  readonly encoder: SliceEncoder;
  /** True when each of its dispatches is timed by the device. */
  readonly timed: boolean;
  /** Hands it to the queue. */
  readonly submit: (slice: Timed, onLongest: OnLongest) => void;
}

/** Told when the device began a slice's first dispatch, on the host's clock; null when that cannot be known. */
export type OnBegun = (atMs: number | null) => void;

/** Told which dispatch of a slice took longest, once each has been timed. */
export type OnLongest = (longest: Longest) => void;

/** What is asked of a slice's timing. */
export interface TimingWish {
  /** Whose slice it is. */
  readonly who: string;
  /** It begins with a kernel that is still to be learnt. */
  readonly isNew: boolean;
  readonly onBegun: OnBegun | null;
}

/** Times the dispatches of some slices by timestamp queries and feeds the cost model. */
export class SliceTimer {
  readonly #free: Kit[] = [];
  readonly #reads = new Set<Promise<void>>();
  readonly #clock = new DeviceClock();
  #slices = 0;
  #doubted = DOUBTED;

  constructor(
    private readonly gpu: Gpu,
    private readonly cost: CostModel,
    private readonly onError: (error: unknown) => void,
  ) {
    if (!gpu.hasTimestamps) return;
    for (let i = 0; i < KITS; i++) {
      this.#free.push({
        querySet: gpu.device.createQuerySet({ type: 'timestamp', count: QUERIES_MAX }),
        resolved: gpu.createBuffer(
          'timestamps',
          QUERIES_MAX * 8,
          GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
        ),
        staging: gpu.createReadback('timestamps', QUERIES_MAX * 8),
      });
    }
  }

  /** True when the next slice can be timed. */
  get ready(): boolean {
    return this.#free.length > 0;
  }

  /** Resolves when no timing is on its way back from the device. */
  async settled(): Promise<void> {
    while (this.#reads.size > 0) await Promise.all(this.#reads);
  }

  /** Learns how the device's clock stands to the host's, with nothing else on the device. */
  async synchronise(): Promise<void> {
    for (let ping = 0; ping < PINGS; ping++) {
      const kit = this.#free.pop();
      if (kit === undefined) return;
      const commands = this.gpu.device.createCommandEncoder();
      const { querySet } = kit;
      const timestampWrites = { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 };
      commands.beginComputePass({ timestampWrites }).end();
      resolve(commands, kit, 2);
      const submittedMs = nowMs();
      this.gpu.device.queue.submit([commands.finish()]);
      this.#see(submittedMs, await this.#read(kit, 2));
    }
  }

  /**
   * The next slice. Its dispatches are timed one by one when it begins with a new kernel, and now and then; more often
   * it is timed as a whole, and with `onBegun` always.
   */
  begin(wish: TimingWish): TimedSlice {
    // Samples leave a kit for what cannot wait.
    const isSpare = this.#free.length > 1;
    this.#slices++;
    const timed = wish.isNew || (isSpare && this.#slices % SAMPLE_EVERY === 0);
    const isDue = this.#doubted > 0 || this.#slices % WHOLE_EVERY === 0;
    const isWhole = wish.onBegun !== null || (isSpare && isDue);
    const kit = timed || isWhole ? this.#free.pop() : undefined;
    if (kit === undefined) {
      const encoder = new SliceEncoder(this.gpu);
      const submit = (): void => {
        encoder.submit();
        wish.onBegun?.(null);
      };
      return { encoder, timed: false, submit };
    }
    if (!timed) this.#doubted = Math.max(0, this.#doubted - 1);
    const { querySet } = kit;
    const encoder = new SliceEncoder(this.gpu, { querySet, perDispatch: timed, capacity: QUERIES_MAX });
    const submit = (slice: Timed, onLongest: OnLongest): void =>
      this.#submit(encoder, kit, (stamps) => {
        wish.onBegun?.(stamps === null ? null : this.#begun(stamps));
        if (stamps === null) return;
        if (timed) this.#learnEach(stamps, slice.dispatches, onLongest);
        else this.#learnWhole(wish.who, stamps, slice.dispatchesUs);
      });
    return { encoder, timed, submit };
  }

  #submit(encoder: SliceEncoder, kit: Kit, onStamps: (stamps: BigUint64Array | null) => void): void {
    const count = encoder.queriesUsed;
    if (count === 0) {
      encoder.submit();
      this.#free.push(kit);
      onStamps(null);
      return;
    }
    const submittedMs = nowMs();
    encoder.submit((commands) => resolve(commands, kit, count));
    const read = this.#read(kit, count)
      .then((stamps) => {
        this.#see(submittedMs, stamps);
        onStamps(stamps);
      })
      .catch(this.onError)
      .finally(() => this.#reads.delete(read));
    this.#reads.add(read);
  }

  async #read(kit: Kit, count: number): Promise<BigUint64Array> {
    await kit.staging.mapAsync(GPUMapMode.READ, 0, count * 8);
    const stamps = new BigUint64Array(kit.staging.getMappedRange(0, count * 8).slice(0));
    kit.staging.unmap();
    this.#free.push(kit);
    return stamps;
  }

  #see(submittedMs: number, stamps: BigUint64Array): void {
    const [beganNs, endedNs] = [stamps.at(0), stamps.at(-1)];
    assert(beganNs !== undefined && endedNs !== undefined, 'a timed slice without a timestamp');
    this.#clock.observe({ submittedMs, beganNs, endedNs, heardMs: nowMs() });
  }

  /** When the first timed pass began, on the host's clock. */
  #begun(stamps: BigUint64Array): number | null {
    const [first] = stamps;
    return first === undefined ? null : this.#clock.hostMs(first);
  }

  /** From its first pass to its last. */
  #learnWhole(who: string, stamps: BigUint64Array, predictedUs: number): void {
    const [first, last] = [stamps.at(0), stamps.at(-1)];
    // With more passes than there are queries, the end is not known.
    if (first === undefined || last === undefined || last < first || stamps.length >= QUERIES_MAX) return;
    const realUs = Number(last - first) / 1000;
    this.cost.observeSlice(predictedUs, realUs, who);
    // Far off: more of what follows is timed.
    const ratio = realUs / predictedUs;
    if (ratio > DOUBT_RATIO || ratio < 1 / DOUBT_RATIO) this.#doubted = DOUBTED;
  }

  /** `stamps` holds the begin and the end of each timed pass, in ns. */
  #learnEach(stamps: BigUint64Array, dispatches: readonly DispatchOp[], onLongest: OnLongest): void {
    let longest: Longest | null = null;
    for (let i = 0; 2 * i + 1 < stamps.length; i++) {
      const op = dispatches[i];
      const begin = stamps[2 * i];
      const end = stamps[2 * i + 1];
      if (op === undefined || begin === undefined || end === undefined || end < begin) continue;
      const us = Number(end - begin) / 1000;
      this.cost.observe(op, us);
      if (longest === null || us > longest.us) longest = { kernel: op.kernel, us };
    }
    if (longest !== null) onLongest(longest);
  }
}

/** The first `count` timestamps, on their way to the host. */
function resolve(commands: GPUCommandEncoder, { querySet, resolved, staging }: Kit, count: number): void {
  commands.resolveQuerySet(querySet, 0, count, resolved, 0);
  commands.copyBufferToBuffer(resolved, 0, staging, 0, count * 8);
}
