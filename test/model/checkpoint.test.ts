import { existsSync } from 'node:fs';
import { chmod, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { loadCheckpoint, loadWeights, saveCheckpoint } from '#src/model/checkpoint.js';
import type { ModelConfig } from '#src/model/config.js';
import { findTensor, paramLayout, tensorView, type Buckets, type ParamLayout } from '#src/model/layout.js';
import { randomWeights } from '#src/model/random-weights.js';
import {
  AWKWARD,
  STORIES,
  expectUserError,
  fallbackTokenizer,
  float32,
  hfJson,
  hfWeights,
  randomConfig,
  safetensors,
  temporaryFolder,
  writeJson,
  type RawTensor,
} from './fixtures.js';

const BUCKET_BYTES = 2 ** 20;
const AWKWARD_LAYOUT = paramLayout(AWKWARD, BUCKET_BYTES);
const Q1 = 'model.layers.1.self_attn.q_proj.weight';
const EMBEDDING = 'model.embed_tokens.weight';

type Weights = Record<string, RawTensor>;

async function checkpoint(config: ModelConfig, weights: Weights): Promise<string> {
  const folder = await temporaryFolder();
  await writeJson(folder, 'config.json', hfJson(config));
  await writeFile(join(folder, 'model.safetensors'), safetensors(weights));
  return folder;
}

/** The same checkpoint with its tensors dealt out to shards. */
async function sharded(
  weights: Weights,
  shards: number,
): Promise<{ folder: string; map: Record<string, string> }> {
  const folder = await temporaryFolder();
  const map: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const file = `model-${shard + 1}-of-${shards}.safetensors`;
    const part = Object.entries(weights).filter((_, index) => index % shards === shard);
    for (const [name] of part) map[name] = file;
    await writeFile(join(folder, file), safetensors(Object.fromEntries(part)));
  }
  await writeJson(folder, 'model.safetensors.index.json', { metadata: { total_size: 1 }, weight_map: map });
  return { folder, map };
}

function floats(weights: Weights, name: string): Float32Array {
  const tensor = weights[name];
  if (tensor === undefined) throw new Error(`the test has no ${name}`);
  return new Float32Array(tensor.data.slice().buffer);
}

/** Our matrix [input, output] as a function of (input, output). */
function ours(layout: ParamLayout, buckets: Buckets, name: string): (row: number, column: number) => number {
  const tensor = findTensor(layout, name);
  const view = tensorView(buckets, tensor);
  return (row, column) => view[row * tensor.columns + column] ?? NaN;
}

/** Every element of the fused, input-major layout against the checkpoint's own, position by position. */
function expectConverted(config: ModelConfig, layout: ParamLayout, weights: Weights, buckets: Buckets): void {
  const { hiddenSize: hidden, intermediateSize: inner } = config;
  const queries = config.heads * config.headDim;
  const keys = config.kvHeads * config.headDim;
  let wrong = 0;
  const same = (a: number, b: number | undefined) => (wrong += a === b ? 0 : 1);
  const matrix = (name: string, inputs: number, outputs: number, param: string, column: number) => {
    const theirs = floats(weights, name);
    const at = ours(layout, buckets, param);
    for (let output = 0; output < outputs; output++) {
      for (let input = 0; input < inputs; input++)
        same(at(input, column + output), theirs[output * inputs + input]);
    }
  };
  const plain = (name: string, param: string) =>
    expect(tensorView(buckets, findTensor(layout, param)), name).toEqual(floats(weights, name));
  plain(EMBEDDING, 'embedding');
  plain('model.norm.weight', 'finalNorm');
  if (!config.tieWordEmbeddings) plain('lm_head.weight', 'head');
  for (let layer = 0; layer < config.layers; layer++) {
    const theirs = `model.layers.${layer}`;
    plain(`${theirs}.input_layernorm.weight`, `layer${layer}.attentionNorm`);
    plain(`${theirs}.post_attention_layernorm.weight`, `layer${layer}.mlpNorm`);
    matrix(`${theirs}.self_attn.q_proj.weight`, hidden, queries, `layer${layer}.qkv`, 0);
    matrix(`${theirs}.self_attn.k_proj.weight`, hidden, keys, `layer${layer}.qkv`, queries);
    matrix(`${theirs}.self_attn.v_proj.weight`, hidden, keys, `layer${layer}.qkv`, queries + keys);
    matrix(`${theirs}.self_attn.o_proj.weight`, queries, hidden, `layer${layer}.attentionOut`, 0);
    matrix(`${theirs}.mlp.gate_proj.weight`, hidden, inner, `layer${layer}.gateUp`, 0);
    matrix(`${theirs}.mlp.up_proj.weight`, hidden, inner, `layer${layer}.gateUp`, inner);
    matrix(`${theirs}.mlp.down_proj.weight`, inner, hidden, `layer${layer}.down`, 0);
  }
  expect(wrong).toBe(0);
}

describe('loading weights', () => {
  it('puts every element where the layout wants it, for one file, shards and several buckets', async () => {
    const seed = 31;
    const random = new Random(seed);
    for (let round = 0; round < 8; round++) {
      const config = round === 0 ? AWKWARD : randomConfig(random);
      const weights = hfWeights(config, random);
      // Room for the largest tensor and little more: the parameters spread over many buckets.
      const largest = Math.max(
        ...paramLayout(config, BUCKET_BYTES).tensors.map(({ rows, columns }) => rows * columns),
      );
      const layout = paramLayout(config, 4 * (largest + 64));
      const folder = round % 2 === 0 ? await checkpoint(config, weights) : (await sharded(weights, 3)).folder;
      const buckets = await loadWeights(folder, config, layout);
      try {
        expectConverted(config, layout, weights, buckets);
      } catch (error) {
        throw new Error(`seed ${seed}, round ${round}`, { cause: error });
      }
    }
  });

  it('skips rotary frequencies, and a tied head that is the embedding', async () => {
    const config = { ...AWKWARD, tieWordEmbeddings: true };
    const layout = paramLayout(config, BUCKET_BYTES);
    const weights = hfWeights(config, new Random(1));
    const stored: Weights = {
      ...weights,
      'model.layers.0.self_attn.rotary_emb.inv_freq': { dtype: 'F64', shape: [2], data: new Uint8Array(16) },
      'lm_head.weight': float32([13, 10], floats(weights, EMBEDDING)),
    };
    expectConverted(
      config,
      layout,
      weights,
      await loadWeights(await checkpoint(config, stored), config, layout),
    );
  });
});

describe('weights it refuses, in one line', () => {
  const weights = hfWeights(AWKWARD, new Random(2));
  const refused = async (changed: Weights, message: (file: string) => string, config = AWKWARD) => {
    const folder = await checkpoint(config, changed);
    const layout = paramLayout(config, BUCKET_BYTES);
    await expectUserError(loadWeights(folder, config, layout), message(join(folder, 'model.safetensors')));
  };
  const without = (name: string): Weights =>
    Object.fromEntries(Object.entries(weights).filter(([candidate]) => candidate !== name));

  it('no safetensors at all', async () => {
    const folder = await temporaryFolder();
    await expectUserError(
      loadWeights(folder, AWKWARD, AWKWARD_LAYOUT),
      `${join(folder, 'model.safetensors')}: not found, and no model.safetensors.index.json beside it: save the checkpoint as safetensors`,
    );
  });

  it('a missing tensor', () =>
    refused(without(Q1), (file) => `${file}: tensor "${Q1}" is missing: check config.json or add it`));

  it('a missing head', () =>
    refused(
      without('lm_head.weight'),
      (file) => `${file}: tensor "lm_head.weight" is missing: set tie_word_embeddings to true or add it`,
    ));

  it('a transposed matrix', () =>
    refused(
      { ...weights, [Q1]: float32([10, 24], floats(weights, Q1)) },
      (file) =>
        `${file}: tensor "${Q1}" has shape [10, 24], config.json asks for [24, 10]: correct config.json`,
    ));

  it('the right number of elements in the wrong rank', () =>
    refused(
      { ...weights, 'model.norm.weight': float32([1, 10], floats(weights, 'model.norm.weight')) },
      (file) =>
        `${file}: tensor "model.norm.weight" has shape [1, 10], config.json asks for [10]: correct config.json`,
    ));

  it('a tensor the network has no place for', () =>
    refused(
      { ...weights, 'model.layers.2.input_layernorm.weight': float32([10], new Array<number>(10).fill(1)) },
      (file) =>
        `${file}: tensor "model.layers.2.input_layernorm.weight" has no place in a Llama of 2 layers: check config.json`,
    ));

  it('a tied head that is not the embedding', () =>
    refused(
      weights,
      (file) =>
        `${file}: tensor "lm_head.weight" differs from "${EMBEDDING}" though config.json ties them: set tie_word_embeddings to false`,
      { ...AWKWARD, tieWordEmbeddings: true },
    ));

  it('a weight that is not a number', async () => {
    const values = floats(weights, Q1);
    values[17] = NaN;
    await refused(
      { ...weights, [Q1]: float32([24, 10], values) },
      (file) => `${file}: tensor "${Q1}" has NaN at element 17: train or download the checkpoint again`,
    );
  });

  it('a dtype that holds no weights', () =>
    refused(
      { ...weights, [Q1]: { dtype: 'I8', shape: [24, 10], data: new Uint8Array(240) } },
      (file) => `${file}: tensor "${Q1}" is stored in I8: convert it to F32, F16 or BF16`,
    ));
});

describe('shards it refuses, in one line', () => {
  const weights = hfWeights(AWKWARD, new Random(3));
  const load = (folder: string) => loadWeights(folder, AWKWARD, AWKWARD_LAYOUT);
  const index = (folder: string) => join(folder, 'model.safetensors.index.json');

  it('one that is missing', async () => {
    const { folder } = await sharded(weights, 2);
    const shard = join(folder, 'model-2-of-2.safetensors');
    await rm(shard);
    await expectUserError(load(folder), `${shard}: not found: download the whole checkpoint`);
  });

  it('one that lacks what the index promises', async () => {
    const { folder, map } = await sharded(weights, 2);
    const other =
      map[Q1] === 'model-1-of-2.safetensors' ? 'model-2-of-2.safetensors' : 'model-1-of-2.safetensors';
    await writeJson(folder, 'model.safetensors.index.json', { weight_map: { ...map, [Q1]: other } });
    await expectUserError(
      load(folder),
      `${index(folder)}: weight_map sends "${Q1}" to ${other}, which lacks it: download both again`,
    );
  });

  it('a tensor the index leaves out', async () => {
    const { folder, map } = await sharded(weights, 2);
    const rest = Object.fromEntries(Object.entries(map).filter(([name]) => name !== Q1));
    await writeJson(folder, 'model.safetensors.index.json', { weight_map: rest });
    await expectUserError(
      load(folder),
      `${index(folder)}: tensor "${Q1}" is missing: check config.json or add it`,
    );
  });

  it.each(['../elsewhere.safetensors', '/etc/model.safetensors', 'sub/model.safetensors', 'model.bin'])(
    'a shard called %s',
    async (shard) => {
      const { folder, map } = await sharded(weights, 1);
      await writeJson(folder, 'model.safetensors.index.json', { weight_map: { ...map, [Q1]: shard } });
      await expectUserError(
        load(folder),
        `${index(folder)}: weight_map sends "${Q1}" to "${shard}": name a .safetensors file in the same folder`,
      );
    },
  );

  it('an index without a map', async () => {
    const folder = await temporaryFolder();
    await writeJson(folder, 'model.safetensors.index.json', { weight_map: { a: 1 } });
    await expectUserError(
      load(folder),
      `${index(folder)}: weight_map is not a map from tensor to shard file: download the file again`,
    );
  });

  it('more shards than may be open at once', async () => {
    const folder = await temporaryFolder();
    const many = Object.fromEntries(
      Array.from({ length: 513 }, (_, shard) => [`t${shard}`, `${shard}.safetensors`]),
    );
    await writeJson(folder, 'model.safetensors.index.json', { weight_map: many });
    await expectUserError(load(folder), `${index(folder)}: 513 shards, at most 512 are read: merge some`);
  });
});

describe('saving', () => {
  async function tokenizerFolder(): Promise<string> {
    const folder = await temporaryFolder();
    await writeJson(folder, 'tokenizer.json', fallbackTokenizer());
    await writeJson(folder, 'tokenizer_config.json', { tokenizer_class: 'LlamaTokenizer' });
    return folder;
  }

  it('comes back bit for bit, whatever the bucket size', async () => {
    const seed = 41;
    const random = new Random(seed);
    const source = await tokenizerFolder();
    for (let round = 0; round < 5; round++) {
      const config = { ...randomConfig(random), vocabSize: 300 };
      const layout = paramLayout(config, 2 ** 16);
      const buckets = randomWeights(config, layout, round);
      // Values that a sloppy conversion would lose.
      tensorView(buckets, findTensor(layout, 'finalNorm')).fill(-0).set([1e-45]);
      const folder = join(await temporaryFolder(), 'new', 'folder');
      await saveCheckpoint(folder, config, layout, buckets, source);

      const loaded = await loadCheckpoint(folder);
      expect(loaded.config, `seed ${seed}, round ${round}`).toEqual(config);
      expect(loaded.tokenizer.vocabSize).toBe(269);
      const bits = (all: Buckets) => all.map((bucket) => new Uint32Array(bucket.buffer));
      expect(bits(await loadWeights(folder, config, layout)), `seed ${seed}, round ${round}`).toEqual(
        bits(buckets),
      );
      expect((await readdir(folder)).sort()).toEqual([
        'config.json',
        'model.safetensors',
        'tokenizer.json',
        'tokenizer_config.json',
      ]);
    }
  });

  it('writes the names, shapes and values Hugging Face has', async () => {
    const weights = hfWeights(AWKWARD, new Random(4));
    const buckets = await loadWeights(await checkpoint(AWKWARD, weights), AWKWARD, AWKWARD_LAYOUT);
    const folder = await temporaryFolder();
    await saveCheckpoint(folder, AWKWARD, AWKWARD_LAYOUT, buckets, await tokenizerFolder());
    const written = await readFile(join(folder, 'model.safetensors'));
    const headerEnd = 8 + Number(written.readBigUInt64LE());
    // The fixture lists the tensors in the order of the network, as we do, so header and data compare whole.
    const expected = Buffer.from(safetensors(weights));
    const expectedEnd = 8 + Number(expected.readBigUInt64LE());
    expect(JSON.parse(written.toString('utf8', 8, headerEnd))).toEqual(
      JSON.parse(expected.toString('utf8', 8, expectedEnd)),
    );
    expect(written.subarray(headerEnd).equals(expected.subarray(expectedEnd))).toBe(true);
  });

  it('writes nothing when there is no tokenizer to copy', async () => {
    const source = await temporaryFolder();
    const folder = join(await temporaryFolder(), 'out');
    const buckets = randomWeights(AWKWARD, AWKWARD_LAYOUT, 1);
    await expectUserError(
      saveCheckpoint(folder, AWKWARD, AWKWARD_LAYOUT, buckets, source),
      `${join(source, 'tokenizer.json')}: not found: name a folder that has the tokenizer`,
    );
    expect(existsSync(folder)).toBe(false);
  });

  it('says in one line when the folder cannot be made', async () => {
    const parent = await temporaryFolder();
    const file = join(parent, 'file');
    await writeFile(file, '');
    const folder = join(file, 'out');
    await expectUserError(
      saveCheckpoint(
        folder,
        AWKWARD,
        AWKWARD_LAYOUT,
        randomWeights(AWKWARD, AWKWARD_LAYOUT, 1),
        await tokenizerFolder(),
      ),
      `${folder}: cannot be created (ENOTDIR): choose a writable folder`,
    );
  });

  it.runIf(process.getuid?.() !== 0)('says in one line when the folder is read-only', async () => {
    const folder = await temporaryFolder();
    await chmod(folder, 0o500);
    const source = await tokenizerFolder();
    const file = join(folder, 'model.safetensors');
    await expectUserError(
      saveCheckpoint(folder, AWKWARD, AWKWARD_LAYOUT, randomWeights(AWKWARD, AWKWARD_LAYOUT, 1), source),
      `${file}: cannot be written (EACCES): choose a writable folder with enough room`,
    );
  });
});

describe('loading config and tokenizer', () => {
  it('refuses a tokenizer with more ids than the embedding has rows', async () => {
    const folder = await temporaryFolder();
    await writeJson(folder, 'config.json', hfJson({ ...AWKWARD, vocabSize: 268 }));
    await writeJson(folder, 'tokenizer.json', fallbackTokenizer());
    await expectUserError(
      loadCheckpoint(folder),
      `${join(folder, 'tokenizer.json')}: the tokenizer has 269 ids, the embedding has 268 rows (vocab_size): use the tokenizer this model was trained with`,
    );
    await writeJson(folder, 'config.json', hfJson({ ...AWKWARD, vocabSize: 269 }));
    expect((await loadCheckpoint(folder)).tokenizer.vocabSize).toBe(269);
  });

  it('refuses a folder that is not there', async () => {
    const folder = join(await temporaryFolder(), 'nowhere');
    await expectUserError(
      loadCheckpoint(folder),
      `${join(folder, 'config.json')}: not found: name a folder that holds a Hugging Face checkpoint`,
    );
  });
});

describe.runIf(existsSync(STORIES))('stories260K, a real checkpoint', () => {
  it('loads, and its data section comes back byte for byte up to the order of tensors', async () => {
    const { config } = await loadCheckpoint(STORIES);
    expect(config).toMatchObject({
      hiddenSize: 64,
      layers: 5,
      heads: 8,
      kvHeads: 4,
      headDim: 8,
      vocabSize: 512,
    });
    expect(config).toMatchObject({
      tieWordEmbeddings: true,
      bosTokenId: 1,
      eosTokenIds: [2],
      ropeTheta: 10000,
    });
    const layout = paramLayout(config, BUCKET_BYTES * 8);
    const buckets = await loadWeights(STORIES, config, layout);
    const folder = await temporaryFolder();
    await saveCheckpoint(folder, config, layout, buckets, STORIES);
    expect(await tensorBytes(join(folder, 'model.safetensors'))).toEqual(
      await tensorBytes(join(STORIES, 'model.safetensors')),
    );
  });
});

/** The bytes of every tensor in hexadecimal by name, read without the code under test. */
async function tensorBytes(file: string): Promise<Record<string, string>> {
  const bytes = await readFile(file);
  const dataStart = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, dataStart)) as Record<
    string,
    { data_offsets?: number[] }
  >;
  const slices = Object.entries(header).map(([name, { data_offsets: [begin = 0, end = 0] = [] }]) => [
    name,
    bytes.toString('hex', dataStart + begin, dataStart + end),
  ]);
  return Object.fromEntries(slices) as Record<string, string>;
}
