import type { Gpu } from '../gpu/device.js';
import type { DispatchOp } from '../gpu/ops.js';
import { SliceEncoder } from '../gpu/slice-encoder.js';
import type { CostModel } from './cost-model.js';

const QUERIES_MAX = 256;
const KITS = 2;
/** One slice in so many is timed dispatch by dispatch even when all its kernels are known. */
const SAMPLE_EVERY = 16;

interface Kit {
  readonly querySet: GPUQuerySet;
  readonly resolved: GPUBuffer;
  readonly staging: GPUBuffer;
}

/** Times the dispatches of some slices by timestamp queries and feeds the cost model. */
export class SliceTimer {
  readonly #free: Kit[] = [];
  #slices = 0;
  #reading = 0;

  constructor(
    private readonly gpu: Gpu,
    private readonly cost: CostModel,
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

  /** Timings still on their way back from the device. */
  get reading(): number {
    return this.#reading;
  }

  /** An encoder for the next slice, timed or not, and how to submit it. */
  begin(hasNewKernels: boolean): {
    encoder: SliceEncoder;
    submit: (dispatches: readonly DispatchOp[]) => void;
  } {
    const wanted = hasNewKernels || this.#slices++ % SAMPLE_EVERY === 0;
    const kit = wanted ? this.#free.pop() : undefined;
    if (kit === undefined) {
      const encoder = new SliceEncoder(this.gpu);
      return { encoder, submit: () => encoder.submit() };
    }
    const timestamps = { querySet: kit.querySet, perDispatch: true, capacity: QUERIES_MAX };
    const encoder = new SliceEncoder(this.gpu, timestamps);
    return {
      encoder,
      submit: (dispatches) => {
        const count = encoder.queriesUsed;
        if (count === 0) {
          encoder.submit();
          this.#free.push(kit);
          return;
        }
        encoder.submit((commands) => {
          commands.resolveQuerySet(kit.querySet, 0, count, kit.resolved, 0);
          commands.copyBufferToBuffer(kit.resolved, 0, kit.staging, 0, count * 8);
        });
        this.#reading++;
        void this.#read(kit, count, dispatches);
      },
    };
  }

  async #read(kit: Kit, count: number, dispatches: readonly DispatchOp[]): Promise<void> {
    await kit.staging.mapAsync(GPUMapMode.READ, 0, count * 8);
    const stamps = new BigUint64Array(kit.staging.getMappedRange(0, count * 8).slice(0));
    kit.staging.unmap();
    this.#free.push(kit);
    this.#reading--;
    for (let i = 0; 2 * i + 1 < stamps.length; i++) {
      const op = dispatches[i];
      const begin = stamps[2 * i];
      const end = stamps[2 * i + 1];
      if (op === undefined || begin === undefined || end === undefined || end < begin) continue;
      this.cost.observe(op, Number(end - begin) / 1000);
    }
  }
}
