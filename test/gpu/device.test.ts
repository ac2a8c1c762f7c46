import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { findAdapter, openGpu, summarizeAdapter } from '#src/gpu/device.js';
import { UserError } from '#src/lib/errors.js';

describe('openGpu', () => {
  it('opens the adapter that is there, and describes it', async () => {
    const gpu = await openGpu();
    expect(`${gpu.adapter.vendor}${gpu.adapter.description}`).not.toBe('');
    expect(gpu.limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(128 * 2 ** 20);
    expect(gpu.hasTimestamps).toBe(gpu.device.features.has('timestamp-query'));
    gpu.close();
  });

  it('says what to do when no adapter has the name asked for', async () => {
    const error: unknown = await openGpu({ adapter: 'no such adapter' }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UserError);
    expect(String(error)).toMatch(/no adapter named "no such adapter".*offbeat doctor/);
    expect(await findAdapter({ adapter: 'no such adapter' })).toBeNull();
  });

  it('names the limit that is too small for the model', async () => {
    const wanted = { storageBindingBytesMin: 2 ** 60 };
    const error: unknown = await openGpu(wanted).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UserError);
    expect(String(error)).toContain('maxStorageBufferBindingSize');
  });
});

describe('Gpu', () => {
  it('counts the bytes of the buffers it made', async () => {
    const gpu = await openGpu({ backend: 'null' });
    const [a, b] = [gpu.createStorage('a', 1000), gpu.createReadback('b', 3)];
    expect([a.size, b.size]).toEqual([1000, 16]);
    expect(gpu.createStorage('c', 1001).size).toBe(1004);
    expect(gpu.bytesAllocated).toBe(1000 + 16 + 1004);
    gpu.destroyBuffer(a);
    expect(gpu.bytesAllocated).toBe(16 + 1004);
    expect(() => gpu.createStorage('huge', gpu.limits.maxBufferSize + 1)).toThrow(
      /huge.*over the device's limit/,
    );
    gpu.close();
  });

  it('tells when its device is gone, and closes twice without harm', async () => {
    const gpu = await openGpu();
    gpu.close();
    gpu.close();
    expect(await gpu.lost).not.toBe('');
  });

  it('keeps the first error of the device for whoever asks', async () => {
    const gpu = await openGpu({ backend: 'null' });
    gpu.assertHealthy();
    gpu.device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
    await gpu.device.queue.onSubmittedWorkDone();
    expect(() => gpu.assertHealthy()).toThrow('the device refused a command');
    gpu.close();
  });
});

describe('summarizeAdapter', () => {
  const info = { vendor: 'v', architecture: 'a', device: 'd', description: '', isFallbackAdapter: false };

  it.each([
    ['llvmpipe (LLVM 15.0.6, 256 bits)', true],
    ['SwiftShader Device (Subzero)', true],
    ['Microsoft Basic Render Driver', true],
    ['NVIDIA H200', false],
    ['Apple M2 (warped plastic)', false],
  ])('%s: software %s', (description, software) => {
    // The rest of GPUAdapterInfo is not read.
    expect(summarizeAdapter({ ...info, description } as GPUAdapterInfo).software).toBe(software);
  });

  it('believes an adapter that calls itself a fallback', () => {
    const fallback = { ...info, description: 'something new', isFallbackAdapter: true } as GPUAdapterInfo;
    expect(summarizeAdapter(fallback).software).toBe(true);
  });
});

it('a device outlives everything else that belongs to Dawn: the garbage collector does not take it down', async () => {
  const script = `
    import { openGpu } from '#src/gpu/device.js';
    import { readBuffer } from '#src/gpu/slice-encoder.js';
    const gpu = await openGpu();
    for (let i = 0; i < 5; i++) {
      globalThis.gc();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const buffer = gpu.createStorage('b', 16);
    console.log((await readBuffer(gpu, buffer)).byteLength);
    gpu.close();`;
  const args = ['--expose-gc', '--input-type=module', '--eval', script];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 60_000 });
  expect(stdout.trim()).toBe('16');
});
