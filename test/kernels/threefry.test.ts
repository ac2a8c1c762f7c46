import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Random, threefry2x32 } from '#src/lib/prng.js';
import { readF32, readU32, upload, useGpu } from '../helpers/gpu.js';

const device = useGpu();
const snippet = readFileSync(new URL('../../shaders/lib/threefry.wgsl', import.meta.url), 'utf8');

/** Runs `body` once for each element of `input`, which it finds as input[id.x]; it writes output[id.x]. */
async function evaluate(
  input: Uint32Array<ArrayBuffer>,
  types: { input: string; output: string },
  body: string,
): Promise<GPUBuffer> {
  const { gpu } = device;
  const code = `${snippet}
    @group(0) @binding(0) var<storage, read> input: array<${types.input}>;
    @group(0) @binding(1) var<storage, read_write> output: array<${types.output}>;
    @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) { ${body} }`;
  const pipeline = gpu.device.createComputePipeline({
    layout: 'auto',
    compute: { module: gpu.device.createShaderModule({ code }) },
  });
  const output = gpu.createStorage('output', input.byteLength);
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    gpu.device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [
        { binding: 0, resource: { buffer: upload(gpu, input) } },
        { binding: 1, resource: { buffer: output } },
      ],
    }),
  );
  pass.dispatchWorkgroups(input.length / (types.input === 'vec4u' ? 4 : 1));
  pass.end();
  gpu.device.queue.submit([encoder.finish()]);
  await gpu.device.queue.onSubmittedWorkDone();
  return output;
}

it('the shader computes the very words of src/lib/prng', async () => {
  const random = new Random(11);
  const edges = [
    [0, 0, 0, 0],
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3],
  ];
  const cases = [
    ...edges,
    ...Array.from({ length: 500 }, () => [random.word(), random.word(), random.word(), random.word()]),
  ];
  const output = await evaluate(
    Uint32Array.from(cases.flat()),
    { input: 'vec4u', output: 'vec2u' },
    'output[id.x] = threefry2x32(input[id.x].xy, input[id.x].zw);',
  );
  const words = await readU32(device.gpu, output, cases.length * 2);
  const wanted = cases.flatMap(([k0 = 0, k1 = 0, c0 = 0, c1 = 0]) => threefry2x32([k0, k1], [c0, c1]));
  expect([...words]).toEqual(wanted);
});

it('a word becomes a number strictly between 0 and 1, evenly', async () => {
  const inputs = [0, 1, 511, 512, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 513, 2 ** 32 - 512, 2 ** 32 - 1];
  const output = await evaluate(
    Uint32Array.from(inputs),
    { input: 'u32', output: 'f32' },
    'output[id.x] = uniform_open(input[id.x]);',
  );
  const numbers = await readF32(device.gpu, output, inputs.length);
  expect([...numbers]).toEqual(inputs.map((word) => (Math.floor(word / 512) + 0.5) / 2 ** 23));
  for (const number of numbers) {
    expect(number).toBeGreaterThan(0);
    expect(number).toBeLessThan(1);
  }
});
