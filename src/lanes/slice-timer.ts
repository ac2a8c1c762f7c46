import type { Gpu } from '../gpu/device.js';
import type { DispatchOp } from '../gpu/ops.js';
import { SliceEncoder } from '../gpu/slice-encoder.js';
import { nowMs } from '../lib/clock.js';
import type { CostModel } from './cost-model.js';
import { DeviceClock } from './device-clock.js';
import type { Longest } from './in-flight.js';

const QUERIES_MAX = 256;
const KITS = 3;
/** One slice in so many is timed dispatch by dispatch even when all its kernels are known. */
const SAMPLE_EVERY = 16;

interface Kit {
  readonly querySet: GPUQuerySet;
  readonly resolved: GPUBuffer;
  readonly staging: GPUBuffer;
}

/** A slice about to be filled. */
export interface TimedSlice {
  readonly encoder: SliceEncoder;
  /** True when each of its dispatches is timed by the device. */
  readonly timed: boolean;
  /** Hands it to the queue; `dispatches` are those that were added, in order. */
  readonly submit: (dispatches: readonly DispatchOp[], onLongest: OnLongest) => void;
}

/** Told when the device began a slice's first dispatch, on the host's clock; null when that cannot be known. */
export type OnBegun = (atMs: number | null) => void;

/** Told which dispatch of a slice took longest, once each has been timed. */
export type OnLongest = (longest: Longest) => void;

/** What is asked of a slice's timing. */
export interface TimingWish {
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

  /**
   * The next slice. It is timed when it begins with a new kernel, and now and then; with `onBegun` at least the
   * beginning of its first dispatch is.
   */
  begin(wish: TimingWish): TimedSlice {
    // Samples leave a kit for what cannot wait.
    const timed = wish.isNew || (this.#free.length > 1 && this.#slices++ % SAMPLE_EVERY === 0);
    const kit = timed || wish.onBegun !== null ? this.#free.pop() : undefined;
    if (kit === undefined) {
      const encoder = new SliceEncoder(this.gpu);
      const submit = (): void => {
        encoder.submit();
        wish.onBegun?.(null);
      };
      return { encoder, timed: false, submit };
    }
    const { querySet } = kit;
    const capacity = timed ? QUERIES_MAX : 2;
    const encoder = new SliceEncoder(this.gpu, { querySet, perDispatch: timed, capacity });
    const submit = (dispatches: readonly DispatchOp[], onLongest: OnLongest): void =>
      this.#submit(encoder, kit, timed ? dispatches : [], wish, onLongest);
    return { encoder, timed, submit };
  }

  #submit(
    encoder: SliceEncoder,
    kit: Kit,
    dispatches: readonly DispatchOp[],
    { onBegun }: TimingWish,
    onLongest: OnLongest,
  ): void {
    const count = encoder.queriesUsed;
    if (count === 0) {
      encoder.submit();
      this.#free.push(kit);
      onBegun?.(null);
      return;
    }
    encoder.submit((commands) => {
      commands.resolveQuerySet(kit.querySet, 0, count, kit.resolved, 0);
      commands.copyBufferToBuffer(kit.resolved, 0, kit.staging, 0, count * 8);
    });
    const read = this.#read(kit, count)
      .then((stamps) => {
        onBegun?.(this.#begun(stamps));
        this.#learn(stamps, dispatches, onLongest);
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

  /** When the first timed pass began, on the host's clock; null when the device told no times. */
  #begun(stamps: BigUint64Array): number | null {
    const first = stamps.at(0);
    const last = stamps.at(-1);
    if (first === undefined || last === undefined) return null;
    this.#clock.observe(last, nowMs());
    return this.#clock.hostMs(first);
  }

  /** `stamps` holds the begin and the end of each timed pass, in ns. */
  #learn(stamps: BigUint64Array, dispatches: readonly DispatchOp[], onLongest: OnLongest): void {
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
