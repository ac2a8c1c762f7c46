import { describe, expect, it } from 'vitest';
import type { EngineUpdate } from '#src/engine/engine.js';
import { noTokens, type SequenceRequest } from '#src/engine/sequence.js';
import { WebGpuEngine } from '#src/engine/webgpu-engine.js';
import type { Op, Program } from '#src/gpu/ops.js';
import { runProgram, SliceEncoder } from '#src/gpu/slice-encoder.js';
import { whole } from '#src/kernels/launch.js';
import { WeightBuffers } from '#src/kernels/weight-buffers.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import type { Buckets } from '#src/model/layout.js';
import { useGpu } from '../helpers/gpu.js';
import { randomParams } from '../oracle/fixtures.js';
import { toBuckets } from '../oracle/params.js';
import { awkwardModel, type Model } from '../train/fixtures.js';
import type { Outcomes } from './fixtures.js';
import { atOnce, expectSameOutcome, randomRequests, SMALL, type Submit, TestEngine } from './fixtures.js';

const device = useGpu();
const SEED = 540;
const model = awkwardModel(new Random(SEED), true);
const other: Model = { ...model, buckets: otherBuckets(model, 541) };
const third: Model = { ...model, buckets: otherBuckets(model, 542) };

/** Other weights of the same shape. */
function otherBuckets({ config, layout }: Model, seed: number): Buckets {
  return toBuckets(layout, randomParams(config, new Random(seed)));
}

const request = (change: Partial<SequenceRequest> = {}): SequenceRequest => ({
  id: 1,
  promptTokenIds: [3, 1, 4],
  generated: noTokens(),
  tokensMax: 10,
  sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
  key: [5, 6],
  stopTokenIds: [],
  ...change,
});

/** Requests that go on for a while: none stops early. */
const steady = (seed: number, count: number): SequenceRequest[] =>
  randomRequests(new Random(seed), model, count).map((each) => ({
    ...each,
    tokensMax: 20,
    stopTokenIds: [],
  }));

/** Requests and their prompt's longest, short enough to leave room for 20 tokens. */
const SHORT = steady(543, 6).map((each) => ({ ...each, promptTokenIds: each.promptTokenIds.slice(0, 30) }));

describe('sequences', () => {
  it('end on a stop id, which is their last token, or at tokensMax', async () => {
    const free = await TestEngine.load(device, model);
    free.add([request()]);
    await free.run();
    const { tokenIds, reason } = free.outcomes.get(1);
    expect(reason).toBe('length');
    expect(tokenIds).toHaveLength(10);
    const stop = at(tokenIds, 4);
    const first = tokenIds.indexOf(stop);
    free.add([request({ id: 2, stopTokenIds: [36, stop] })]);
    await free.run();
    expect(free.outcomes.get(2)).toMatchObject({ tokenIds: tokenIds.slice(0, first + 1), reason: 'stop' });
    free.add([request({ id: 3, tokensMax: 1 })]);
    await free.run();
    expect(free.outcomes.get(3)).toMatchObject({ tokenIds: tokenIds.slice(0, 1), reason: 'length' });
    free.destroy();
  });

  it('keep their tokens when aborted, waiting or running, and leave room for the next', async () => {
    const engine = await TestEngine.load(device, model, { slots: 1 });
    engine.add([request(), request({ id: 2 }), request({ id: 3 })]);
    await engine.run((step) => step < 5);
    engine.engine.abort(1);
    engine.engine.abort(2);
    engine.engine.abort(99);
    expect(engine.engine.sequenceCount).toBe(1);
    await engine.run();
    expect(engine.outcomes.get(1).reason).toBe('abort');
    expect(engine.outcomes.get(1).tokenIds.length).toBeGreaterThan(0);
    expect(engine.outcomes.get(2)).toMatchObject({ tokenIds: [], reason: 'abort' });
    expect(engine.outcomes.get(3).tokenIds).toHaveLength(10);
    engine.destroy();
  });

  it('wait until there are weights', async () => {
    const engine = new TestEngine(device, model);
    engine.add([request()]);
    expect(engine.engine.version).toBe(-1);
    expect(engine.engine.nextStep()).toBeNull();
    await engine.loadWeights(model.buckets, 3);
    expect(engine.engine.version).toBe(3);
    await engine.run();
    expect(new Set(engine.outcomes.get(1).versions)).toEqual(new Set([3]));
    engine.destroy();
  });

  it.each<[string, Partial<SequenceRequest>]>([
    ['no prompt', { promptTokenIds: [] }],
    ['nothing is left to do', { tokensMax: 0 }],
    ['nothing is left to do', { tokensMax: 1, generated: generated([7]) }],
    ['2 entries for 1 generated', { generated: { ...generated([7]), versions: [0, 0] } }],
    ['token 37 of 37', { promptTokenIds: [37] }],
    ['token -1 of 37', { promptTokenIds: [1, -1] }],
    ['token 40 of 37', { generated: generated([40]) }],
    ['17 stop ids', { stopTokenIds: Array.from({ length: 17 }, (_, i) => i) }],
    ['temperature NaN', { sampling: { temperature: NaN, topK: 0, topP: 1, minP: 0 } }],
    ['topK -1', { sampling: { temperature: 1, topK: -1, topP: 1, minP: 0 } }],
    ['topP 0', { sampling: { temperature: 1, topK: 0, topP: 0, minP: 0 } }],
    ['minP 2', { sampling: { temperature: 1, topK: 0, topP: 1, minP: 2 } }],
    ['does not fit', { tokensMax: 63 }],
    ['does not fit', { promptTokenIds: new Array<number>(65).fill(1), tokensMax: 1 }],
  ])('that no engine could run are refused before they share a batch: %s', async (message, change) => {
    const engine = await TestEngine.load(device, model);
    engine.add([request({ id: 2 })]);
    expect(() => engine.engine.add(request(change))).toThrow(message);
    expect(engine.engine.sequenceCount).toBe(1);
    await engine.run();
    expect(engine.outcomes.get(2).tokenIds).toHaveLength(10);
    engine.destroy();
  });

  it('of more blocks than the whole cache has are refused, and an id is taken once', async () => {
    const engine = await TestEngine.load(device, model, { kvBlocks: 2 });
    expect(() => engine.engine.add(request({ tokensMax: 31 }))).toThrow('does not fit');
    engine.add([request({ tokensMax: 30 })]);
    expect(() => engine.engine.add(request())).toThrow('already here');
    await engine.run();
    engine.destroy();
  });
});

function generated(tokenIds: number[]) {
  return {
    tokenIds,
    logprobs: tokenIds.map(() => -1),
    rawLogprobs: tokenIds.map(() => -1),
    versions: tokenIds.map(() => 0),
  };
}

describe('steps', () => {
  it('run ahead of the host by stepsAheadMax at most', async () => {
    for (const stepsAheadMax of [1, 2, 5]) {
      const engine = await TestEngine.load(device, model, { stepsAheadMax });
      engine.add([request({ tokensMax: 30 })]);
      let ahead = 0;
      for (let step = engine.engine.nextStep(); step !== null; step = engine.engine.nextStep()) {
        await submitOnly(step);
        ahead++;
      }
      expect(ahead).toBe(stepsAheadMax);
      expect(engine.engine.stepsInFlight).toBe(stepsAheadMax);
      await engine.run();
      expect(engine.outcomes.get(1).tokenIds).toHaveLength(30);
      engine.destroy();
    }
  });

  it('stop when the engine is paused; it gives up its sequences only when all results are in', async () => {
    const engine = await TestEngine.load(device, model);
    engine.add([request(), request({ id: 2 })]);
    const step = engine.engine.nextStep();
    if (step === null) throw new Error('no step');
    await submitOnly(step);
    expect(() => engine.engine.evict()).toThrow('in flight');
    expect(() => engine.engine.destroy()).toThrow('in flight');
    engine.engine.pause();
    expect(engine.engine.nextStep()).toBeNull();
    await engine.engine.settled();
    const evicted = engine.engine.evict();
    expect(evicted.map(({ id, generated: { tokenIds } }) => [id, tokenIds.length])).toEqual([
      [1, 1],
      [2, 1],
    ]);
    engine.destroy();
  });

  it('may be planned before the one before is run', async () => {
    const [one, two] = [await TestEngine.load(device, model), await TestEngine.load(device, model)];
    for (const each of [one, two]) each.add(SHORT);
    await one.run();
    await two.run((step) => step < 3);
    const planned = [two.engine.nextStep(), two.engine.nextStep(), two.engine.nextStep()];
    for (const step of planned) if (step !== null) await submitOnly(step);
    expect(two.engine.stepsInFlight).toBe(3);
    await two.run();
    for (const { id } of SHORT) {
      expectSameOutcome(two.outcomes.get(id), one.outcomes.get(id), `planned ahead: sequence ${id}`);
    }
    one.destroy();
    two.destroy();
  });

  it('leave no buffer behind when the engine is destroyed', async () => {
    const before = device.gpu.bytesAllocated;
    for (let i = 0; i < 2; i++) {
      const engine = await TestEngine.load(device, model, { slots: 2 + i });
      expect(device.gpu.bytesAllocated).toBeGreaterThan(before);
      engine.add([request()]);
      await engine.run();
      engine.destroy();
      expect(device.gpu.bytesAllocated).toBe(before);
    }
  });

  it('tell every step once, in order, with parallel arrays', async () => {
    const updates: EngineUpdate[] = [];
    const { config, layout } = model;
    const engine = new WebGpuEngine(device.kernels, config, layout, SMALL, whole, (update) =>
      updates.push(update),
    );
    await runProgram(device.gpu, engine.loadWeights(model.buckets, 0));
    for (const each of SHORT) engine.add(each);
    while (engine.sequenceCount > 0) {
      const step = engine.nextStep();
      if (step === null) await engine.settled();
      else await submitOnly(step);
    }
    await engine.settled();
    for (const { ids, tokenIds, logprobs, rawLogprobs } of updates) {
      expect(new Set(ids).size).toBe(ids.length);
      expect([tokenIds.length, logprobs.length, rawLogprobs.length]).toEqual([
        ids.length,
        ids.length,
        ids.length,
      ]);
    }
    const finished = updates.flatMap((update) => update.finished.map(({ id }) => id));
    expect(finished.toSorted((a, b) => a - b)).toEqual(SHORT.map(({ id }) => id));
    engine.destroy();
  });
});

async function submitOnly(program: Program): Promise<void> {
  const encoder = new SliceEncoder(device.gpu);
  for (const op of program) encoder.add(op);
  encoder.submit();
  await Promise.resolve();
}

describe('weights', () => {
  /** Runs the short requests and loads other weights after `flipAt` steps, by whatever way. */
  async function flipAfter(flipAt: number, load: (engine: TestEngine) => Promise<void>): Promise<Outcomes> {
    const engine = await TestEngine.load(device, model);
    engine.add(SHORT);
    await engine.run((step) => step < flipAt);
    await load(engine);
    await engine.run();
    engine.destroy();
    return engine.outcomes;
  }

  it('flip between steps: tokens carry the old version before and the new one after', async () => {
    const plain = await TestEngine.load(device, model);
    plain.add(SHORT);
    await plain.run();
    const flipped = await flipAfter(9, (engine) => engine.loadWeights(other.buckets, 7));
    let changed = 0;
    for (const { id } of SHORT) {
      const { versions, tokenIds, rawLogprobs } = flipped.get(id);
      const before = versions.indexOf(7);
      expect(versions.slice(0, Math.max(0, before)).every((version) => version === 0)).toBe(true);
      if (before < 0) continue;
      expect(versions.slice(before).every((version) => version === 7)).toBe(true);
      const old = plain.outcomes.get(id);
      expect(tokenIds.slice(0, before)).toEqual(old.tokenIds.slice(0, before));
      expect(rawLogprobs.slice(0, before)).toEqual(old.rawLogprobs.slice(0, before));
      expect(rawLogprobs[before]).not.toBe(old.rawLogprobs[before]);
      changed++;
    }
    expect(changed).toBeGreaterThan(2);
    plain.destroy();
  });

  it('are told right in what an eviction gives back, though steps under two versions were in flight', async () => {
    const engine = await TestEngine.load(device, model, { stepsAheadMax: 4 });
    engine.add(SHORT);
    await engine.run((step) => step < 6);
    const submitNext = async (): Promise<void> => {
      const step = engine.engine.nextStep();
      if (step !== null) await submitOnly(step);
    };
    await submitNext();
    await submitNext();
    atOnce(device.gpu, engine.engine.loadWeights(other.buckets, 1));
    await submitNext();
    await submitNext();
    await engine.engine.settled();
    const evicted = engine.engine.evict();
    expect(evicted.length).toBe(SHORT.length);
    let both = 0;
    for (const { id, generated: given } of evicted) {
      const { tokenIds, logprobs, rawLogprobs, versions } = engine.outcomes.byId.get(id) ?? noTokens();
      expect(given).toEqual({ tokenIds, logprobs, rawLogprobs, versions });
      if (versions.includes(0) && versions.includes(1)) both++;
    }
    expect(both).toBeGreaterThan(1);
    engine.destroy();
  });

  it.each([0, 3, 11, 12])(
    'arrive in the middle of step %i, op by op: the step ends on the old ones',
    async (at) => {
      const expected = await flipAfter(at + 1, (engine) => engine.loadWeights(other.buckets, 7));
      for (const how of ['from the host', 'from the device'] as const) {
        const source = new WeightBuffers(device.gpu, model.layout, 'source');
        await runProgram(device.gpu, source.upload(other.buckets));
        const engine = await TestEngine.load(device, model);
        engine.add(SHORT);
        let step = 0;
        const submit: Submit = (gpu, program) => {
          const arriving =
            how === 'from the host'
              ? engine.engine.loadWeights(other.buckets, 7)
              : engine.engine.copyWeights(source, 7);
          const mixed = step++ === at ? mixedIn(program, arriving) : program;
          for (const op of mixed) {
            const encoder = new SliceEncoder(gpu);
            encoder.add(op);
            encoder.submit();
          }
        };
        await engine.run(() => undefined, submit);
        for (const { id } of SHORT) {
          const outcome = engine.outcomes.get(id);
          expectSameOutcome(outcome, expected.get(id), `step ${at} ${how}: sequence ${id}`);
          expect(outcome.versions).toEqual(expected.get(id).versions);
        }
        engine.destroy();
        source.destroy();
      }
    },
  );

  it('that arrive while others wait replace them: the ones in between are never used', async () => {
    const expected = await flipAfter(5, (engine) => engine.loadWeights(third.buckets, 9));
    const replaced = await flipAfter(5, async (engine) => {
      await engine.loadWeights(other.buckets, 8);
      expect(engine.engine.version).toBe(8);
      await engine.loadWeights(third.buckets, 9);
      expect(engine.engine.version).toBe(9);
    });
    for (const { id } of SHORT) {
      expect(new Set(replaced.get(id).versions).has(8)).toBe(false);
      expectSameOutcome(replaced.get(id), expected.get(id), `sequence ${id}`);
    }
  });

  it('half arrived are not used: the old ones go on until the new ones are whole', async () => {
    const engine = await TestEngine.load(device, model);
    engine.add([request({ tokensMax: 30 })]);
    await engine.run((step) => step < 1);
    const arriving = engine.engine.loadWeights(other.buckets, 1);
    const first = arriving.next();
    expect(first.done).toBe(false);
    if (first.done !== true) await runProgram(device.gpu, [first.value]);
    await engine.run((step) => step < 3);
    expect(engine.engine.version).toBe(0);
    await runProgram(device.gpu, arriving);
    await engine.run();
    expect(engine.outcomes.get(1).versions).toEqual([
      ...new Array<number>(4).fill(0),
      ...new Array<number>(26).fill(1),
    ]);
    engine.destroy();
  });

  it('come one version at a time, and versions only rise', async () => {
    const engine = await TestEngine.load(device, model);
    engine.add([request()]);
    await engine.run();
    const first = engine.engine.loadWeights(other.buckets, 1);
    first.next();
    expect(() => engine.engine.loadWeights(third.buckets, 2).next()).toThrow('still on its way');
    first.return();
    expect(engine.engine.version).toBe(0);
    await engine.loadWeights(third.buckets, 2);
    expect(() => engine.engine.loadWeights(other.buckets, 1).next()).toThrow('arrives after 2');
    engine.destroy();
  });
});

/** The ops of a step with those of weights that arrive spread among them; both end at about the same time. */
function* mixedIn(step: Program, arriving: Program): Generator<Op, void, void> {
  for (const op of step) {
    yield op;
    const next = arriving.next();
    if (next.done !== true) yield next.value;
  }
  yield* arriving;
}
