import type { Gpu } from '#src/gpu/device.js';
import type { DispatchOp } from '#src/gpu/ops.js';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { nowMs } from '#src/lib/clock.js';

const LOOP = `
struct Params {
  turns: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> state: array<u32>;

@compute @workgroup_size(1)
fn main() {
  var x = state[0];
  for (var i = 0u; i < params.turns; i++) {
    x = x ^ (x << 13u);
    x = x ^ (x >> 17u);
    x = x ^ (x << 5u);
  }
  state[0] = x;
}
`;
const SAMPLES = 7;

/**
 * Real work of any length in one dispatch, about which nothing can be known before it ran: each turn needs what the
 * one before it made (xorshift32; Marsaglia, "Xorshift RNGs", 2003), and how many there are comes at the dispatch.
 */
export class LoopKernel {
  readonly #state: GPUBuffer;
  readonly #pipeline: GPUComputePipeline;
  readonly #bindGroup: GPUBindGroup;
  #turnsPerUs = 0;

  private constructor(private readonly gpu: Gpu) {
    const { device } = gpu;
    this.#state = gpu.createStorage('loop state', 16);
    device.queue.writeBuffer(this.#state, 0, Uint32Array.of(1));
    const buffer = { type: 'storage' } as const;
    const visibility = GPUShaderStage.COMPUTE;
    const layout = device.createBindGroupLayout({ entries: [{ binding: 0, visibility, buffer }] });
    this.#pipeline = device.createComputePipeline({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout], immediateSize: 4 }),
      compute: { module: device.createShaderModule({ code: LOOP }), entryPoint: 'main' },
    });
    const resource = { buffer: this.#state };
    this.#bindGroup = device.createBindGroup({ layout, entries: [{ binding: 0, resource }] });
  }

  /** Learns how fast the device goes through it: by the shortest of several runs, for the machine may be busy. */
  static async calibrate(gpu: Gpu): Promise<LoopKernel> {
    const kernel = new LoopKernel(gpu);
    const [few, many] = [20_000, 1_020_000];
    const shortest = { few: Infinity, many: Infinity };
    await kernel.#runUs(few);
    for (let i = 0; i < SAMPLES; i++) {
      shortest.few = Math.min(shortest.few, await kernel.#runUs(few));
      shortest.many = Math.min(shortest.many, await kernel.#runUs(many));
    }
    kernel.#turnsPerUs = (many - few) / Math.max(1, shortest.many - shortest.few);
    return kernel;
  }

  /** A dispatch that takes so long on a device left alone; `kernel` is the name it goes by. */
  dispatch(kernel: string, us: number, work = 1): DispatchOp {
    return this.#dispatch(kernel, Math.ceil(us * this.#turnsPerUs), work);
  }

  destroy(): void {
    this.gpu.destroyBuffer(this.#state);
  }

  #dispatch(kernel: string, turns: number, work: number): DispatchOp {
    const how = { pipeline: this.#pipeline, bindGroup: this.#bindGroup };
    return { kind: 'dispatch', kernel, work, ...how, immediates: Uint32Array.of(turns), grid: [1, 1, 1] };
  }

  async #runUs(turns: number): Promise<number> {
    const beganMs = nowMs();
    await runProgram(this.gpu, [this.#dispatch('loop', turns, 1)]);
    return (nowMs() - beganMs) * 1000;
  }
}
