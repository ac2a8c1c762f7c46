import type { EngineUpdate, EvictedSequence } from '#src/engine/engine.js';
import { newEpisode, type Turn, type TurnEnd } from '#src/engine/episode.js';
import { noTokens, type FinishReason, type SequenceRequest } from '#src/engine/sequence.js';
import { WebGpuEngine, type EngineOptions } from '#src/engine/webgpu-engine.js';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { whole } from '#src/kernels/launch.js';
import { assert, at } from '#src/lib/assert.js';
import { rolloutKey, type Random } from '#src/lib/prng.js';
import type { Buckets } from '#src/model/layout.js';
import type { TestGpu } from '../helpers/gpu.js';
import { randomTokens } from '../oracle/fixtures.js';
import type { Model } from '../train/fixtures.js';
import {
  atOnce,
  expectSameOutcome,
  type Outcome,
  SAMPLINGS,
  SMALL,
  type Submit,
  TestEngine,
} from './fixtures.js';

/** An episode whose environment says what stands here: the first turn's observation is empty. */
export interface Script {
  readonly request: SequenceRequest;
  readonly turns: readonly Turn[];
}

/** What an owner has heard of an episode. */
export interface Heard extends Outcome {
  readonly turnEnds: TurnEnd[];
  /** Its turn is over, and its environment has not answered. */
  isPaused: boolean;
}

export function randomScripts(random: Random, model: Model, count: number, firstId = 1): Script[] {
  const { vocabSize, contextTokensMax } = model.config;
  return Array.from({ length: count }, (_, index) => {
    const prompt = randomTokens(random, random.pick([1, 2, random.int(3, 12), 15, 16, 17]), vocabSize);
    let room = contextTokensMax - prompt.length;
    const turns: Turn[] = [];
    for (let turn = random.int(1, 6); turn > 0; turn--) {
      const observed = turns.length === 0 ? 0 : random.pick([0, 1, random.int(2, 9), random.int(10, 18)]);
      const tokensMax = random.pick([1, random.int(2, 7)]);
      if (observed + tokensMax > room) break;
      room -= observed + tokensMax;
      turns.push({ tokenIds: randomTokens(random, observed, vocabSize), tokensMax });
    }
    const stops = random.uniform() < 0.6 ? randomTokens(random, random.pick([4, 16]), vocabSize) : [];
    return script(firstId + index, prompt, turns, {
      sampling: at(SAMPLINGS, index % SAMPLINGS.length),
      key: rolloutKey(11, `episode ${random.int(0, 9)}`, index),
      stopTokenIds: stops,
    });
  });
}

export function script(
  id: number,
  promptTokenIds: readonly number[],
  turns: readonly Turn[],
  rest: Pick<SequenceRequest, 'sampling' | 'key' | 'stopTokenIds'>,
): Script {
  const { tokensMax } = at(turns, 0);
  return {
    request: { id, promptTokenIds, generated: noTokens(), tokensMax, ...rest, episode: newEpisode() },
    turns,
  };
}

/** Each turn computed by a sequence of its own, whose prompt is all that came before it. */
export async function inOneGo(
  device: TestGpu,
  model: Model,
  scripts: readonly Script[],
): Promise<Map<number, Heard>> {
  const alone = await TestEngine.load(device, model, { slots: 1, kvBlocks: 4, stepsAheadMax: 1 });
  const all = new Map<number, Heard>();
  let id = 1;
  for (const { request, turns } of scripts) {
    const heard = nothing();
    let prefix = request.promptTokenIds;
    const { sampling, key, stopTokenIds } = request;
    for (const { tokenIds, tokensMax } of turns) {
      const promptTokenIds = [...prefix, ...tokenIds];
      alone.add([{ id, promptTokenIds, generated: noTokens(), tokensMax, sampling, key, stopTokenIds }]);
      await alone.run();
      const outcome = alone.outcomes.get(id++);
      assert(outcome.reason === 'stop' || outcome.reason === 'length', 'a turn did not end');
      for (const list of ['tokenIds', 'logprobs', 'rawLogprobs', 'versions'] as const) {
        heard[list].push(...outcome[list]);
      }
      heard.turnEnds.push(outcome.reason);
      heard.reason = outcome.reason;
      prefix = [...promptTokenIds, ...outcome.tokenIds];
    }
    all.set(request.id, heard);
  }
  alone.destroy();
  return all;
}

/** The owner of episodes: it hears of them from whatever engine they are in, and plays their environments. */
export class EpisodeOwner {
  readonly heard = new Map<number, Heard>();
  readonly #scripts = new Map<number, Script>();
  #engine: WebGpuEngine | null = null;

  constructor(
    private readonly device: TestGpu,
    private readonly model: Model,
  ) {}

  get engine(): WebGpuEngine {
    assert(this.#engine !== null, 'no engine');
    return this.#engine;
  }

  /** Those whose environment is to answer. */
  get paused(): number[] {
    return [...this.heard].filter(([, { isPaused }]) => isPaused).map(([id]) => id);
  }

  async open(options: Partial<EngineOptions> = {}): Promise<void> {
    const { kernels, gpu } = this.device;
    const { config, layout, buckets } = this.model;
    const all = { ...SMALL, ...options };
    this.#engine = new WebGpuEngine(kernels, config, layout, all, whole, (update) => this.#receive(update));
    await runProgram(gpu, this.engine.loadWeights(buckets, 0));
  }

  async loadWeights(buckets: Buckets, version: number): Promise<void> {
    await runProgram(this.device.gpu, this.engine.loadWeights(buckets, version));
  }

  begin(scripts: readonly Script[]): void {
    for (const each of scripts) {
      const { id } = each.request;
      this.#scripts.set(id, each);
      this.heard.set(id, nothing());
      this.engine.add(each.request);
    }
  }

  /** The environment's answer: the next turn, or the end. */
  answer(id: number): void {
    const heard = this.#of(id);
    const turn = this.#scripts.get(id)?.turns[heard.turnEnds.length];
    heard.isPaused = false;
    if (turn === undefined) this.engine.finish(id);
    else this.engine.extend(id, turn);
  }

  /** Submits the next step; false when there is none. */
  step(submit: Submit = atOnce): boolean {
    const program = this.engine.nextStep();
    if (program !== null) submit(this.device.gpu, program);
    return program !== null;
  }

  /** Runs until nothing but parked episodes is left. */
  async runTurns(): Promise<void> {
    const { engine } = this;
    for (let idle = false; engine.sequenceCount > engine.parkedCount;) {
      if (this.step()) {
        idle = false;
        continue;
      }
      assert(!idle, `${engine.sequenceCount} sequences, and nothing to do or to wait for`);
      idle = engine.stepsInFlight === 0;
      await engine.settled();
    }
    await engine.settled();
    this.device.gpu.assertHealthy();
  }

  /** Runs turn after turn until every episode has ended. */
  async runAll(): Promise<void> {
    for (await this.runTurns(); this.engine.sequenceCount > 0; await this.runTurns()) {
      for (const id of this.paused) this.answer(id);
    }
  }

  /** All sequences go on in an engine of their own. */
  async move(options: Partial<EngineOptions>): Promise<readonly EvictedSequence[]> {
    this.engine.pause();
    await this.engine.settled();
    const evicted = this.engine.evict();
    this.close();
    await this.open(options);
    for (const each of evicted) {
      const before = this.#scripts.get(each.id);
      assert(before !== undefined, `sequence ${each.id} is not ours`);
      this.engine.add({ ...before.request, ...each });
    }
    return evicted;
  }

  close(): void {
    this.engine.destroy();
    this.#engine = null;
  }

  expectSame(expected: ReadonlyMap<number, Heard>, label: string): void {
    for (const [id, heard] of this.heard) {
      const other = expected.get(id);
      assert(other !== undefined, `nothing to compare episode ${id} with`);
      expectSameOutcome(heard, other, `${label}: episode ${id}`);
      const ends = [heard.turnEnds.join(), other.turnEnds.join()];
      assert(ends[0] === ends[1], `${label}: turns of episode ${id} ended ${ends.join(' and ')}`);
    }
  }

  #receive({ ids, tokenIds, logprobs, rawLogprobs, version, finished, paused }: EngineUpdate): void {
    ids.forEach((id, i) => {
      const heard = this.#of(id);
      assert(!heard.isPaused && heard.reason === null, `episode ${id} got a token between two turns`);
      heard.tokenIds.push(at(tokenIds, i));
      heard.logprobs.push(at(logprobs, i));
      heard.rawLogprobs.push(at(rawLogprobs, i));
      heard.versions.push(version);
    });
    for (const { id, reason } of paused ?? []) {
      const heard = this.#of(id);
      assert(!heard.isPaused, `episode ${id} paused twice`);
      heard.turnEnds.push(reason);
      heard.isPaused = true;
    }
    for (const { id, reason } of finished) this.#end(id, reason);
  }

  #end(id: number, reason: FinishReason): void {
    const heard = this.#of(id);
    assert(heard.reason === null, `episode ${id} finished twice`);
    heard.reason = reason;
    heard.isPaused = false;
  }

  #of(id: number): Heard {
    const heard = this.heard.get(id);
    assert(heard !== undefined, `episode ${id} is not ours`);
    return heard;
  }
}

function nothing(): Heard {
  return { ...noTokens(), reason: null, turnEnds: [], isPaused: false };
}
