import { RemoteLane } from '../lanes/remote-lane.js';
import { laneSettings } from '../lanes/settings.js';
import { nowMs } from '../lib/clock.js';
import { UserError } from '../lib/errors.js';
import type { ModelConfig } from '../model/config.js';
import { type ParamLayout, paramLayout } from '../model/layout.js';
import { randomWeights } from '../model/random-weights.js';
import { CHAR_TOKEN_IDS } from '../tasks/char-tokenizer.js';
import { openEnvironment } from '../tasks/registry.js';
import { createProgress, type Progress } from '../telemetry/progress.js';
import { type LearningRateSchedule, learningRateAt } from '../train/schedule.js';
import { CheckpointFolder } from './checkpoint-folder.js';
import { formatConfig, type PretrainConfig } from './config.js';
import { ExampleSource } from './example-source.js';

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

const JOB = 'pretrain';
const LOSS_WINDOW_STEPS = 50;
const NOTE_EVERY_STEPS = 50;

/**
 * Trains a model from random weights on a task's corpus by supervised cross-entropy, and writes it as a Hugging Face
 * checkpoint with the tokenizer its alphabet makes. This is how the shipped model was made. Interrupted, it writes
 * nothing but says so: a half-trained checkpoint is worse than none.
 *
 * @throws UserError when the task has no corpus or alphabet, its examples do not fit the model, or the folder is not
 * empty or cannot be written.
 */
export async function pretrain(config: PretrainConfig, options: PretrainOptions): Promise<PretrainResult> {
  const { environment } = await openEnvironment(config.task.name, config.task.options, process.cwd());
  const { alphabet } = environment;
  if (alphabet === undefined || environment.corpus === undefined) {
    throw new UserError(
      `task.name is "${config.task.name}", which has no corpus to pre-train on: use "arithmetic"`,
    );
  }
  const corpus = environment.corpus({ seed: config.seed, sloppiness: config.corpus.sloppiness });
  const target = await CheckpointFolder.create(options.outFolder);
  const progress = createProgress(process.stderr);
  try {
    const { tokenizer, vocabSize } = await target.makeTokenizer(alphabet);
    const examples = new ExampleSource(corpus, tokenizer, config.model.contextTokens);
    progress.phase('opening the device');
    const lane = await RemoteLane.open(
      {
        lane: 0,
        adapter: null,
        settings: laneSettings({ sliceUs: 10_000, inFlightUs: 20_000 }),
      },
      { onTokens: () => undefined, onRecords: () => undefined, onBroken: () => undefined },
    );
    try {
      const model = modelConfig(config, vocabSize);
      const layout = paramLayout(model, lane.storageBindingBytesMax);
      const startedMs = nowMs();
      const loss = await train(lane, { config, model, layout, examples, progress, ...options });
      const { weights } = await lane.request({ kind: 'exportWeights', job: JOB });
      await target.save(model, layout, weights, formatConfig(config));
      await progress.close();
      const parameters = layout.tensors.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
      return { steps: config.steps, loss, parameters, seconds: (nowMs() - startedMs) / 1000 };
    } finally {
      await lane.close();
    }
  } catch (error) {
    await progress.close('failed');
    throw error;
  } finally {
    await target.close();
  }
}

interface TrainParts {
  readonly config: PretrainConfig;
  readonly model: ModelConfig;
  readonly layout: ParamLayout;
  readonly examples: ExampleSource;
  readonly progress: Progress;
  readonly interrupted: AbortSignal;
}

/** All steps on an open lane; the mean loss of the last ones. */
async function train(lane: RemoteLane, parts: TrainParts): Promise<number> {
  const { config, model, layout, examples, progress, interrupted } = parts;
  const { beta1, beta2, epsilon, weightDecay, gradNormMax, microBatchTokens } = config.optimizer;
  await lane.request({
    kind: 'createTrainer',
    job: JOB,
    weight: 1,
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
  let losses: number[] = [];
  for (let step = 0; step < config.steps; step++) {
    if (interrupted.aborted)
      throw new UserError(`interrupted after ${step} steps: no checkpoint was written`);
    const learningRate = learningRateAt(schedule(config), step);
    const { loss } = await lane.request({
      kind: 'train',
      job: JOB,
      requestedMs: nowMs(),
      sequences: examples.batch(config.batch.sequences),
      options: { objective: { algorithm: 'crossEntropy' }, learningRate },
    });
    losses = [...losses, loss].slice(-LOSS_WINDOW_STEPS);
    if ((step + 1) % NOTE_EVERY_STEPS === 0) {
      progress.note(
        `step ${step + 1}/${config.steps}  loss ${mean(losses).toFixed(4)}  learning rate ${learningRate.toExponential(2)}`,
      );
    }
  }
  return mean(losses);
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

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
