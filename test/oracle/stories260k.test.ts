import { Tokenizer } from '@huggingface/tokenizers';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ModelConfig } from '#src/model/config.js';
import { describe, expect, it } from 'vitest';
import { expectClose } from './compare.js';
import { Matrix, joinColumns } from './matrix.js';
import { transpose } from './ops.js';
import type { Params } from './params.js';
import { argmax } from './sampling.js';
import { emptyKv, forward, forwardStep } from './transformer.js';

/**
 * A real checkpoint, trained elsewhere: what finite differences cannot show, that this is the Llama others mean. The
 * reader below knows just this one file, so that nothing of the product stands between checkpoint and oracle.
 */
const FOLDER = join(import.meta.dirname, '../../../shared/models/stories260K');
const EXPECTED =
  'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.';

const CONFIG: ModelConfig = {
  hiddenSize: 64,
  intermediateSize: 172,
  layers: 5,
  heads: 8,
  kvHeads: 4,
  headDim: 8,
  vocabSize: 512,
  contextTokensMax: 512,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenIds: [2],
};

/** Reads one float32 tensor; a matrix is stored [output, input]. */
function tensorReader(file: Buffer): (name: string, rows: number, columns: number) => Matrix {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    { data_offsets: number[] }
  >;
  return (name, rows, columns) => {
    const start = 8 + headerBytes + (header[name]?.data_offsets[0] ?? NaN);
    return Matrix.from(
      rows,
      columns,
      Array.from({ length: rows * columns }, (_, i) => file.readFloatLE(start + 4 * i)),
    );
  };
}

function loadParams(): Params {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = CONFIG;
  const tensor = tensorReader(readFileSync(join(FOLDER, 'model.safetensors')));
  const linear = (name: string, output: number, input: number) =>
    transpose(tensor(`${name}.weight`, output, input));
  const params: Params = new Map();
  params.set('embedding', tensor('model.embed_tokens.weight', CONFIG.vocabSize, hiddenSize).data);
  for (let layer = 0; layer < CONFIG.layers; layer++) {
    const from = `model.layers.${layer}`;
    const put = (name: string, matrix: Matrix) => params.set(`layer${layer}.${name}`, matrix.data);
    put('attentionNorm', tensor(`${from}.input_layernorm.weight`, 1, hiddenSize));
    put(
      'qkv',
      joinColumns([
        linear(`${from}.self_attn.q_proj`, heads * headDim, hiddenSize),
        linear(`${from}.self_attn.k_proj`, kvHeads * headDim, hiddenSize),
        linear(`${from}.self_attn.v_proj`, kvHeads * headDim, hiddenSize),
      ]),
    );
    put('attentionOut', linear(`${from}.self_attn.o_proj`, hiddenSize, heads * headDim));
    put('mlpNorm', tensor(`${from}.post_attention_layernorm.weight`, 1, hiddenSize));
    const gate = linear(`${from}.mlp.gate_proj`, intermediateSize, hiddenSize);
    put('gateUp', joinColumns([gate, linear(`${from}.mlp.up_proj`, intermediateSize, hiddenSize)]));
    put('down', linear(`${from}.mlp.down_proj`, hiddenSize, intermediateSize));
  }
  return params.set('finalNorm', tensor('model.norm.weight', 1, hiddenSize).data);
}

function readJson(name: string): object {
  return JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as object;
}

describe.skipIf(!existsSync(FOLDER))('stories260K', () => {
  it('tells its story greedily, over a cache and at once', { timeout: 20_000 }, () => {
    const params = loadParams();
    const tokenizer = new Tokenizer(readJson('tokenizer.json'), readJson('tokenizer_config.json'));
    const tokens = tokenizer.encode('Once upon a time').ids.filter((id) => id !== undefined);
    const text = () => tokenizer.decode(tokens, { skip_special_tokens: true });
    const lastRow = (logits: Float64Array) => logits.subarray(-CONFIG.vocabSize);
    let { logits, kv } = forwardStep(CONFIG, params, emptyKv(CONFIG), tokens);
    while (text().length < EXPECTED.length && tokens.length < 150) {
      tokens.push(argmax(lastRow(logits)));
      ({ logits, kv } = forwardStep(CONFIG, params, kv, tokens.slice(-1)));
    }
    expect(text()).toBe(EXPECTED);
    const whole = forward(CONFIG, params, tokens).logits;
    expectClose(lastRow(logits), lastRow(whole), 1e-12, 'logits over the cache');
  });
});
