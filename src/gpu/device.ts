import { create, globals } from 'webgpu';
import { errorText, UserError } from '../lib/errors.js';
import { assert } from '../lib/assert.js';

/** What is known of the adapter, as printed by `offbeat doctor` and kept in every result file. */
export interface AdapterSummary {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** True when the adapter runs on the CPU (lavapipe, SwiftShader, WARP). */
  readonly software: boolean;
}

export interface DeviceOptions {
  /** Only adapters whose name contains this text. */
  readonly adapter?: string;
  /** `null` compiles shaders and runs nothing: a cheap test of every shader without a GPU. */
  readonly backend?: 'null';
  /** The smallest storage binding that will do, in bytes; more is asked for where the adapter has more. */
  readonly storageBindingBytesMin?: number;
}

/** A device with what the rest of the code needs to know of it. All buffers are made here, so bytes are counted. */
export class Gpu {
  readonly adapter: AdapterSummary;
  readonly limits: GPUSupportedLimits;
  readonly hasTimestamps: boolean;
  /** Resolves with a reason when the device is lost; never rejects. */
  readonly lost: Promise<string>;
  #bytesAllocated = 0;
  #closed = false;
  #firstError: string | null = null;

  constructor(
    readonly device: GPUDevice,
    adapter: AdapterSummary,
  ) {
    this.adapter = adapter;
    this.limits = device.limits;
    this.hasTimestamps = device.features.has('timestamp-query');
    this.lost = device.lost.then((info) => info.message || info.reason);
    device.onuncapturederror = (event) => {
      this.#firstError ??= event.error.message;
    };
  }

  /** Stops at the first command the device refused: whatever came after it computed nothing. */
  assertHealthy(): void {
    assert(this.#firstError === null, `the device refused a command: ${this.#firstError}`);
  }

  /** A zero-filled buffer of at least `bytes`, rounded up to a multiple of 4. */
  createBuffer(label: string, bytes: number, usage: GPUBufferUsageFlags): GPUBuffer {
    const size = Math.max(16, Math.ceil(bytes / 4) * 4);
    assert(size <= this.limits.maxBufferSize, `buffer ${label} of ${size} bytes is over the device's limit`);
    this.#bytesAllocated += size;
    return this.device.createBuffer({ label, size, usage });
  }

  /** A buffer that shaders, copies and host writes can all use. */
  createStorage(label: string, bytes: number): GPUBuffer {
    return this.createBuffer(
      label,
      bytes,
      GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    );
  }

  /** A buffer the host can map after a copy into it. */
  createReadback(label: string, bytes: number): GPUBuffer {
    return this.createBuffer(label, bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  }

  destroyBuffer(buffer: GPUBuffer): void {
    this.#bytesAllocated -= buffer.size;
    buffer.destroy();
  }

  /** Bytes in buffers made and not yet destroyed. */
  get bytesAllocated(): number {
    return this.#bytesAllocated;
  }

  /** Destroys the device. Wait for every map and completion first: Dawn aborts the process otherwise. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.device.destroy();
  }
}

// Dawn's instance must outlive every device; when it is collected the process dies.
const roots = ((globalThis as { offbeatGpuRoots?: GPU[] }).offbeatGpuRoots ??= []);

function createRoot(options: DeviceOptions): GPU {
  Object.assign(globalThis, globals);
  const flags = [
    'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia',
    'disable-dawn-features=timestamp_quantization',
  ];
  if (options.adapter !== undefined) flags.push(`adapter=${options.adapter}`);
  if (options.backend !== undefined) flags.push(`backend=${options.backend}`);
  const root = create(flags);
  roots.push(root);
  return root;
}

const SOFTWARE_NAMES = /llvmpipe|lavapipe|swiftshader|basic render|\bwarp\b/i;

/** Reads the adapter's names; `software` also trusts the adapter's own word that it is a fallback. */
export function summarizeAdapter(info: GPUAdapterInfo): AdapterSummary {
  const names = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`;
  return {
    vendor: info.vendor,
    architecture: info.architecture,
    device: info.device,
    description: info.description,
    software: SOFTWARE_NAMES.test(names) || info.isFallbackAdapter,
  };
}

/** The adapter a device would be opened on, or null when the machine has no such one. Consumes nothing. */
export async function findAdapter(options: DeviceOptions = {}): Promise<GPUAdapter | null> {
  try {
    return await createRoot(options).requestAdapter({ powerPreference: 'high-performance' });
  } catch (error) {
    // Dawn rejects, where WebGPU says null, when an adapter is asked for by name and none has it.
    if (options.adapter === undefined) throw error;
    return null;
  }
}

/**
 * Opens a device with the adapter's own limits.
 *
 * @throws UserError when there is no adapter, or its limits are too small.
 */
export async function openGpu(options: DeviceOptions = {}): Promise<Gpu> {
  const adapter = await findAdapter(options);
  if (adapter === null) {
    const which =
      options.adapter === undefined ? 'no WebGPU adapter found' : `no adapter named "${options.adapter}"`;
    throw new UserError(
      `${which}: run \`npx offbeat doctor\`, which names what is missing and the command that installs it`,
    );
  }
  const summary = summarizeAdapter(adapter.info);
  const bindingBytes = adapter.limits.maxStorageBufferBindingSize;
  const wanted = options.storageBindingBytesMin ?? 0;
  if (bindingBytes < wanted) {
    throw new UserError(
      `the adapter "${summary.description}" binds at most ${bindingBytes} bytes (maxStorageBufferBindingSize), ${wanted} are needed: use a smaller model or another adapter`,
    );
  }
  const features: GPUFeatureName[] = [];
  for (const feature of ['timestamp-query', 'shader-f16', 'subgroups'] as const) {
    if (adapter.features.has(feature)) features.push(feature);
  }
  const limits = adapter.limits;
  try {
    const device = await adapter.requestDevice({
      requiredFeatures: features,
      requiredLimits: {
        maxBufferSize: limits.maxBufferSize,
        maxStorageBufferBindingSize: bindingBytes,
        maxComputeInvocationsPerWorkgroup: Math.min(limits.maxComputeInvocationsPerWorkgroup, 256),
        maxComputeWorkgroupSizeX: Math.min(limits.maxComputeWorkgroupSizeX, 256),
        maxImmediateSize: 64,
      },
    });
    return new Gpu(device, summary);
  } catch (error) {
    throw new UserError(`the adapter "${summary.description}" refused a device: ${errorText(error)}`);
  }
}
