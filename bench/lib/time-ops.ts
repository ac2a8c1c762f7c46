import type { Gpu } from '#src/gpu/device.js';
import type { DispatchOp } from '#src/gpu/ops.js';
import { readBuffer, runProgram, SliceEncoder } from '#src/gpu/slice-encoder.js';
import { assert } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';

/** What one launch of a kernel costs. Microseconds are per dispatch, over whole submits. */
export interface Timing {
  readonly dispatches: number;
  readonly submits: number;
  readonly best_us: number;
  readonly median_us: number;
  readonly repeats: number;
}

const REPEATS_MIN = 3;
const REPEATS_MAX = 50;
/** Repeats stop when this is spent and there are enough of them. */
const BUDGET_MS = 60;
/** Without timestamps a submit holds so many launches, so that its own cost weighs little. */
const HOST_LAUNCHES = 32;

/** Times one launch, a submit at a time, by the device's timestamps or, where there are none, by the host's clock. */
export async function timeOps(gpu: Gpu, ops: readonly DispatchOp[]): Promise<Timing> {
  await runProgram(gpu, ops);
  const clock = gpu.hasTimestamps ? new DeviceClock(gpu, ops.length) : null;
  const times: number[] = [];
  const startedMs = nowMs();
  while (times.length < REPEATS_MIN || (times.length < REPEATS_MAX && nowMs() - startedMs < BUDGET_MS)) {
    times.push(clock === null ? await hostUs(gpu, ops) : await clock.runUs(ops));
  }
  clock?.destroy();
  times.sort((a, b) => a - b);
  const [best, median] = [times[0], times[Math.floor(times.length / 2)]];
  assert(best !== undefined && median !== undefined, 'no repeats');
  const dispatches = ops.length;
  return {
    dispatches,
    submits: 1,
    best_us: best / dispatches,
    median_us: median / dispatches,
    repeats: times.length,
  };
}

async function hostUs(gpu: Gpu, ops: readonly DispatchOp[]): Promise<number> {
  const many = Array.from({ length: HOST_LAUNCHES }, () => ops).flat();
  const startedMs = nowMs();
  await runProgram(gpu, many);
  return ((nowMs() - startedMs) * 1000) / HOST_LAUNCHES;
}

/** A pair of timestamps for every dispatch of a submit. */
class DeviceClock {
  readonly #querySet: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #count: number;

  constructor(
    private readonly gpu: Gpu,
    dispatches: number,
  ) {
    this.#count = 2 * dispatches;
    this.#querySet = gpu.device.createQuerySet({ type: 'timestamp', count: this.#count });
    const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
    this.#resolved = gpu.createBuffer('timestamps', this.#count * 8, usage);
  }

  /** Microseconds that the dispatches took together. */
  async runUs(ops: readonly DispatchOp[]): Promise<number> {
    const timestamps = { querySet: this.#querySet, perDispatch: true, capacity: this.#count };
    const encoder = new SliceEncoder(this.gpu, timestamps);
    for (const op of ops) encoder.add(op);
    encoder.submit((commands) => {
      commands.resolveQuerySet(this.#querySet, 0, this.#count, this.#resolved, 0);
    });
    const times = new BigUint64Array(await readBuffer(this.gpu, this.#resolved, 0, this.#count * 8));
    let sumNs = 0n;
    for (let i = 0; i < this.#count; i += 2) sumNs += (times[i + 1] ?? 0n) - (times[i] ?? 0n);
    return Number(sumNs) / 1000;
  }

  destroy(): void {
    this.#querySet.destroy();
    this.gpu.destroyBuffer(this.#resolved);
  }
}
