import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RemoteLane } from '../lanes/remote-lane.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { errorText, UserError } from '../lib/errors.js';
import { saveCheckpoint } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import { paramLayout } from '../model/layout.js';
import { randomWeights } from '../model/random-weights.js';
import { Tokenizer, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE } from '../model/tokenizer.js';
import { buildCharTokenizer, CHAR_TOKEN_IDS } from '../tasks/char-tokenizer.js';
import { openEnvironment } from '../tasks/registry.js';
import type { Example } from '../tasks/task.js';
import { createProgress } from '../telemetry/progress.js';
import { type TrainSequence, supervisedSequence } from '../train/batch.js';
import { type LearningRateSchedule, learningRateAt } from '../train/schedule.js';
import { formatConfig, type PretrainConfig } from './config.js';

export interface PretrainOptions {
  readonly outFolder: string;
  readonly interrupted: AbortSignal;
}

export interface PretrainResult {
  readonly steps: number;
  /** Mean cross-entropy of the last 50 steps, nats a token. */
  readonly loss: number;
  readonly parameters: number;
  readonly seconds: number;
}

const LOSS_WINDOW_STEPS = 50;
const NOTE_EVERY_STEPS = 50;

/**
 * Trains a model from random weights on a task's corpus by supervised cross-entropy, and writes it as a Hugging Face
 * checkpoint with the tokenizer its alphabet makes. This is how the shipped model was made. Interrupted, it writes
 * nothing but says so: a half-trained checkpoint is worse than none.
 *
 * @throws UserError when the task has no corpus or alphabet, or the folder is not empty or cannot be written.
 */
export async function pretrain(config: PretrainConfig, options: PretrainOptions): Promise<PretrainResult> {
  const { environment } = await openEnvironment(config.task.name, config.task.options, process.cwd());
  const { alphabet } = environment;
  if (alphabet === undefined || environment.corpus === undefined) {
    throw new UserError(
      `task.name is "${config.task.name}", which has no corpus to pre-train on: use "arithmetic"`,
    );
  }
  const folder = options.outFolder;
  const { tokenizer, vocabSize } = await prepareFolder(folder, alphabet);
  const model = modelConfig(config, vocabSize);
  const corpus = environment.corpus({ seed: config.seed, sloppiness: config.corpus.sloppiness });
  const progress = createProgress(process.stderr);
  progress.phase('opening the device');
  const lane = await RemoteLane.open(
    { lane: 0, job: 'pretrain', adapter: null, budgets: { sliceUs: 10_000, inFlightUs: 20_000 } },
    { onTokens: () => undefined, onRecords: () => undefined, onBroken: () => undefined },
  );
  try {
    const layout = paramLayout(model, lane.storageBindingBytesMax);
    const { beta1, beta2, epsilon, weightDecay, gradNormMax, microBatchTokens } = config.optimizer;
    await lane.request({
      kind: 'createTrainer',
      config: model,
      layout,
      options: {
        rowsMax: microBatchTokens,
        contextTokensMax: model.contextTokensMax,
        adamw: { beta1, beta2, epsilon, weightDecay, gradNormMax },
      },
      weights: randomWeights(model, layout, config.seed),
    });
    progress.phase('training');
    const examples = corpus[Symbol.iterator]();
    const startedMs = nowMs();
    const losses: number[] = [];
    const objective = { algorithm: 'crossEntropy' } as const;
    for (let step = 0; step < config.steps; step++) {
      if (options.interrupted.aborted)
        throw new UserError(`interrupted after ${step} steps: no checkpoint was written`);
      const learningRate = learningRateAt(schedule(config), step);
      const sequences = nextBatch(examples, tokenizer, config.batch.sequences);
      const requestedMs = nowMs();
      const result = await lane.request({
        kind: 'train',
        requestedMs,
        sequences,
        options: { objective, learningRate },
      });
      losses.push(result.loss);
      if ((step + 1) % NOTE_EVERY_STEPS === 0) {
        progress.note(
          `step ${step + 1}/${config.steps}  loss ${mean(losses.slice(-LOSS_WINDOW_STEPS)).toFixed(4)}  learning rate ${learningRate.toExponential(2)}`,
        );
      }
    }
    const { weights } = await lane.request({ kind: 'exportWeights' });
    await saveCheckpoint(folder, model, layout, weights, folder);
    await writeFile(join(folder, 'pretrain.toml'), formatConfig(config));
    await progress.close();
    return {
      steps: config.steps,
      loss: mean(losses.slice(-LOSS_WINDOW_STEPS)),
      parameters: layout.tensors.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
      seconds: (nowMs() - startedMs) / 1000,
    };
  } catch (error) {
    await progress.close('failed');
    throw error;
  } finally {
    await lane.close();
  }
}

/** An empty folder with the tokenizer in it. */
async function prepareFolder(
  folder: string,
  alphabet: string,
): Promise<{ tokenizer: Tokenizer; vocabSize: number }> {
  const { tokenizer, tokenizerConfig, vocabSize } = buildCharTokenizer(alphabet);
  try {
    await mkdir(folder, { recursive: true });
    if ((await readdir(folder)).length > 0)
      throw new UserError(`${folder}: not empty: name a new folder with --out`);
    await writeFile(join(folder, TOKENIZER_FILE), `${JSON.stringify(tokenizer, null, 2)}\n`);
    await writeFile(join(folder, TOKENIZER_CONFIG_FILE), `${JSON.stringify(tokenizerConfig, null, 2)}\n`);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${folder}: cannot be written (${errorText(error)}): name another folder with --out`);
  }
  return { tokenizer: await Tokenizer.load(folder), vocabSize };
}

function modelConfig({ model }: PretrainConfig, vocabSize: number): ModelConfig {
  return {
    hiddenSize: model.hiddenSize,
    intermediateSize: model.intermediateSize,
    layers: model.layers,
    heads: model.heads,
    kvHeads: model.kvHeads,
    headDim: model.headDim,
    vocabSize,
    contextTokensMax: model.contextTokens,
    rmsNormEps: model.rmsNormEps,
    ropeTheta: model.ropeTheta,
    tieWordEmbeddings: model.tieWordEmbeddings,
    bosTokenId: CHAR_TOKEN_IDS.bos,
    eosTokenIds: [CHAR_TOKEN_IDS.eos],
  };
}

function schedule({ optimizer, steps }: PretrainConfig): LearningRateSchedule {
  const { learningRate: peak, warmupSteps, decay, learningRateFinal: floor } = optimizer;
  return {
    peak,
    warmupSteps,
    decay: decay === 'cosine' ? { kind: 'cosine', steps, floor } : { kind: 'constant' },
  };
}

/** Completion and end of sequence carry the loss, every token alike; the prompt carries none. */
function nextBatch(examples: Iterator<Example>, tokenizer: Tokenizer, count: number): TrainSequence[] {
  const pairs = Array.from({ length: count }, () => {
    const next = examples.next();
    assert(next.done !== true, 'the corpus has no end');
    const prompt = tokenizer.encode(next.value.prompt);
    const completion = tokenizer.encode(next.value.completion, { specialTokens: false });
    return { prompt, completion: [...completion, CHAR_TOKEN_IDS.eos] };
  });
  const trained = pairs.reduce((sum, { completion }) => sum + completion.length, 0);
  return pairs.map(({ prompt, completion }) => {
    const tokens = Int32Array.from([...prompt, ...completion]);
    const weights = new Float32Array(tokens.length);
    weights.fill(1 / trained, prompt.length - 1, tokens.length - 1);
    return supervisedSequence(tokens, weights);
  });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
