import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ModelConfig } from '#src/model/config.js';
import { readHfConfig, toHfConfig } from '#src/model/hf-config.js';
import { Random } from '#src/lib/prng.js';
import { AWKWARD, expectUserError, hfJson, randomConfig, temporaryFolder, writeJson } from './fixtures.js';

type Json = Record<string, unknown>;

async function folderWith(changes: Json, generation?: Json): Promise<string> {
  const folder = await temporaryFolder();
  await writeJson(folder, 'config.json', { ...hfJson(AWKWARD), ...changes });
  if (generation !== undefined) await writeJson(folder, 'generation_config.json', generation);
  return folder;
}

const read = async (changes: Json, generation?: Json): Promise<ModelConfig> =>
  readHfConfig(await folderWith(changes, generation));

describe('reading config.json', () => {
  it('maps every key', async () => {
    expect(await read({})).toEqual(AWKWARD);
  });

  it('fills absent and null keys with the defaults of Llama', async () => {
    const absent = undefined;
    const config = await read({
      hidden_size: 48,
      num_key_value_heads: absent,
      head_dim: null,
      rope_theta: absent,
      tie_word_embeddings: absent,
      bos_token_id: null,
      eos_token_id: absent,
    });
    expect(config).toEqual({
      ...AWKWARD,
      hiddenSize: 48,
      kvHeads: 6,
      headDim: 8,
      ropeTheta: 10000,
      tieWordEmbeddings: false,
      bosTokenId: null,
      eosTokenIds: [],
    });
  });

  it('takes the base of the rotary frequencies from rope_parameters where newer files keep it', async () => {
    const changes = { rope_theta: undefined, rope_parameters: { rope_type: 'default', rope_theta: 1234.5 } };
    expect((await read(changes)).ropeTheta).toBe(1234.5);
    expect((await read({ rope_parameters: { rope_theta: 9 } })).ropeTheta).toBe(9);
    expect((await read({ rope_parameters: { rope_type: 'default' } })).ropeTheta).toBe(500);
  });

  it('accepts rotary scaling that scales nothing', async () => {
    expect(await read({ rope_scaling: null })).toEqual(AWKWARD);
    expect(await read({ rope_scaling: { type: 'default' } })).toEqual(AWKWARD);
  });

  it('joins the stop ids of config.json and generation_config.json, each once', async () => {
    expect((await read({ eos_token_id: 2 }, { eos_token_id: [3, 2, 5] })).eosTokenIds).toEqual([2, 3, 5]);
    expect((await read({ eos_token_id: [4] }, { eos_token_id: 7 })).eosTokenIds).toEqual([4, 7]);
    expect((await read({ eos_token_id: 2 }, { temperature: 1 })).eosTokenIds).toEqual([2]);
  });

  it('comes back from what toHfConfig writes', async () => {
    const seed = 20;
    const random = new Random(seed);
    for (let round = 0; round < 20; round++) {
      const config = randomConfig(random);
      const folder = await temporaryFolder();
      await writeJson(folder, 'config.json', toHfConfig(config));
      expect(await readHfConfig(folder), `seed ${seed}, round ${round}`).toEqual(config);
    }
  });
});

describe('what it refuses, in one line that names key, value and remedy', () => {
  const whole = (max: number) => `a whole number from 1 to ${max}`;
  const cases: [title: string, changes: Json, message: string][] = [
    [
      'another architecture',
      { architectures: ['MistralForCausalLM'] },
      'architectures is ["MistralForCausalLM"], must be ["LlamaForCausalLM"], the supported architecture',
    ],
    [
      'no architecture',
      { architectures: undefined },
      'architectures is missing, must be ["LlamaForCausalLM"], the supported architecture',
    ],
    ['a missing key', { hidden_size: undefined }, `hidden_size is missing, must be ${whole(2 ** 24)}`],
    ['a fraction', { intermediate_size: 1.5 }, `intermediate_size is 1.5, must be ${whole(2 ** 24)}`],
    ['zero', { num_attention_heads: 0 }, `num_attention_heads is 0, must be ${whole(2 ** 24)}`],
    ['a negative number', { vocab_size: -3 }, `vocab_size is -3, must be ${whole(2 ** 24)}`],
    [
      'a text for a number',
      { max_position_embeddings: '32' },
      `max_position_embeddings is "32", must be ${whole(2 ** 24)}`,
    ],
    [
      'a runaway count',
      { num_hidden_layers: 1e9 },
      `num_hidden_layers is 1000000000, must be ${whole(4096)}`,
    ],
    ['no rms_norm_eps', { rms_norm_eps: 0 }, 'rms_norm_eps is 0, must be a positive number'],
    ['a negative rope_theta', { rope_theta: -1 }, 'rope_theta is -1, must be a positive number'],
    [
      'attention biases',
      { attention_bias: true },
      'attention_bias is true, must be false: biases are not supported',
    ],
    ['MLP biases', { mlp_bias: true }, 'mlp_bias is true, must be false: biases are not supported'],
    [
      'another activation',
      { hidden_act: 'gelu' },
      'hidden_act is "gelu", must be "silu", the supported activation',
    ],
    [
      'quantised weights',
      { quantization_config: { bits: 4 } },
      'quantization_config is {"bits":4}, must be absent: save the weights in F32, F16 or BF16',
    ],
    [
      'scaled rotary positions',
      { rope_scaling: { rope_type: 'llama3', factor: 8 } },
      'rope_scaling.rope_type is "llama3", must be "default": scaled rotary positions are not supported',
    ],
    [
      'scaling under its old key',
      { rope_scaling: { type: 'linear', factor: 2 } },
      'rope_scaling.type is "linear", must be "default": scaled rotary positions are not supported',
    ],
    [
      'scaling without a type',
      { rope_scaling: { factor: 2 } },
      'rope_scaling is {"factor":2}, must be null or of rope_type "default"',
    ],
    [
      'scaling in rope_parameters',
      { rope_parameters: { rope_type: 'yarn', rope_theta: 1 } },
      'rope_parameters.rope_type is "yarn", must be "default": scaled rotary positions are not supported',
    ],
    [
      'rope_parameters without a base',
      { rope_theta: undefined, rope_parameters: { full_attention: {} } },
      'rope_parameters.rope_theta is missing: add it',
    ],
    [
      'partly rotated heads',
      { partial_rotary_factor: 0.5 },
      'partial_rotary_factor is 0.5, must be 1: rotary positions cover whole heads',
    ],
    ['an odd head', { head_dim: 5 }, 'head_dim is 5, must be even: rotary positions turn pairs of elements'],
    [
      'a head that does not divide',
      { head_dim: null },
      'hidden_size 10 is not divisible by num_attention_heads 6: correct one or give head_dim',
    ],
    [
      'groups that do not divide',
      { num_key_value_heads: 4 },
      'num_attention_heads 6 is not divisible by num_key_value_heads 4: correct one',
    ],
    [
      'a tie that is no truth value',
      { tie_word_embeddings: 'yes' },
      'tie_word_embeddings is "yes", must be true or false',
    ],
    [
      'a stop id that is no id',
      { eos_token_id: [2, '3'] },
      'eos_token_id is [2,"3"], must be a token id or a list of them',
    ],
    [
      'a stop id outside the vocabulary',
      { eos_token_id: [2, 13] },
      'eos_token_id 13 is outside the vocabulary of 13: correct it or vocab_size',
    ],
    [
      'a start id outside the vocabulary',
      { bos_token_id: 99 },
      'bos_token_id 99 is outside the vocabulary of 13: correct it or vocab_size',
    ],
  ];

  it.each(cases)('%s', async (_title, changes, message) => {
    const folder = await folderWith(changes);
    await expectUserError(readHfConfig(folder), `${join(folder, 'config.json')}: ${message}`);
  });

  it('a bad generation_config.json', async () => {
    const outside = await folderWith({}, { eos_token_id: [2, 40] });
    await expectUserError(
      readHfConfig(outside),
      `${join(outside, 'generation_config.json')}: eos_token_id 40 is outside the vocabulary of 13: correct it or vocab_size`,
    );
    const wrong = await folderWith({}, { eos_token_id: -2 });
    await expectUserError(
      readHfConfig(wrong),
      `${join(wrong, 'generation_config.json')}: eos_token_id is -2, must be a token id or a list of them`,
    );
  });

  it('no config.json, and one that is not a JSON object', async () => {
    const folder = await temporaryFolder();
    const file = join(folder, 'config.json');
    await expectUserError(
      readHfConfig(folder),
      `${file}: not found: name a folder that holds a Hugging Face checkpoint`,
    );
    await writeFile(file, '[1]');
    await expectUserError(readHfConfig(folder), `${file}: the content is [1], must be a JSON object`);
    await writeFile(file, '{\n  "a": 1,\n}');
    const error = await readHfConfig(folder).then(String, String);
    expect(error).toMatch(/config\.json: not valid JSON \(.*\): mend it or download it again$/);
    expect(error).not.toContain('\n');
  });
});
