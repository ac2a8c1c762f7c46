/**
 * What a resident asks of a device, in order. An executor turns a run of ops into one submit (a slice); a run may
 * be cut after any op and continued later, because everything an op leaves behind lives in device buffers.
 */
export interface DispatchOp {
  readonly kind: 'dispatch';
  /** Kernel name with its fixed choices; the unit in which costs are learnt. */
  readonly kernel: string;
  /** Amount of work in the kernel's own unit (multiply-adds or elements): the cost model learns µs per unit. */
  readonly work: number;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly immediates: Uint32Array<ArrayBuffer>;
  readonly grid: readonly [number, number, number];
}

/** Buffer to buffer; offsets and size in bytes, multiples of 4. */
export interface CopyOp {
  readonly kind: 'copy';
  readonly source: GPUBuffer;
  readonly sourceOffset: number;
  readonly target: GPUBuffer;
  readonly targetOffset: number;
  readonly bytes: number;
}

/** Fills with zeros; offset and size in bytes, multiples of 4. */
export interface ClearOp {
  readonly kind: 'clear';
  readonly target: GPUBuffer;
  readonly offset: number;
  readonly bytes: number;
}

/**
 * Host bytes to a buffer. The queue applies it before the submit that follows, so an executor must end the slice
 * first when earlier ops of it are not submitted yet. `data` is never backed by shared memory (Dawn would crash).
 */
export interface WriteOp {
  readonly kind: 'write';
  readonly target: GPUBuffer;
  readonly offset: number;
  readonly data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
}

/**
 * `call` runs on the host as soon as every op before this one is submitted: the place to map a buffer that was
 * copied into. The map itself resolves when the device is done.
 */
export interface SubmittedOp {
  readonly kind: 'submitted';
  readonly call: () => void;
}

export type Op = DispatchOp | CopyOp | ClearOp | WriteOp | SubmittedOp;

/** A run of ops, produced as it is consumed: stopping for a while is simply not asking for the next one. */
export type Program = Generator<Op, void, void>;

/** Part of a storage buffer; offset and size in bytes, offset a multiple of 256. */
export interface BufferSlice {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly bytes: number;
}
