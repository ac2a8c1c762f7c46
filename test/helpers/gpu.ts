import { afterAll, beforeAll } from 'vitest';
import { openGpu, type DeviceOptions, type Gpu } from '#src/gpu/device.js';
import { readBuffer } from '#src/gpu/slice-encoder.js';
import { Kernels } from '#src/kernels/kernels.js';
import { assert } from '#src/lib/assert.js';

export interface TestGpu {
  readonly gpu: Gpu;
  readonly kernels: Kernels;
}

/** One device for all tests of a file: opened before the first, closed after the last, with all its buffers. */
export function useGpu(options: DeviceOptions = {}): TestGpu {
  let opened: TestGpu | null = null;
  const get = (): TestGpu => {
    assert(opened !== null, 'the device is there only while a test runs');
    return opened;
  };
  beforeAll(async () => {
    const gpu = await openGpu(options);
    opened = { gpu, kernels: new Kernels(gpu) };
  });
  afterAll(async () => {
    if (opened === null) return;
    await opened.gpu.device.queue.onSubmittedWorkDone();
    opened.gpu.close();
  });
  return {
    get gpu() {
      return get().gpu;
    },
    get kernels() {
      return get().kernels;
    },
  };
}

/** A storage buffer that holds a copy of the data. */
export function upload(gpu: Gpu, data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): GPUBuffer {
  const buffer = gpu.createStorage('test data', data.byteLength);
  gpu.device.queue.writeBuffer(buffer, 0, data);
  return buffer;
}

/** The first `elements` of a buffer, once all work submitted so far is done. */
export async function readF32(
  gpu: Gpu,
  buffer: GPUBuffer,
  elements = buffer.size / 4,
): Promise<Float32Array<ArrayBuffer>> {
  return new Float32Array(await readBuffer(gpu, buffer, 0, elements * 4));
}

export async function readU32(
  gpu: Gpu,
  buffer: GPUBuffer,
  elements = buffer.size / 4,
): Promise<Uint32Array<ArrayBuffer>> {
  return new Uint32Array(await readBuffer(gpu, buffer, 0, elements * 4));
}
