import { assert } from '../lib/assert.js';
import type { Gpu } from './device.js';
import type { DispatchOp, Op } from './ops.js';

/**
 * Where one slice's timestamps go: the begin and end of each compute pass. With `perDispatch` every dispatch gets a
 * pass of its own, so that each kernel's time is seen; otherwise dispatches share one until a copy or clear ends it.
 * Passes beyond the capacity run untimed.
 */
export interface SliceTimestamps {
  readonly querySet: GPUQuerySet;
  readonly perDispatch: boolean;
  /** Queries in the set; two are used for each timed pass. */
  readonly capacity: number;
}

/** Turns ops into one command buffer, and submits it. A fresh encoder for every slice. */
export class SliceEncoder {
  readonly #encoder: GPUCommandEncoder;
  readonly #submitted: (() => void)[] = [];
  #pass: GPUComputePassEncoder | null = null;
  #pipeline: GPUComputePipeline | null = null;
  #bindGroup: GPUBindGroup | null = null;
  #commands = 0;
  #queriesUsed = 0;

  constructor(
    private readonly gpu: Gpu,
    private readonly timestamps: SliceTimestamps | null = null,
  ) {
    this.#encoder = gpu.device.createCommandEncoder();
  }

  /** Commands encoded so far: copies, clears and dispatches. */
  get commands(): number {
    return this.#commands;
  }

  get queriesUsed(): number {
    return this.#queriesUsed;
  }

  /** False when the slice must be submitted before this op may follow. */
  accepts(op: Op): boolean {
    return op.kind !== 'write' || this.#commands === 0;
  }

  add(op: Op): void {
    assert(this.accepts(op), 'a host write cannot follow commands of the same slice');
    switch (op.kind) {
      case 'dispatch':
        this.#dispatch(op);
        return;
      case 'copy':
        this.#endPass();
        this.#commands++;
        this.#encoder.copyBufferToBuffer(op.source, op.sourceOffset, op.target, op.targetOffset, op.bytes);
        return;
      case 'clear':
        this.#endPass();
        this.#commands++;
        this.#encoder.clearBuffer(op.target, op.offset, op.bytes);
        return;
      case 'write':
        assert(!isShared(op.data.buffer), 'a host write from shared memory would crash the process');
        this.gpu.device.queue.writeBuffer(op.target, op.offset, op.data);
        return;
      case 'submitted':
        this.#submitted.push(op.call);
        return;
      default:
        op satisfies never;
    }
  }

  /** Ends the command buffer, with `resolve` (for timestamps) as its last command, and hands it to the queue. */
  submit(resolve?: (encoder: GPUCommandEncoder) => void): void {
    this.#endPass();
    resolve?.(this.#encoder);
    this.gpu.device.queue.submit([this.#encoder.finish()]);
    for (const call of this.#submitted) call();
  }

  #dispatch(op: DispatchOp): void {
    if (this.timestamps?.perDispatch) this.#endPass();
    const pass = (this.#pass ??= this.#beginPass());
    if (this.#pipeline !== op.pipeline) pass.setPipeline((this.#pipeline = op.pipeline));
    if (this.#bindGroup !== op.bindGroup) pass.setBindGroup(0, (this.#bindGroup = op.bindGroup));
    pass.setImmediates(0, op.immediates);
    pass.dispatchWorkgroups(op.grid[0], op.grid[1], op.grid[2]);
    this.#commands++;
  }

  #beginPass(): GPUComputePassEncoder {
    const { timestamps } = this;
    if (timestamps === null || this.#queriesUsed + 2 > timestamps.capacity)
      return this.#encoder.beginComputePass();
    const first = this.#queriesUsed;
    this.#queriesUsed += 2;
    return this.#encoder.beginComputePass({
      timestampWrites: {
        querySet: timestamps.querySet,
        beginningOfPassWriteIndex: first,
        endOfPassWriteIndex: first + 1,
      },
    });
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
    this.#pipeline = null;
    this.#bindGroup = null;
  }
}

/** The op's type forbids shared memory already; a value that came through a message may have lost its type. */
function isShared(buffer: ArrayBufferLike): boolean {
  return buffer instanceof SharedArrayBuffer;
}

/** Submits a whole program at once, in as few submits as host writes allow. */
export function submitProgram(gpu: Gpu, program: Iterable<Op>): void {
  let encoder = new SliceEncoder(gpu);
  for (const op of program) {
    if (!encoder.accepts(op)) {
      encoder.submit();
      encoder = new SliceEncoder(gpu);
    }
    encoder.add(op);
  }
  encoder.submit();
}

/** Submits a whole program at once and waits for the device: for tests, tools and set-up, never in a lane. */
export async function runProgram(gpu: Gpu, program: Iterable<Op>): Promise<void> {
  submitProgram(gpu, program);
  await gpu.device.queue.onSubmittedWorkDone();
  gpu.assertHealthy();
}

/** Reads a buffer back: a copy of its bytes. For tests, tools and set-up. */
export async function readBuffer(
  gpu: Gpu,
  source: GPUBuffer,
  offset = 0,
  bytes = source.size,
): Promise<ArrayBuffer> {
  const staging = gpu.createReadback('read back', bytes);
  await runProgram(gpu, [
    { kind: 'copy', source, sourceOffset: offset, target: staging, targetOffset: 0, bytes },
  ]);
  await staging.mapAsync(GPUMapMode.READ);
  const copy = staging.getMappedRange(0, bytes).slice(0);
  staging.unmap();
  gpu.destroyBuffer(staging);
  return copy;
}
