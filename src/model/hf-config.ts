import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../lib/errors.js';
import type { ModelConfig } from './config.js';
import { readJson, readJsonIfPresent, shown } from './files.js';

const ARCHITECTURE = 'LlamaForCausalLM';
/** Far above every real model, and low enough that no count from a file can run away with the memory. */
const LENGTH_MAX = 2 ** 24;
const LAYERS_MAX = 4096;

/** Messages complete the sentence "KEY is VALUE, must be …". */
const wholeNumber = (max: number) => {
  const must = `a whole number from 1 to ${max}`;
  return z.int(must).min(1, must).max(max, must);
};
const positive = z.number('a positive number').positive('a positive number');
const tokenId = (must: string) => z.int(must).min(0, must).max(LENGTH_MAX, must);
const EOS = 'a token id or a list of them';
const eosTokenIds = z.union([tokenId(EOS), z.array(tokenId(EOS))], EOS).nullish();

const ropeType = z.literal('default', '"default": scaled rotary positions are not supported').nullish();
const rope = z
  .looseObject(
    {
      rope_type: ropeType,
      type: ropeType,
      rope_theta: positive.nullish(),
      partial_rotary_factor: z.literal(1, '1: rotary positions cover whole heads').nullish(),
    },
    'an object or null',
  )
  .nullish();

const configSchema = z.looseObject(
  {
    architectures: z
      .array(z.string(), `["${ARCHITECTURE}"], the supported architecture`)
      .refine(
        (list) => list.length === 1 && list[0] === ARCHITECTURE,
        `["${ARCHITECTURE}"], the supported architecture`,
      ),
    hidden_size: wholeNumber(LENGTH_MAX),
    intermediate_size: wholeNumber(LENGTH_MAX),
    num_hidden_layers: wholeNumber(LAYERS_MAX),
    num_attention_heads: wholeNumber(LENGTH_MAX),
    num_key_value_heads: wholeNumber(LENGTH_MAX).nullish(),
    head_dim: wholeNumber(LENGTH_MAX).nullish(),
    vocab_size: wholeNumber(LENGTH_MAX),
    max_position_embeddings: wholeNumber(LENGTH_MAX),
    rms_norm_eps: positive,
    rope_theta: positive.nullish(),
    rope_parameters: rope,
    rope_scaling: rope,
    partial_rotary_factor: z.literal(1, '1: rotary positions cover whole heads').nullish(),
    hidden_act: z.literal('silu', '"silu", the supported activation').nullish(),
    attention_bias: z.literal(false, 'false: biases are not supported').nullish(),
    mlp_bias: z.literal(false, 'false: biases are not supported').nullish(),
    quantization_config: z.null('absent: save the weights in F32, F16 or BF16').optional(),
    tie_word_embeddings: z.boolean('true or false').nullish(),
    bos_token_id: tokenId('a token id').nullish(),
    eos_token_id: eosTokenIds,
  },
  'a JSON object',
);
type HfConfig = z.infer<typeof configSchema>;

const generationSchema = z.looseObject({ eos_token_id: eosTokenIds }, 'a JSON object');

/** Checks `json` and turns the first complaint into one line. */
function check<T>(file: string, schema: z.ZodType<T>, json: unknown): T {
  const parsed = schema.safeParse(json, { reportInput: true });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const key = issue?.path.join('.') ?? '';
  const found = issue?.input === undefined ? 'missing' : shown(issue.input);
  throw new UserError(`${file}: ${key === '' ? 'the content' : key} is ${found}, must be ${issue?.message}`);
}

function asList(ids: number | number[] | null | undefined): number[] {
  if (ids === null || ids === undefined) return [];
  return typeof ids === 'number' ? [ids] : ids;
}

/** The base of the rotary frequencies; `rope_parameters` is where newer files keep it. 10000 is Llama's default. */
function ropeTheta(file: string, hf: HfConfig): number {
  const { rope_parameters: parameters, rope_scaling: scaling } = hf;
  if (scaling && (scaling.rope_type ?? scaling.type) !== 'default') {
    throw new UserError(`${file}: rope_scaling is ${shown(scaling)}, must be null or of rope_type "default"`);
  }
  const theta = parameters?.rope_theta ?? hf.rope_theta;
  if (parameters && theta === undefined)
    throw new UserError(`${file}: rope_parameters.rope_theta is missing: add it`);
  return theta ?? 10_000;
}

/** Head counts and width; `head_dim` stands alone when given. */
function headShape(file: string, hf: HfConfig): Pick<ModelConfig, 'heads' | 'kvHeads' | 'headDim'> {
  const { hidden_size: hidden, num_attention_heads: heads } = hf;
  const kvHeads = hf.num_key_value_heads ?? heads;
  const headDim = hf.head_dim ?? hidden / heads;
  if (!Number.isInteger(headDim)) {
    throw new UserError(
      `${file}: hidden_size ${hidden} is not divisible by num_attention_heads ${heads}: correct one or give head_dim`,
    );
  }
  if (headDim % 2 !== 0) {
    throw new UserError(
      `${file}: head_dim is ${headDim}, must be even: rotary positions turn pairs of elements`,
    );
  }
  if (heads % kvHeads !== 0) {
    throw new UserError(
      `${file}: num_attention_heads ${heads} is not divisible by num_key_value_heads ${kvHeads}: correct one`,
    );
  }
  return { heads, kvHeads, headDim };
}

function checkInVocabulary(file: string, key: string, ids: readonly number[], vocabSize: number): void {
  const outside = ids.find((id) => id >= vocabSize);
  if (outside !== undefined) {
    throw new UserError(
      `${file}: ${key} ${outside} is outside the vocabulary of ${vocabSize}: correct it or vocab_size`,
    );
  }
}

/**
 * Reads a Hugging Face `config.json` (Llama family), and the stop ids `generation_config.json` adds. Stop ids
 * that neither file names are not guessed.
 *
 * @throws UserError that names the file, the key, its value and what it must be.
 */
export async function readHfConfig(folder: string): Promise<ModelConfig> {
  const file = join(folder, 'config.json');
  const json = await readJson(file, 'name a folder that holds a Hugging Face checkpoint');
  const hf = check(file, configSchema, json);
  const shape = headShape(file, hf);
  const theta = ropeTheta(file, hf);
  const generationFile = join(folder, 'generation_config.json');
  const generationJson = await readJsonIfPresent(generationFile);
  const generation =
    generationJson === undefined ? {} : check(generationFile, generationSchema, generationJson);

  checkInVocabulary(file, 'bos_token_id', asList(hf.bos_token_id), hf.vocab_size);
  checkInVocabulary(file, 'eos_token_id', asList(hf.eos_token_id), hf.vocab_size);
  checkInVocabulary(generationFile, 'eos_token_id', asList(generation.eos_token_id), hf.vocab_size);
  return {
    ...shape,
    hiddenSize: hf.hidden_size,
    intermediateSize: hf.intermediate_size,
    layers: hf.num_hidden_layers,
    vocabSize: hf.vocab_size,
    contextTokensMax: hf.max_position_embeddings,
    rmsNormEps: hf.rms_norm_eps,
    ropeTheta: theta,
    tieWordEmbeddings: hf.tie_word_embeddings ?? false,
    bosTokenId: hf.bos_token_id ?? null,
    eosTokenIds: [...new Set([...asList(hf.eos_token_id), ...asList(generation.eos_token_id)])],
  };
}

/** The `config.json` that other Llama implementations read; `readHfConfig` turns it back into `config`. */
export function toHfConfig(config: ModelConfig): Record<string, unknown> {
  const [firstEos = null, ...moreEos] = config.eosTokenIds;
  return {
    architectures: [ARCHITECTURE],
    model_type: 'llama',
    hidden_act: 'silu',
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
    rope_scaling: null,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: config.tieWordEmbeddings,
    bos_token_id: config.bosTokenId,
    eos_token_id: moreEos.length === 0 ? firstEos : config.eosTokenIds,
    torch_dtype: 'float32',
  };
}
