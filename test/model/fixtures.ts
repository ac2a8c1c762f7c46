import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import type { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';

/** A real checkpoint that lies beside the repository on some machines; tests that want it run only there. */
export const STORIES = '../shared/models/stories260K';

const folders: string[] = [];

afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

/** A fresh folder that goes away after the test. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'offbeat-model-'));
  folders.push(folder);
  return folder;
}

/** Holds that the promise fails with exactly this one line. */
export async function expectUserError(promise: Promise<unknown>, message: string): Promise<void> {
  const error: unknown = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  if (!(error instanceof UserError)) return;
  expect(error.message).toBe(message);
  expect(error.message).not.toContain('\n');
}

export async function writeJson(folder: string, name: string, json: unknown): Promise<void> {
  await writeFile(join(folder, name), JSON.stringify(json));
}

export interface RawTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

export function float32(shape: readonly number[], values: Iterable<number>): RawTensor {
  const data = new Uint8Array(Float32Array.from(values).buffer);
  return { dtype: 'F32', shape, data };
}

/** The bytes of a safetensors file, made by hand: length, header, data. */
export function rawSafetensors(header: string, data: Uint8Array): Uint8Array {
  const json = new TextEncoder().encode(header);
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(json.length), true);
  return Uint8Array.from([...new Uint8Array(length.buffer), ...json, ...data]);
}

export function safetensors(tensors: Readonly<Record<string, RawTensor>>): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  const data: number[] = [];
  for (const [name, tensor] of Object.entries(tensors)) {
    const begin = data.length;
    data.push(...tensor.data);
    header[name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [begin, data.length] };
  }
  return rawSafetensors(JSON.stringify(header), Uint8Array.from(data));
}

/** Small, and awkward on purpose: three queries a key, heads wider than hidden / heads, nothing a power of two. */
export const AWKWARD: ModelConfig = {
  hiddenSize: 10,
  intermediateSize: 7,
  layers: 2,
  heads: 6,
  kvHeads: 2,
  headDim: 4,
  vocabSize: 13,
  contextTokensMax: 32,
  rmsNormEps: 1e-6,
  ropeTheta: 500,
  tieWordEmbeddings: false,
  bosTokenId: 1,
  eosTokenIds: [2, 3],
};

export function randomConfig(random: Random): ModelConfig {
  const kvHeads = random.int(1, 3);
  return {
    ...AWKWARD,
    hiddenSize: random.int(1, 40),
    intermediateSize: random.int(1, 70),
    layers: random.int(1, 3),
    kvHeads,
    heads: kvHeads * random.int(1, 4),
    headDim: 2 * random.int(1, 20),
    vocabSize: random.int(4, 50),
    tieWordEmbeddings: random.int(0, 1) === 1,
    bosTokenId: random.pick([null, 0]),
    eosTokenIds: random.pick([[], [3], [1, 2]]),
  };
}

/** The config.json of `config`, as Hugging Face writes it. */
export function hfJson(config: ModelConfig): Record<string, unknown> {
  return {
    architectures: ['LlamaForCausalLM'],
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    vocab_size: config.vocabSize,
    max_position_embeddings: config.contextTokensMax,
    rms_norm_eps: config.rmsNormEps,
    rope_theta: config.ropeTheta,
    tie_word_embeddings: config.tieWordEmbeddings,
    bos_token_id: config.bosTokenId,
    eos_token_id: config.eosTokenIds,
  };
}

/** Random float32 tensors with the names and shapes of a Hugging Face Llama. */
export function hfWeights(config: ModelConfig, random: Random): Record<string, RawTensor> {
  const tensors: Record<string, RawTensor> = {};
  const add = (name: string, ...shape: number[]) => {
    const elements = shape.reduce((a, b) => a * b);
    tensors[name] = float32(
      shape,
      Array.from({ length: elements }, () => random.normal()),
    );
  };
  const { hiddenSize, intermediateSize } = config;
  add('model.embed_tokens.weight', config.vocabSize, hiddenSize);
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`;
    add(`${prefix}.input_layernorm.weight`, hiddenSize);
    add(`${prefix}.self_attn.q_proj.weight`, config.heads * config.headDim, hiddenSize);
    add(`${prefix}.self_attn.k_proj.weight`, config.kvHeads * config.headDim, hiddenSize);
    add(`${prefix}.self_attn.v_proj.weight`, config.kvHeads * config.headDim, hiddenSize);
    add(`${prefix}.self_attn.o_proj.weight`, hiddenSize, config.heads * config.headDim);
    add(`${prefix}.post_attention_layernorm.weight`, hiddenSize);
    add(`${prefix}.mlp.gate_proj.weight`, intermediateSize, hiddenSize);
    add(`${prefix}.mlp.up_proj.weight`, intermediateSize, hiddenSize);
    add(`${prefix}.mlp.down_proj.weight`, hiddenSize, intermediateSize);
  }
  add('model.norm.weight', hiddenSize);
  if (!config.tieWordEmbeddings) add('lm_head.weight', config.vocabSize, hiddenSize);
  return tensors;
}

const SPECIAL = ['<unk>', '<s>', '</s>'];
const added = (content: string, id: number) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

/** A Llama-like tokenizer of at least 3 ids: specials, then all bytes as fallback, then a few words. */
export function fallbackTokenizer(): Record<string, unknown> {
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const words = ['▁', 'a', 'b', 'é', '🙂', '▁a', 'ab', '▁▁', '▁b', 'ab▁'];
  const vocab = Object.fromEntries([...SPECIAL, ...bytes, ...words].map((token, id) => [token, id]));
  return {
    version: '1.0',
    added_tokens: SPECIAL.map(added),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab,
      merges: ['▁ a', 'a b', '▁ ▁', '▁ b', 'ab ▁'],
    },
  };
}

/** A GPT-2-like tokenizer: one id a byte in the order given by `alphabet`, then an added word and a special. */
export function byteLevelTokenizer(alphabet: readonly string[]): Record<string, unknown> {
  const vocab = Object.fromEntries(alphabet.map((character, id) => [character, id]));
  return {
    version: '1.0',
    added_tokens: [{ ...added('naïve tools', 256), special: false }, added('<|end|>', 257)],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: [] },
  };
}
