import { assert } from '../lib/assert.js';
import type { ModelConfig } from './config.js';
import type { ParamTensor } from './layout.js';

/** A tensor as Hugging Face's Llama names and shapes it, and its place in our layout. */
export interface HfTensor {
  readonly name: string;
  /** Matrices are [output, input]; embedding and head [vocabulary, hidden]; norm gains [hidden]. */
  readonly shape: readonly number[];
  /** The tensor of our layout that holds it, alone or beside others. */
  readonly param: string;
  /** First column of its place there. */
  readonly column: number;
  /** Our matrices are [input, output]; embedding, head and norms lie as they are. */
  readonly transposed: boolean;
}

/** Matrices are transposed square by square of so many rows, so that both sides stay in the cache. */
const TILE = 32;

function layerTensors(config: ModelConfig, layer: number): HfTensor[] {
  const { hiddenSize: hidden, intermediateSize: inner } = config;
  const queries = config.heads * config.headDim;
  const keys = config.kvHeads * config.headDim;
  const prefix = `model.layers.${layer}`;
  const place = (param: string, column: number) => ({ param: `layer${layer}.${param}`, column });
  const norm = (name: string, param: string): HfTensor => ({
    name: `${prefix}.${name}.weight`,
    shape: [hidden],
    ...place(param, 0),
    transposed: false,
  });
  const matrix = (name: string, rows: number, columns: number, param: string, column: number): HfTensor => ({
    name: `${prefix}.${name}.weight`,
    shape: [rows, columns],
    ...place(param, column),
    transposed: true,
  });
  return [
    norm('input_layernorm', 'attentionNorm'),
    matrix('self_attn.q_proj', queries, hidden, 'qkv', 0),
    matrix('self_attn.k_proj', keys, hidden, 'qkv', queries),
    matrix('self_attn.v_proj', keys, hidden, 'qkv', queries + keys),
    matrix('self_attn.o_proj', hidden, queries, 'attentionOut', 0),
    norm('post_attention_layernorm', 'mlpNorm'),
    matrix('mlp.gate_proj', inner, hidden, 'gateUp', 0),
    matrix('mlp.up_proj', inner, hidden, 'gateUp', inner),
    matrix('mlp.down_proj', hidden, inner, 'down', 0),
  ];
}

/** Every tensor of a checkpoint, in the order of the network. Together they fill the layout exactly. */
export function hfTensors(config: ModelConfig): HfTensor[] {
  const { vocabSize, hiddenSize } = config;
  const plain = (name: string, shape: number[], param: string): HfTensor => ({
    name,
    shape,
    param,
    column: 0,
    transposed: false,
  });
  const list = [plain('model.embed_tokens.weight', [vocabSize, hiddenSize], 'embedding')];
  for (let layer = 0; layer < config.layers; layer++) list.push(...layerTensors(config, layer));
  list.push(plain('model.norm.weight', [hiddenSize], 'finalNorm'));
  if (!config.tieWordEmbeddings) list.push(plain('lm_head.weight', [vocabSize, hiddenSize], 'head'));
  return list;
}

/** A matrix inside an array: element (row, column) stands at offset + row · stride + column. */
interface Grid {
  readonly values: Float32Array;
  readonly offset: number;
  readonly stride: number;
}

/** to[column, row] = from[row, column] for all `rows` × `columns` of `from`. */
function transpose(from: Grid, to: Grid, rows: number, columns: number): void {
  for (let rowStart = 0; rowStart < rows; rowStart += TILE) {
    const rowEnd = Math.min(rowStart + TILE, rows);
    for (let columnStart = 0; columnStart < columns; columnStart += TILE) {
      const columnEnd = Math.min(columnStart + TILE, columns);
      for (let row = rowStart; row < rowEnd; row++) {
        for (let column = columnStart; column < columnEnd; column++) {
          to.values[to.offset + column * to.stride + row] =
            from.values[from.offset + row * from.stride + column] ?? 0;
        }
      }
    }
  }
}

function checkPlace(part: HfTensor, values: Float32Array, tensor: ParamTensor, target: Float32Array): void {
  assert(tensor.name === part.param, `${part.name} lies in ${part.param}, not ${tensor.name}`);
  assert(values.length === part.shape.reduce((a, b) => a * b), `${part.name}: ${values.length} elements`);
  assert(target.length === tensor.rows * tensor.columns, `${tensor.name}: ${target.length} elements`);
}

/** Puts a checkpoint's tensor into its place; `target` is the whole tensor of our layout, [rows, columns]. */
export function importTensor(
  part: HfTensor,
  values: Float32Array,
  tensor: ParamTensor,
  target: Float32Array,
): void {
  checkPlace(part, values, tensor, target);
  const [outputs = 0, inputs = 0] = part.shape;
  if (!part.transposed) target.set(values);
  else {
    const from = { values, offset: 0, stride: inputs };
    transpose(from, { values: target, offset: part.column, stride: tensor.columns }, outputs, inputs);
  }
}

/** The reverse of `importTensor`: a copy in the checkpoint's shape. */
export function exportTensor(
  part: HfTensor,
  tensor: ParamTensor,
  source: Float32Array,
): Float32Array<ArrayBuffer> {
  const [outputs = 0, inputs = 1] = part.shape;
  const values = new Float32Array(outputs * inputs);
  checkPlace(part, values, tensor, source);
  if (!part.transposed) values.set(source);
  else {
    const from = { values: source, offset: part.column, stride: tensor.columns };
    transpose(from, { values, offset: 0, stride: inputs }, inputs, outputs);
  }
  return values;
}
