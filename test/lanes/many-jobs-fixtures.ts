import { expect } from 'vitest';
import type { EngineUpdate } from '#src/engine/engine.js';
import type { SequenceRequest } from '#src/engine/sequence.js';
import type { Lane } from '#src/lanes/lane.js';
import type { LaneAnswers } from '#src/lanes/messages.js';
import { assert, at } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import type { Buckets } from '#src/model/layout.js';
import type { TrainSequence } from '#src/train/batch.js';
import { expectSameOutcomes, Outcomes, randomRequests, SMALL } from '../engine/fixtures.js';
import { gap, until } from '../faults/fixtures.js';
import { ADAMW, awkwardModel, type Model, randomRollouts } from '../train/fixtures.js';

const TRAINER = { rowsMax: 64, contextTokensMax: 64, adamw: ADAMW };
const OBJECTIVE = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0 } as const;
export const STEP = { objective: OBJECTIVE, learningRate: 1e-2 };

/** What a job does, round after round: all of a round's sequences end before the weights change. */
interface Round {
  readonly requests: readonly SequenceRequest[];
  readonly batch: readonly TrainSequence[];
}

export interface Script {
  readonly job: string;
  readonly weight: number;
  readonly model: Model;
  readonly rounds: readonly Round[];
}

/** All that a job comes to. */
export interface Result {
  readonly outcomes: Outcomes;
  readonly steps: LaneAnswers['train'][];
  weights: Buckets;
}

export function scriptOf(job: string, weight: number, seed: number, rounds: number): Script {
  const random = new Random(seed).fork(job);
  const model = awkwardModel(random, random.uniform() < 0.5);
  return {
    job,
    weight,
    model,
    rounds: Array.from({ length: rounds }, (_, round) => ({
      requests: randomRequests(random, model, 8).map((request) => ({
        ...request,
        id: request.id + 1000 * round,
      })),
      batch: randomRollouts(random, model, [random.int(5, 30), random.int(5, 20)]),
    })),
  };
}

/** Tells each job its own updates. */
export class Post {
  readonly #byJob = new Map<string, Outcomes>();

  readonly receive = (update: EngineUpdate, job: string): void => this.of(job).receive(update);

  of(job: string): Outcomes {
    let outcomes = this.#byJob.get(job);
    if (outcomes === undefined) this.#byJob.set(job, (outcomes = new Outcomes()));
    return outcomes;
  }
}

export async function furnish(lane: Lane, script: Script): Promise<void> {
  await createTrainer(lane, script);
  await createEngine(lane, script);
  await lane.handle({ kind: 'publish', job: script.job, version: 0, store: null });
}

export async function createTrainer(lane: Lane, { job, weight, model }: Script): Promise<void> {
  const { config, layout, buckets: weights } = model;
  await lane.handle({ kind: 'createTrainer', job, weight, config, layout, options: TRAINER, weights });
}

/** A critic for the job; its layout and weights are those of `critic`. */
export async function createCritic(lane: Lane, { job, weight }: Script, critic: Model): Promise<void> {
  const { config, layout, buckets: weights } = critic;
  await lane.handle({ kind: 'createCritic', job, weight, config, layout, options: TRAINER, weights });
}

export async function createEngine(lane: Lane, { job, weight, model }: Script): Promise<void> {
  const { config, layout } = model;
  await lane.handle({ kind: 'createEngine', job, weight, config, layout, options: SMALL, store: null });
}

/** Plays a job that is furnished to its end, with its pauses and the size of its helpings as `random` wants. */
export async function play(lane: Lane, { job, rounds }: Script, post: Post, random: Random): Promise<Result> {
  const outcomes = post.of(job);
  const steps: LaneAnswers['train'][] = [];
  for (const [round, { requests, batch }] of rounds.entries()) {
    for (let begin = 0; begin < requests.length;) {
      const end = begin + random.int(1, requests.length - begin);
      await lane.handle({ kind: 'add', job, sequences: requests.slice(begin, end) });
      begin = end;
      await gap(4 * random.uniform());
    }
    await until(() => requests.every(({ id }) => isDone(outcomes, id)), `round ${round} of ${job}`);
    const publish = { version: round + 1, store: null };
    // As a part of the step, or after it: the weights are the same.
    const isOne = random.uniform() < 0.5;
    steps.push(await train(lane, job, batch, isOne ? publish : undefined));
    if (!isOne) await lane.handle({ kind: 'publish', job, ...publish });
  }
  return { outcomes, steps, weights: await weightsOf(lane, job) };
}

export async function train(
  lane: Lane,
  job: string,
  sequences: readonly TrainSequence[],
  publish?: { readonly version: number; readonly store: null },
): Promise<LaneAnswers['train']> {
  const answer = await lane.handle({
    kind: 'train',
    job,
    requestedMs: nowMs(),
    sequences,
    options: STEP,
    publish,
  });
  assert(answer !== null && 'meanRatio' in answer, 'not the answer to train');
  return { ...answer, publishMs: 0 };
}

export async function weightsOf(lane: Lane, job: string): Promise<Buckets> {
  const answer = await lane.handle({ kind: 'exportWeights', job });
  assert(answer !== null && 'weights' in answer, 'not the answer to exportWeights');
  return answer.weights;
}

/**
 * Holds a job to every bit of what it came to alone: tokens, log-probabilities, steps and weights.
 *
 * @throws Error that names the label and the sequence or the step.
 */
export function expectSameResult(
  { job, rounds }: Script,
  actual: Result,
  alone: Result,
  label: string,
): void {
  const requests = rounds.flatMap((round) => round.requests);
  expectSameOutcomes(actual.outcomes, alone.outcomes, requests, `${label}, ${job}`);
  expect(actual.outcomes.byId.size, `${label}: sequences of ${job}`).toBe(alone.outcomes.byId.size);
  alone.steps.forEach((step, i) =>
    expect(at(actual.steps, i), `${label}: step ${i} of ${job}`).toEqual(step),
  );
  expect(actual.weights, `${label}: weights of ${job}`).toEqual(alone.weights);
}

function isDone({ byId }: Outcomes, id: number): boolean {
  return (byId.get(id)?.reason ?? null) !== null;
}
