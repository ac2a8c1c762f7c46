import { beforeAll, describe, expect, it } from 'vitest';
import type { SequenceRequest } from '#src/engine/sequence.js';
import type { Op, Program } from '#src/gpu/ops.js';
import { runProgram, SliceEncoder } from '#src/gpu/slice-encoder.js';
import { whole } from '#src/kernels/launch.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { ModelConfig } from '#src/model/config.js';
import type { Trainer } from '#src/train/trainer.js';
import { pieces, shuffled } from '../helpers/arrays.js';
import { useGpu } from '../helpers/gpu.js';
import { awkwardConfig } from '../oracle/fixtures.js';
import { makeTrainer, randomModel, randomRollouts, runJob, type Model } from '../train/fixtures.js';
import {
  expectPrefix,
  expectSameOutcomes,
  Outcomes,
  randomRequests,
  runAlone,
  type Submit,
  TestEngine,
} from './fixtures.js';

const device = useGpu();
const COUNT = 32;
const BUCKET_BYTES = 2 ** 20;

const MODELS: readonly { name: string; seed: number; config: (random: Random) => ModelConfig }[] = [
  { name: 'tied, a small vocabulary', seed: 501, config: (random) => awkwardConfig(random, true) },
  {
    name: 'untied, a vocabulary wider than one reduction',
    seed: 502,
    config: (random) => ({ ...awkwardConfig(random, false), vocabSize: 701 }),
  },
];

describe.each(MODELS)('the same tokens and the same bits: $name', ({ seed, config }) => {
  let model: Model;
  let requests: SequenceRequest[];
  let alone: Outcomes;

  beforeAll(async () => {
    const random = new Random(seed);
    model = randomModel(config(random), random, BUCKET_BYTES);
    requests = randomRequests(random, model, COUNT);
    alone = await runAlone(device, model, requests);
  });

  it('the requests say something: lengths, stops and samplings differ', () => {
    const outcomes = requests.map(({ id }) => alone.get(id));
    expect(outcomes.some(({ reason }) => reason === 'stop')).toBe(true);
    expect(outcomes.some(({ reason }) => reason === 'length')).toBe(true);
    expect(new Set(outcomes.map(({ tokenIds }) => tokenIds.join())).size).toBeGreaterThan(COUNT / 2);
  });

  it.each([
    { slots: 32, batchTokensMax: 512, kvBlocks: 128, stepsAheadMax: 4 },
    { slots: 32, batchTokensMax: 37, kvBlocks: 40, stepsAheadMax: 2 },
    { slots: 5, batchTokensMax: 5, kvBlocks: 9, stepsAheadMax: 1 },
    { slots: 3, batchTokensMax: 7, kvBlocks: 12, stepsAheadMax: 6 },
  ])('in a ragged batch of $slots slots and $batchTokensMax rows', async (options) => {
    const batched = await TestEngine.load(device, model, options);
    batched.add(requests);
    await batched.run();
    expectSameOutcomes(batched.outcomes, alone, requests, `seed ${seed}, ${JSON.stringify(options)}`);
    batched.destroy();
  });

  it.each([1, 2, 3])('with arrivals and aborts mid-way (story %i)', async (story) => {
    const random = new Random(seed).fork(story);
    const options = {
      slots: 9,
      batchTokensMax: random.int(9, 40),
      kvBlocks: 24,
      stepsAheadMax: random.int(1, 4),
    };
    const busy = await TestEngine.load(device, model, options);
    const order = shuffled(random, COUNT);
    const aborted = new Set<number>();
    const arrive = (): void => {
      const index = order.pop();
      if (index !== undefined) busy.add([at(requests, index)]);
    };
    while (order.length > 0) {
      arrive();
      await busy.run(() => {
        for (let more = random.int(0, 2); more > 0; more--) arrive();
        if (random.uniform() > 0.15 || aborted.size === 8) return;
        const { id } = random.pick(requests);
        const arrived = !order.some((index) => at(requests, index).id === id);
        const ended = (busy.outcomes.byId.get(id)?.reason ?? null) !== null;
        if (arrived && !ended) aborted.add(id);
        busy.engine.abort(id);
      });
    }
    const label = `seed ${seed}, story ${story}`;
    expectSameOutcomes(busy.outcomes, alone, requests, label, aborted);
    for (const id of aborted) expectPrefix(busy.outcomes.get(id), alone.get(id), `${label}: aborted ${id}`);
    busy.destroy();
  });

  it('with every dispatch cut into as many pieces as it has', async () => {
    const cut = await TestEngine.load(device, model, { slots: 8, batchTokensMax: 48 }, pieces(1000));
    cut.add(requests);
    await cut.run();
    expectSameOutcomes(cut.outcomes, alone, requests, `seed ${seed}, cut`);
    cut.destroy();
  });

  it('with every op a submit of its own, and an op of training and one of another engine in between', async () => {
    const random = new Random(seed).fork('interleaved');
    const some = longest(requests, 12);
    const stranger = randomModel(awkwardConfig(random, true), random, BUCKET_BYTES);
    const other = await TestEngine.load(device, stranger, {
      slots: 3,
      batchTokensMax: 11,
      stepsAheadMax: 200,
    });
    const trainer = await makeTrainer(device, stranger);
    const strangers = new Strangers(random, stranger, other, trainer);
    const submit: Submit = (gpu, program) => {
      for (const op of program) {
        for (const each of [op, ...strangers.next()]) {
          const encoder = new SliceEncoder(gpu);
          encoder.add(each);
          encoder.submit();
        }
      }
    };
    const mine = await TestEngine.load(device, model, { slots: 5, batchTokensMax: 24 });
    mine.add(some);
    await mine.run(() => undefined, submit);
    expectSameOutcomes(mine.outcomes, alone, some, `seed ${seed}, interleaved`);
    expect(strangers.count).toBeGreaterThan(500);
    await strangers.finish();
    mine.destroy();
    other.destroy();
    trainer.destroy();
  });

  it('evicted half-way, again and again, and continued in other engines', async () => {
    const random = new Random(seed).fork('evicted');
    let left = [...requests];
    let moves = 0;
    const pieced = new Outcomes();
    while (left.length > 0) {
      const options = {
        slots: random.int(2, 12),
        batchTokensMax: random.int(12, 90),
        stepsAheadMax: random.int(1, 4),
      };
      const engine = await TestEngine.load(device, model, options);
      engine.add(left);
      const steps = random.int(2, 9);
      await engine.run((step) => step < steps);
      engine.engine.pause();
      expect(engine.engine.nextStep()).toBeNull();
      const evicted = new Map(engine.engine.evict().map(({ id, generated }) => [id, generated]));
      expect(engine.engine.sequenceCount).toBe(0);
      for (const { id, generated } of left) {
        if (evicted.has(id)) continue;
        const { tokenIds, logprobs, rawLogprobs, versions, reason } = engine.outcomes.get(id);
        pieced.byId.set(id, {
          tokenIds: [...generated.tokenIds, ...tokenIds],
          logprobs: [...generated.logprobs, ...logprobs],
          rawLogprobs: [...generated.rawLogprobs, ...rawLogprobs],
          versions: [...generated.versions, ...versions],
          reason,
        });
      }
      left = left.flatMap((request) => {
        const generated = evicted.get(request.id);
        return generated === undefined ? [] : [{ ...request, generated }];
      });
      moves += left.filter(({ generated }) => generated.tokenIds.length > 0).length;
      engine.destroy();
    }
    expect(moves).toBeGreaterThan(COUNT / 4);
    expectSameOutcomes(pieced, alone, requests, `seed ${seed}, evicted`);
  });

  it("by the trainer's score of the finished sequences", async () => {
    const trainer = await makeTrainer(device, model, { rowsMax: 160 });
    const batch = requests.map(({ id, promptTokenIds, sampling }) => {
      const tokens = [...promptTokenIds, ...alone.get(id).tokenIds];
      const weights = Float32Array.from(tokens, (_, position) =>
        position >= promptTokenIds.length - 1 && position + 1 < tokens.length ? 1 : 0,
      );
      return { tokens, weights, sampling };
    });
    const scores = await runJob(device.gpu, trainer.score(batch, whole, 'policy'));
    requests.forEach(({ id, promptTokenIds }, i) => {
      const scored = Array.from(at(scores, i).slice(promptTokenIds.length - 1, -1));
      expect(scored, `seed ${seed}: sequence ${id}`).toEqual(alone.get(id).logprobs);
    });
    trainer.destroy();
  });
});

function longest(requests: readonly SequenceRequest[], count: number): SequenceRequest[] {
  const tokens = ({ promptTokenIds, tokensMax, stopTokenIds }: SequenceRequest): number =>
    promptTokenIds.length + (stopTokenIds.length > 0 ? 0 : tokensMax);
  return requests.toSorted((a, b) => tokens(b) - tokens(a)).slice(0, count);
}

/** Work of others on the same device: a training step and the steps of another engine, op by op in turns. */
class Strangers {
  readonly #ops: Generator<Op, void, void>;
  readonly #result: Promise<unknown>;
  count = 0;

  constructor(
    random: Random,
    model: Model,
    private readonly engine: TestEngine,
    trainer: Trainer,
  ) {
    engine.add(randomRequests(random, model, COUNT));
    const objective = { algorithm: 'grpo', clipLow: 0.2, clipHigh: 0.2, klCoefficient: 0.1 } as const;
    const batch = randomRollouts(random, model, [40, 33, 21, 8]);
    const { program, result } = trainer.step(batch, pieces(20), { objective, learningRate: 1e-2 });
    this.#ops = inTurns(program, allSteps(engine));
    this.#result = result;
  }

  /** The next op, or none when all is done. */
  next(): Op[] {
    const { value } = this.#ops.next();
    if (value === undefined) return [];
    this.count++;
    return [value];
  }

  async finish(): Promise<void> {
    await runProgram(device.gpu, this.#ops);
    await this.#result;
    await this.engine.run();
  }
}

/** All that the engine has to do before the device answers. */
function* allSteps({ engine }: TestEngine): Program {
  for (let step = engine.nextStep(); step !== null; step = engine.nextStep()) yield* step;
}

function* inTurns(...programs: Program[]): Program {
  let open = programs;
  while (open.length > 0) {
    const next: Program[] = [];
    for (const program of open) {
      const { value } = program.next();
      if (value === undefined) continue;
      yield value;
      next.push(program);
    }
    open = next;
  }
}
