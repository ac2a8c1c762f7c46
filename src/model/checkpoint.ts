import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { oneLine, UserError } from '../lib/errors.js';
import type { ModelConfig } from './config.js';
import { exportTensor, hfTensors, importTensor, type HfTensor } from './convert.js';
import { cannotRead, shown, systemCode, writeAtomically } from './files.js';
import { readHfConfig, toHfConfig } from './hf-config.js';
import { findTensor, tensorView, zeroBuckets, type Buckets, type ParamLayout } from './layout.js';
import { writeSafetensors } from './safetensors.js';
import { TensorFiles } from './tensor-files.js';
import { TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, Tokenizer } from './tokenizer.js';

const HEAD = 'lm_head.weight';
const EMBEDDING = 'model.embed_tokens.weight';

/**
 * Reads everything of a checkpoint folder but the weights.
 *
 * @throws UserError when config.json or tokenizer.json is missing, malformed or unsupported, or the tokenizer has
 * ids that the embedding has no row for.
 */
export async function loadCheckpoint(folder: string): Promise<{ config: ModelConfig; tokenizer: Tokenizer }> {
  const config = await readHfConfig(folder);
  const tokenizer = await Tokenizer.load(folder);
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new UserError(
      `${join(folder, TOKENIZER_FILE)}: the tokenizer has ${tokenizer.vocabSize} ids, the embedding has ${config.vocabSize} rows (vocab_size): use the tokenizer this model was trained with`,
    );
  }
  return { config, tokenizer };
}

/** Fails on anything that would be left out of the network; buffers that can be recomputed are no loss. */
function checkNames(files: TensorFiles, config: ModelConfig, expected: readonly HfTensor[]): void {
  const known = new Set(expected.map(({ name }) => name));
  for (const name of files.names) {
    const harmless = name.endsWith('.rotary_emb.inv_freq') || (name === HEAD && config.tieWordEmbeddings);
    if (known.has(name) || harmless) continue;
    throw new UserError(
      `${files.find(name)?.file}: tensor ${shown(name)} has no place in a Llama of ${config.layers} layers: check config.json`,
    );
  }
}

async function readChecked(files: TensorFiles, part: HfTensor): Promise<Float32Array<ArrayBuffer>> {
  const found = files.find(part.name);
  if (found === undefined) {
    const remedy =
      part.name === HEAD ? 'set tie_word_embeddings to true or add it' : 'check config.json or add it';
    throw new UserError(`${files.rootFile}: tensor ${shown(part.name)} is missing: ${remedy}`);
  }
  const { shape } = found.entry;
  if (shape.length !== part.shape.length || shape.some((length, axis) => length !== part.shape[axis])) {
    throw new UserError(
      `${found.file}: tensor ${shown(part.name)} has shape [${shape.join(', ')}], config.json asks for [${part.shape.join(', ')}]: correct config.json`,
    );
  }
  return files.read(part.name);
}

/** A tied checkpoint may also store the head; then it must be the embedding, or one of the two would be lost. */
async function checkTiedHead(files: TensorFiles, embedding: HfTensor, stored: Float32Array): Promise<void> {
  const found = files.find(HEAD);
  if (found === undefined) return;
  const head = await readChecked(files, { ...embedding, name: HEAD });
  if (head.some((value, index) => value !== stored[index])) {
    throw new UserError(
      `${found.file}: tensor "${HEAD}" differs from "${EMBEDDING}" though config.json ties them: set tie_word_embeddings to false`,
    );
  }
}

/**
 * Reads the weights of a checkpoint folder into the buckets of `layout`. Beyond the result it holds one tensor at
 * a time (two where a tied checkpoint also stores its head).
 *
 * Tensors that the network lacks are an error, except two harmless ones: `*.rotary_emb.inv_freq`, which is
 * recomputed, and `lm_head.weight` of a tied model where it equals the embedding.
 *
 * @throws UserError that names file and tensor: missing, truncated, malformed, of wrong shape or dtype, not finite.
 */
export async function loadWeights(
  folder: string,
  config: ModelConfig,
  layout: ParamLayout,
): Promise<Buckets> {
  const expected = hfTensors(config);
  const files = await TensorFiles.open(folder);
  try {
    checkNames(files, config, expected);
    const buckets = zeroBuckets(layout);
    for (const part of expected) {
      const tensor = findTensor(layout, part.param);
      const view = tensorView(buckets, tensor);
      importTensor(part, await readChecked(files, part), tensor, view);
      if (part.name === EMBEDDING && config.tieWordEmbeddings) await checkTiedHead(files, part, view);
    }
    return buckets;
  } finally {
    await files.close();
  }
}

/** The content of the tokenizer's files by name: tokenizer.json, and tokenizer_config.json where there is one. */
async function readTokenizerFiles(folder: string): Promise<Map<string, Buffer>> {
  const contents = new Map<string, Buffer>();
  for (const name of [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE]) {
    const file = join(folder, name);
    try {
      contents.set(name, await readFile(file));
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw cannotRead(file, error);
      if (name === TOKENIZER_FILE)
        throw new UserError(`${file}: not found: name a folder that has the tokenizer`);
    }
  }
  return contents;
}

/**
 * Writes a checkpoint folder that `loadCheckpoint`, `loadWeights` and other Llama implementations read: config.json,
 * model.safetensors in F32, and the tokenizer's files copied from `tokenizerFolder`. Each file appears whole or not
 * at all. Weights come back bit for bit.
 *
 * @throws UserError when the folder cannot be written or `tokenizerFolder` has no tokenizer.json.
 */
export async function saveCheckpoint(
  folder: string,
  config: ModelConfig,
  layout: ParamLayout,
  buckets: readonly Float32Array<ArrayBuffer>[],
  tokenizerFolder: string,
): Promise<void> {
  const tokenizerFiles = await readTokenizerFiles(tokenizerFolder);
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw new UserError(
      `${folder}: cannot be created (${systemCode(error) ?? oneLine(error)}): choose a writable folder`,
    );
  }
  const tensors = hfTensors(config).map((part) => ({
    name: part.name,
    shape: part.shape,
    values: () => {
      const tensor = findTensor(layout, part.param);
      return exportTensor(part, tensor, tensorView(buckets, tensor));
    },
  }));
  await writeSafetensors(join(folder, 'model.safetensors'), tensors);
  const json = `${JSON.stringify(toHfConfig(config), null, 2)}\n`;
  await writeAtomically(join(folder, 'config.json'), (handle) => handle.writeFile(json));
  for (const [name, content] of tokenizerFiles) {
    await writeAtomically(join(folder, name), (handle) => handle.writeFile(content));
  }
}
