// A program of its own, run by `diagnose`: opens the adapter as a run would, computes something with it, and prints
// each finding as soon as it is made, so that what was found outlives a driver that takes the process down.
import { writeSync } from 'node:fs';
import { create, globals } from 'webgpu';
import { errorText } from '../lib/errors.js';
import { findAdapter, openGpu, summarizeAdapter, type AdapterSummary, type Gpu } from './device.js';
import { timestampStepNs, type Examination } from './examination.js';

const BACKENDS = ['vulkan', 'metal', 'd3d12', 'd3d11', 'opengles'];
/** Not a multiple of the workgroup size: the last workgroup must leave the rest alone. */
const VALUES = 1000;
const WORKGROUP_SIZE = 64;
const TIMED_PASSES = 16;
const SCALE = 3;
const OFFSET = 0.5;

const SHADER = /* wgsl */ `
struct Params { count: u32, scale: f32, offset: f32 }
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> input: array<f32>;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(${WORKGROUP_SIZE})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.count) { return; }
  output[id.x] = input[id.x] * params.scale + params.offset;
}`;

// Dawn's instances must outlive what they gave out.
const roots: GPU[] = [];

function print(finding: Examination): void {
  writeSync(process.stdout.fd, `${JSON.stringify(finding)}\n`);
}

/** Dawn does not tell which backend an adapter is on, so each is asked alone until one shows the same adapter. */
async function findBackend(summary: AdapterSummary): Promise<string | null> {
  for (const backend of BACKENDS) {
    const root = create(['enable-dawn-features=allow_unsafe_apis', `backend=${backend}`]);
    roots.push(root);
    const adapter = await root.requestAdapter({ powerPreference: 'high-performance' });
    if (adapter !== null && adapter.info.description === summary.description) return backend;
  }
  return null;
}

function readLimits(limits: GPUSupportedLimits): Record<string, number> {
  const values: Record<string, number> = {};
  for (const name in limits) {
    const value: unknown = Reflect.get(limits, name);
    if (typeof value === 'number') values[name] = value;
  }
  return values;
}

function encodeDispatch(
  gpu: Gpu,
  encoder: GPUCommandEncoder,
  pipeline: GPUComputePipeline,
  buffers: GPUBuffer[],
) {
  const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
  const params = new DataView(new ArrayBuffer(12));
  params.setUint32(0, VALUES, true);
  params.setFloat32(4, SCALE, true);
  params.setFloat32(8, OFFSET, true);
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, gpu.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.setImmediates(0, params.buffer);
  pass.dispatchWorkgroups(Math.ceil(VALUES / WORKGROUP_SIZE));
  pass.end();
}

/** Sends numbers to the device, lets a shader change them, and checks what comes back; null when all is right. */
async function computeProblem(gpu: Gpu): Promise<string | null> {
  const { device } = gpu;
  device.pushErrorScope('validation');
  const input = gpu.createStorage('doctor input', VALUES * 4);
  const output = gpu.createStorage('doctor output', VALUES * 4);
  const readback = gpu.createReadback('doctor readback', VALUES * 4);
  // Small whole numbers: multiplied and shifted by a half they stay exact in float32, so equality is fair.
  device.queue.writeBuffer(
    input,
    0,
    Float32Array.from({ length: VALUES }, (_, index) => index - VALUES / 2),
  );
  const pipeline = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code: SHADER }) },
  });
  const encoder = device.createCommandEncoder();
  encodeDispatch(gpu, encoder, pipeline, [input, output]);
  encoder.copyBufferToBuffer(output, 0, readback, 0, VALUES * 4);
  device.queue.submit([encoder.finish()]);
  const problem = await device.popErrorScope();
  if (problem !== null) return problem.message;
  await readback.mapAsync(GPUMapMode.READ);
  const got = new Float32Array(readback.getMappedRange());
  const wrong = got.findIndex((value, index) => value !== (index - VALUES / 2) * SCALE + OFFSET);
  if (wrong === -1) return null;
  return `number ${wrong} of ${VALUES} came back as ${got[wrong]}, not ${(wrong - VALUES / 2) * SCALE + OFFSET}`;
}

/** Timestamps around empty passes, in nanoseconds. */
async function readTimestamps(gpu: Gpu): Promise<BigUint64Array> {
  const count = TIMED_PASSES * 2;
  const querySet = gpu.device.createQuerySet({ type: 'timestamp', count });
  const resolved = gpu.createBuffer(
    'doctor timestamps',
    count * 8,
    GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  );
  const readback = gpu.createReadback('doctor timestamps readback', count * 8);
  const encoder = gpu.device.createCommandEncoder();
  for (let pass = 0; pass < TIMED_PASSES; pass++) {
    const beginningOfPassWriteIndex = pass * 2;
    const timestampWrites = {
      querySet,
      beginningOfPassWriteIndex,
      endOfPassWriteIndex: beginningOfPassWriteIndex + 1,
    };
    encoder.beginComputePass({ timestampWrites }).end();
  }
  encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, readback, 0, count * 8);
  gpu.device.queue.submit([encoder.finish()]);
  await readback.mapAsync(GPUMapMode.READ);
  return new BigUint64Array(readback.getMappedRange().slice(0));
}

async function examine(): Promise<void> {
  Object.assign(globalThis, globals);
  const adapter = await findAdapter();
  if (adapter === null) {
    print({ adapter: null });
    return;
  }
  const summary = summarizeAdapter(adapter.info);
  print({ adapter: summary, features: [...adapter.features], limits: readLimits(adapter.limits) });
  print({
    backend: await findBackend(summary),
    languageFeatures: [...(roots[0]?.wgslLanguageFeatures ?? [])],
  });
  let gpu: Gpu;
  try {
    gpu = await openGpu();
  } catch (error) {
    print({ deviceError: errorText(error) });
    return;
  }
  print({ deviceError: null });
  print({ computeError: await computeProblem(gpu).catch(errorText) });
  if (gpu.hasTimestamps) print({ timestampStepNs: timestampStepNs(await readTimestamps(gpu)) });
}

await examine();
// The library's handles would hold the process open.
process.exit(0);
