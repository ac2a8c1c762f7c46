import type { BufferSlice, DispatchOp } from '../gpu/ops.js';
import type { Gpu } from '../gpu/device.js';
import { assert } from '../lib/assert.js';
import { shaders } from './shaders.gen.js';

type Shaders = typeof shaders;
export type ShaderName = keyof Shaders;

type Named = readonly { readonly name: string }[];
type Names<List extends Named> = List[number]['name'];
/** One value for each name the shader declares: a missing or misspelt one does not compile. */
export type Buffers<N extends ShaderName> = Record<Names<Shaders[N]['bindings']>, BufferSlice | GPUBuffer>;
export type Params<N extends ShaderName> = Record<Names<Shaders[N]['params']>, number>;
export type Overrides<N extends ShaderName> = Partial<Record<Names<Shaders[N]['overrides']>, number>>;
export type Preludes<N extends ShaderName> = Record<Names<Shaders[N]['preludes']>, number>;
export interface Variant<N extends ShaderName> {
  readonly overrides: Overrides<N>;
  readonly prelude: Preludes<N>;
}

interface Declared {
  readonly source: string;
  readonly bindings: readonly { readonly name: string; readonly access: string }[];
  readonly params: readonly { readonly name: string; readonly type: string }[];
  readonly overrides: readonly {
    readonly name: string;
    readonly type: string;
    readonly default: number | null;
  }[];
  readonly preludes: readonly { readonly name: string; readonly type: string }[];
}

const GRID_MAX = 65_535;

/** A pipeline with its buffers: what is left to say at a dispatch is the params, the grid and the work. */
export class Bound<N extends ShaderName> {
  constructor(
    readonly kernel: string,
    private readonly pipeline: GPUComputePipeline,
    private readonly bindGroup: GPUBindGroup,
    private readonly declared: Declared,
  ) {}

  /** `grid` counts workgroups; `work` is in the kernel's own unit and only matters relative to itself. */
  dispatch(params: Params<N>, grid: readonly [number, number, number], work: number): DispatchOp {
    for (const count of grid) {
      assert(
        Number.isInteger(count) && count > 0 && count <= GRID_MAX,
        `${this.kernel}: grid ${grid.join('×')}`,
      );
    }
    const words = new ArrayBuffer(this.declared.params.length * 4);
    const view = new DataView(words);
    const values = params as Record<string, number>;
    this.declared.params.forEach(({ name, type }, index) => {
      const value = values[name];
      assert(value !== undefined && Number.isFinite(value), `${this.kernel}: param ${name} is ${value}`);
      if (type === 'f32') view.setFloat32(index * 4, value, true);
      else view.setUint32(index * 4, value, true);
    });
    return {
      kind: 'dispatch',
      kernel: this.kernel,
      work,
      pipeline: this.pipeline,
      bindGroup: this.bindGroup,
      immediates: new Uint32Array(words),
      grid,
    };
  }
}

/** Compiled pipelines of one device, each made once. */
export class Kernels {
  readonly #pipelines = new Map<string, { pipeline: GPUComputePipeline; layout: GPUBindGroupLayout }>();

  constructor(readonly gpu: Gpu) {}

  /** Binds buffers to a shader with its overrides and prelude constants. Make these at set-up, not per step. */
  bind<N extends ShaderName>(name: N, variant: Variant<N>, buffers: Buffers<N>): Bound<N> {
    const declared: Declared = shaders[name];
    const key = variantKey(name, variant);
    const { pipeline, layout } = this.#pipeline(key, name, declared, variant);
    const given = buffers as Record<string, BufferSlice | GPUBuffer>;
    const entries = declared.bindings.map(({ name: bindingName }, binding) => {
      const slice = given[bindingName];
      assert(slice !== undefined, `${name}: no buffer for ${bindingName}`);
      const resource =
        'buffer' in slice
          ? { buffer: slice.buffer, offset: slice.offset, size: slice.bytes }
          : { buffer: slice };
      return { binding, resource };
    });
    const bindGroup = this.gpu.device.createBindGroup({ label: key, layout, entries });
    return new Bound<N>(key, pipeline, bindGroup, declared);
  }

  #pipeline<N extends ShaderName>(key: string, name: N, declared: Declared, variant: Variant<N>) {
    const known = this.#pipelines.get(key);
    if (known !== undefined) return known;
    const { device } = this.gpu;
    const prelude = declared.preludes
      .map(({ name: constant, type }) => {
        const value = (variant.prelude as Record<string, number>)[constant];
        assert(value !== undefined, `${name}: no value for prelude constant ${constant}`);
        return `const ${constant}: ${type} = ${type}(${value});\n`;
      })
      .join('');
    const layout = device.createBindGroupLayout({
      label: key,
      entries: declared.bindings.map(({ access }, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: access === 'read' ? 'read-only-storage' : 'storage' },
      })),
    });
    const pipeline = device.createComputePipeline({
      label: key,
      layout: device.createPipelineLayout({
        bindGroupLayouts: [layout],
        immediateSize: declared.params.length * 4,
      }),
      compute: {
        module: device.createShaderModule({ label: key, code: prelude + declared.source }),
        entryPoint: 'main',
        constants: definedOnly(variant.overrides),
      },
    });
    const made = { pipeline, layout };
    this.#pipelines.set(key, made);
    return made;
  }
}

function definedOnly(values: Record<string, number | undefined>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).filter((entry): entry is [string, number] => entry[1] !== undefined),
  );
}

function variantKey<N extends ShaderName>(name: N, variant: Variant<N>): string {
  const parts = [...Object.entries(variant.prelude), ...Object.entries(variant.overrides)]
    .filter(([, value]) => value !== undefined)
    .map(([constant, value]) => `${constant}=${String(value)}`)
    .sort();
  return parts.length === 0 ? name : `${name}(${parts.join(',')})`;
}
