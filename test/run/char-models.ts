import { join } from 'node:path';
import type { ModelConfig } from '#src/model/config.js';
import { paramLayout } from '#src/model/layout.js';
import { randomWeights } from '#src/model/random-weights.js';
import { CheckpointFolder } from '#src/run/checkpoint-folder.js';
import { CHAR_TOKEN_IDS } from '#src/tasks/char-tokenizer.js';
import { temporaryFolder } from './runs.js';

/** What may be larger than tiny. */
type Size = Partial<Pick<ModelConfig, 'hiddenSize' | 'intermediateSize' | 'layers'>>;

/** An untrained model, tiny unless told otherwise, that can write every character of the alphabet; returns its folder. */
export async function randomCharModel(
  alphabet: string,
  contextTokensMax: number,
  size: Size = {},
): Promise<string> {
  const path = join(temporaryFolder(), 'model');
  const folder = await CheckpointFolder.create(path);
  try {
    const { vocabSize } = await folder.makeTokenizer(alphabet);
    const model = {
      hiddenSize: 16,
      intermediateSize: 24,
      layers: 2,
      heads: 2,
      kvHeads: 1,
      headDim: 8,
      vocabSize,
      contextTokensMax,
      rmsNormEps: 1e-5,
      ropeTheta: 10_000,
      tieWordEmbeddings: true,
      bosTokenId: CHAR_TOKEN_IDS.bos,
      eosTokenIds: [CHAR_TOKEN_IDS.eos],
      ...size,
    };
    const layout = paramLayout(model, 2 ** 27);
    await folder.save(model, layout, randomWeights(model, layout, 5), '');
  } finally {
    await folder.close();
  }
  return path;
}
