import { assert } from '#src/lib/assert.js';
import type { ModelConfig } from '#src/model/config.js';
import { Matrix, joinColumns, sliceColumns, stackRows, sum } from './matrix.js';
import {
  attention,
  attentionBackward,
  embed,
  embedBackward,
  matmul,
  matmulBackward,
  rmsNorm,
  rmsNormBackward,
  rope,
  ropeBackward,
  siluGate,
  siluGateBackward,
  transpose,
} from './ops.js';
import { tensorMatrix, type Params } from './params.js';

/** What the backward pass needs of one layer; every matrix has a row a token. */
interface LayerCache {
  readonly input: Matrix;
  readonly attentionInput: Matrix;
  /** Query and key after the rotation. */
  readonly query: Matrix;
  readonly key: Matrix;
  readonly value: Matrix;
  readonly probabilities: readonly Matrix[];
  readonly attended: Matrix;
  readonly middle: Matrix;
  readonly mlpInput: Matrix;
  readonly gateUp: Matrix;
  readonly gated: Matrix;
}

export interface ForwardCache {
  readonly tokens: readonly number[];
  readonly layers: readonly LayerCache[];
  /** The residual stream after the last layer, before and after the final norm. */
  readonly last: Matrix;
  readonly normed: Matrix;
}

/** Keys (rotated) and values of all earlier tokens, [tokens, kvHeads · headDim] for each layer. */
export interface KvState {
  readonly tokens: number;
  readonly layers: readonly { readonly key: Matrix; readonly value: Matrix }[];
}

/** Logits [tokens, vocabulary] of one sequence from its first token, and what `backward` needs. */
export function forward(
  config: ModelConfig,
  params: Params,
  tokens: readonly number[],
): { logits: Float64Array; cache: ForwardCache } {
  const { logits, cache } = run(config, params, emptyKv(config), tokens);
  return { logits: logits.data, cache };
}

/** A context without tokens. */
export function emptyKv(config: ModelConfig): KvState {
  const columns = config.kvHeads * config.headDim;
  const layer = () => ({ key: new Matrix(0, columns), value: new Matrix(0, columns) });
  return { tokens: 0, layers: Array.from({ length: config.layers }, layer) };
}

/** Continues a context by one token or more: their logits [tokens, vocabulary], and the longer context. */
export function forwardStep(
  config: ModelConfig,
  params: Params,
  kv: KvState,
  tokens: readonly number[],
): { logits: Float64Array; kv: KvState } {
  const { logits, cache } = run(config, params, kv, tokens);
  const layers = cache.layers.map(({ key, value }) => ({ key, value }));
  return { logits: logits.data, kv: { tokens: kv.tokens + tokens.length, layers } };
}

function run(config: ModelConfig, params: Params, kv: KvState, tokens: readonly number[]) {
  assert(tokens.length > 0, 'forward: no tokens');
  const weights = modelWeights(config, params);
  const positions = tokens.map((_, index) => kv.tokens + index);
  let x = embed(weights.embedding, tokens);
  const layers = kv.layers.map((past, layer) => {
    const { out, cache } = layerForward(config, layerWeights(config, params, layer), x, past, positions);
    x = out;
    return cache;
  });
  const normed = rmsNorm(x, weights.finalNorm, config.rmsNormEps);
  const logits = matmul(normed, transpose(weights.head));
  return { logits, cache: { tokens, layers, last: x, normed } };
}

function layerForward(
  config: ModelConfig,
  weights: LayerWeights,
  input: Matrix,
  past: { key: Matrix; value: Matrix },
  positions: readonly number[],
): { out: Matrix; cache: LayerCache } {
  const queryColumns = config.heads * config.headDim;
  const kvColumns = config.kvHeads * config.headDim;
  const turn = { headDim: config.headDim, theta: config.ropeTheta };
  const attentionInput = rmsNorm(input, weights.attentionNorm, config.rmsNormEps);
  const qkv = matmul(attentionInput, weights.qkv);
  const query = rope(sliceColumns(qkv, 0, queryColumns), turn, positions);
  const newKey = rope(sliceColumns(qkv, queryColumns, kvColumns), turn, positions);
  const key = stackRows(past.key, newKey);
  const value = stackRows(past.value, sliceColumns(qkv, queryColumns + kvColumns, kvColumns));
  const { out: attended, probabilities } = attention(query, key, value, config);
  const middle = sum(input, matmul(attended, weights.attentionOut));
  const mlpInput = rmsNorm(middle, weights.mlpNorm, config.rmsNormEps);
  const gateUp = matmul(mlpInput, weights.gateUp);
  const gated = siluGate(gateUp);
  const out = sum(middle, matmul(gated, weights.down));
  const cache = {
    input,
    attentionInput,
    query,
    key,
    value,
    probabilities,
    attended,
    middle,
    mlpInput,
    gateUp,
    gated,
  };
  return { out, cache };
}

/** Gradients of all parameters, given the gradient of the logits [tokens, vocabulary] of one `forward`. */
export function backward(
  config: ModelConfig,
  params: Params,
  cache: ForwardCache,
  dLogits: Float64Array,
): Params {
  const { head, finalNorm } = modelWeights(config, params);
  const gradients: Params = new Map();
  const toHead = matmulBackward(
    cache.normed,
    transpose(head),
    new Matrix(cache.tokens.length, head.rows, dLogits),
  );
  const toLast = rmsNormBackward(cache.last, finalNorm, config.rmsNormEps, toHead.dA);
  gradients.set('finalNorm', toLast.dGain.data);
  let dX = toLast.dX;
  for (let layer = config.layers - 1; layer >= 0; layer--) {
    const layerCache = cache.layers[layer];
    assert(layerCache !== undefined, `no cache for layer ${layer}`);
    const { dInput, gradients: own } = layerBackward(
      config,
      layerWeights(config, params, layer),
      layerCache,
      dX,
    );
    for (const [name, gradient] of Object.entries(own)) gradients.set(`layer${layer}.${name}`, gradient.data);
    dX = dInput;
  }
  const dEmbedding = embedBackward(cache.tokens, dX, config.vocabSize);
  const dHead = transpose(toHead.dB);
  if (config.tieWordEmbeddings) return gradients.set('embedding', sum(dEmbedding, dHead).data);
  return gradients.set('embedding', dEmbedding.data).set('head', dHead.data);
}

function layerBackward(
  config: ModelConfig,
  weights: LayerWeights,
  cache: LayerCache,
  dOut: Matrix,
): { dInput: Matrix; gradients: LayerWeights } {
  const positions = Array.from({ length: cache.input.rows }, (_, row) => row);
  const turn = { headDim: config.headDim, theta: config.ropeTheta };
  const down = matmulBackward(cache.gated, weights.down, dOut);
  const gateUp = matmulBackward(cache.mlpInput, weights.gateUp, siluGateBackward(cache.gateUp, down.dA));
  const mlpNorm = rmsNormBackward(cache.middle, weights.mlpNorm, config.rmsNormEps, gateUp.dA);
  const dMiddle = sum(dOut, mlpNorm.dX);
  const attentionOut = matmulBackward(cache.attended, weights.attentionOut, dMiddle);
  const { query, key, value, probabilities } = cache;
  const { dQ, dK, dV } = attentionBackward(query, key, value, probabilities, attentionOut.dA, config);
  const dQkv = joinColumns([ropeBackward(dQ, turn, positions), ropeBackward(dK, turn, positions), dV]);
  const qkv = matmulBackward(cache.attentionInput, weights.qkv, dQkv);
  const attentionNorm = rmsNormBackward(cache.input, weights.attentionNorm, config.rmsNormEps, qkv.dA);
  const gradients = {
    attentionNorm: attentionNorm.dGain,
    qkv: qkv.dB,
    attentionOut: attentionOut.dB,
    mlpNorm: mlpNorm.dGain,
    gateUp: gateUp.dB,
    down: down.dB,
  };
  return { dInput: sum(dMiddle, attentionNorm.dX), gradients };
}

type LayerWeights = ReturnType<typeof layerWeights>;

function layerWeights(config: ModelConfig, params: Params, layer: number) {
  const { hiddenSize: hidden, intermediateSize: inner, heads, kvHeads, headDim } = config;
  const tensor = (name: string, rows: number, columns: number) =>
    tensorMatrix(params, `layer${layer}.${name}`, rows, columns);
  return {
    attentionNorm: tensor('attentionNorm', 1, hidden),
    qkv: tensor('qkv', hidden, (heads + 2 * kvHeads) * headDim),
    attentionOut: tensor('attentionOut', heads * headDim, hidden),
    mlpNorm: tensor('mlpNorm', 1, hidden),
    gateUp: tensor('gateUp', hidden, 2 * inner),
    down: tensor('down', inner, hidden),
  };
}

function modelWeights({ hiddenSize, vocabSize, tieWordEmbeddings }: ModelConfig, params: Params) {
  return {
    embedding: tensorMatrix(params, 'embedding', vocabSize, hiddenSize),
    finalNorm: tensorMatrix(params, 'finalNorm', 1, hiddenSize),
    head: tensorMatrix(params, tieWordEmbeddings ? 'embedding' : 'head', vocabSize, hiddenSize),
  };
}
