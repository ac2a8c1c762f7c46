import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noTokens, type SequenceRequest } from '#src/engine/sequence.js';
import { at } from '#src/lib/assert.js';
import { Random, rolloutKey } from '#src/lib/prng.js';
import { loadCheckpoint, loadWeights } from '#src/model/checkpoint.js';
import { paramLayout } from '#src/model/layout.js';
import { useGpu } from '../helpers/gpu.js';
import { fromBuckets } from '../oracle/params.js';
import { distribution } from '../oracle/sampling.js';
import { forward } from '../oracle/transformer.js';
import type { Model } from '../train/fixtures.js';
import { type Outcome, SAMPLINGS, TestEngine } from './fixtures.js';

/** A real checkpoint, trained elsewhere on TinyStories; it lies beside the repository, never in it. */
const FOLDER = join(import.meta.dirname, '../../../shared/models/stories260K');
const PROMPT = 'Once upon a time';
const EXPECTED =
  'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.';
const LOGPROB_TOLERANCE = 1e-4;

const device = useGpu();

async function load() {
  const { config, tokenizer } = await loadCheckpoint(FOLDER);
  const layout = paramLayout(config, 2 ** 27);
  const buckets = await loadWeights(FOLDER, config, layout);
  const model: Model = { config, layout, buckets, params: fromBuckets(layout, buckets) };
  return { model, tokenizer };
}

/** Raw and sampled log-probabilities of every generated token by the float64 reference. */
function reference(model: Model, { promptTokenIds, sampling }: SequenceRequest, { tokenIds }: Outcome) {
  const { vocabSize } = model.config;
  const { logits } = forward(model.config, model.params, [...promptTokenIds, ...tokenIds]);
  return tokenIds.map((token, i) => {
    const position = promptTokenIds.length - 1 + i;
    const row = logits.subarray(position * vocabSize, (position + 1) * vocabSize);
    const { logprob, rawLogprob } = distribution(row, sampling);
    return { logprob: logprob(token), rawLogprob: rawLogprob(token) };
  });
}

function expectAgrees(model: Model, request: SequenceRequest, outcome: Outcome, label: string): void {
  reference(model, request, outcome).forEach(({ logprob, rawLogprob }, i) => {
    const apart = Math.max(
      Math.abs(at(outcome.logprobs, i) - logprob),
      Math.abs(at(outcome.rawLogprobs, i) - rawLogprob),
    );
    expect(apart, `${label}: token ${i}, ${logprob} and raw ${rawLogprob}`).toBeLessThan(LOGPROB_TOLERANCE);
  });
}

describe.runIf(existsSync(FOLDER))('stories260K', () => {
  it('tells its story greedily, with log-probabilities that match the float64 reference', async () => {
    const { model, tokenizer } = await load();
    const engine = await TestEngine.load(device, model, { contextTokensMax: 256, kvBlocks: 16 });
    const request: SequenceRequest = {
      id: 1,
      promptTokenIds: tokenizer.encode(PROMPT),
      generated: noTokens(),
      tokensMax: 100,
      sampling: { temperature: 0, topK: 0, topP: 1, minP: 0 },
      key: [0, 0],
      stopTokenIds: model.config.eosTokenIds,
    };
    engine.add([request]);
    await engine.run();
    const outcome = engine.outcomes.get(1);
    const text = PROMPT + tokenizer.decode(outcome.tokenIds, request.promptTokenIds);
    expect(text.slice(0, EXPECTED.length)).toBe(EXPECTED);
    expectAgrees(model, request, outcome, 'greedy');
    engine.destroy();
  });

  it('samples with log-probabilities that match the float64 reference, whatever the filters', async () => {
    const { model, tokenizer } = await load();
    const random = new Random(520);
    const prompts = [PROMPT, 'Tom', 'The big dog was very', 'One day, Lily and her mom went to the'];
    const requests = SAMPLINGS.map((sampling, id): SequenceRequest => ({
      id,
      promptTokenIds: tokenizer.encode(random.pick(prompts)),
      generated: noTokens(),
      tokensMax: 40,
      sampling,
      key: rolloutKey(520, 'story', id),
      stopTokenIds: model.config.eosTokenIds,
    }));
    const engine = await TestEngine.load(device, model, { slots: 8, contextTokensMax: 64, kvBlocks: 32 });
    engine.add(requests);
    await engine.run();
    for (const request of requests) {
      expectAgrees(model, request, engine.outcomes.get(request.id), `seed 520, sampling ${request.id}`);
    }
    engine.destroy();
  });
});
