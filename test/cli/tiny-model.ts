import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { saveCheckpoint } from '#src/model/checkpoint.js';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout } from '#src/model/layout.js';
import { randomWeights } from '#src/model/random-weights.js';
import { TOKENIZER_CONFIG_FILE, TOKENIZER_FILE } from '#src/model/tokenizer.js';
import { buildCharTokenizer, CHAR_TOKEN_IDS } from '#src/tasks/char-tokenizer.js';

const ALPHABET = '0123456789+=;';

export const TINY: ModelConfig = {
  hiddenSize: 16,
  intermediateSize: 24,
  layers: 2,
  heads: 2,
  kvHeads: 1,
  headDim: 8,
  vocabSize: ALPHABET.length + 3,
  contextTokensMax: 48,
  rmsNormEps: 1e-5,
  ropeTheta: 10_000,
  tieWordEmbeddings: true,
  bosTokenId: CHAR_TOKEN_IDS.bos,
  eosTokenIds: [CHAR_TOKEN_IDS.eos],
};

/** A checkpoint folder of a random model that speaks the arithmetic task's alphabet: one token a character. */
export async function writeTinyModel(folder: string, config: ModelConfig = TINY): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const { tokenizer, tokenizerConfig } = buildCharTokenizer(ALPHABET);
  writeFileSync(join(folder, TOKENIZER_FILE), JSON.stringify(tokenizer));
  writeFileSync(join(folder, TOKENIZER_CONFIG_FILE), JSON.stringify(tokenizerConfig));
  const layout = paramLayout(config, 2 ** 27);
  await saveCheckpoint(folder, config, layout, randomWeights(config, layout, 5), folder);
  return folder;
}
