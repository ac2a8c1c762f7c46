import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KvOnPreempt } from '#src/engine/engine.js';
import { RemoteLane } from '#src/lanes/remote-lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { assert } from '#src/lib/assert.js';
import { nowMs } from '#src/lib/clock.js';
import { Random } from '#src/lib/prng.js';
import { loadWeights } from '#src/model/checkpoint.js';
import { resolveConfig } from '#src/run/config.js';
import { episodeEvents, openEnvironmentPool } from '#src/run/episode-wiring.js';
import { type Prepared, prepareRun } from '#src/run/prepare.js';
import { type Group, RolloutPool } from '#src/run/rollouts.js';
import type { PreemptionRecord } from '#src/telemetry/records.js';
import { gap } from '../faults/fixtures.js';
import { seeds } from '../helpers/seeds.js';

const JOB = 'main';
const SLOTS = 4;
const ADAMW = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, gradNormMax: 1 };

let prepared: Prepared;
beforeAll(async () => {
  prepared = await prepareRun(
    resolveConfig({
      set: [
        'task.name=calculator',
        'task.options={latency={median_ms=10, sigma=1, max_ms=100}}',
        'rollout.max_tokens=48',
        `engine.slots=${SLOTS}`,
        // Not enough for all that may be parked: caches have to leave.
        'engine.kv_blocks=24',
        'evaluation.heldout_prompts=0',
      ],
    }),
  );
});

/** One lane with trainer and engine, and the rollouts of a few prompts on it. */
class Rig {
  readonly preemptions: PreemptionRecord[] = [];
  readonly #environments = openEnvironmentPool(prepared);
  readonly #pool: RolloutPool;
  #isOpen = false;
  failure: Error | null = null;

  private constructor(
    private readonly lane: () => RemoteLane,
    private readonly random: Random,
  ) {
    const fail = (error: Error): void => void (this.failure ??= error);
    const fleet = {
      extend: (_: number, turns: Parameters<Parameters<typeof episodeEvents>[2]['extend']>[1]) =>
        this.lane().request({ kind: 'extend', job: JOB, turns }),
      finish: (_: number, ids: readonly number[]) => this.lane().request({ kind: 'finish', job: JOB, ids }),
    };
    this.#pool = new RolloutPool({
      send: (_, sequences) => {
        this.lane().request({ kind: 'add', job: JOB, sequences }).catch(fail);
      },
      ...episodeEvents(prepared, this.#environments, fleet, fail),
      score: () => Promise.resolve({ failed: false, reward: 0, scores: {} }),
      changed: () => this.#place(),
    });
  }

  static async open(random: Random): Promise<Rig> {
    let lane: RemoteLane | null = null;
    const rig: Rig = new Rig(() => {
      assert(lane !== null, 'the lane is open');
      return lane;
    }, random);
    lane = await RemoteLane.open(
      { lane: 0, adapter: null, settings: laneSettings({ sliceUs: 500, inFlightUs: 1000 }) },
      {
        onTokens: (update) => rig.#pool.receive(0, update),
        onRecords: (records) => rig.preemptions.push(...records.preemptions),
        onBroken: (error) => (rig.failure ??= error),
      },
    );
    const { model, layout, config, engine } = prepared;
    const options = { rowsMax: 128, contextTokensMax: engine.contextTokensMax, adamw: ADAMW };
    const weights = await loadWeights(config.model.path, model, layout);
    await lane.request({
      kind: 'createTrainer',
      job: JOB,
      weight: 1,
      config: model,
      layout,
      options,
      weights,
    });
    await rig.wake();
    return rig;
  }

  start(): Group[] {
    const { seed, rollout } = prepared.config;
    const { temperature, topK, topP, minP } = rollout;
    const sampling = { temperature, topK, topP, minP };
    const kind = { seed, tokensMax: 48, sampling, stopTokenIds: prepared.stopTokenIds };
    const prompts = prepared.prompts.train();
    return Array.from({ length: 4 }, () => this.#pool.start(prompts.next().value, 1, 5, kind));
  }

  async wake(): Promise<void> {
    const { model: config, layout, engine: options } = prepared;
    const lane = this.lane();
    await lane.request({ kind: 'createEngine', job: JOB, weight: 1, config, layout, options, store: null });
    await lane.request({ kind: 'publish', job: JOB, version: 0, store: null });
    this.#isOpen = true;
    this.#place();
  }

  /** Takes the device for a stage that changes no weight, with the caches treated in any way. */
  async preempt(): Promise<void> {
    const { random } = this;
    const kvOnPreempt: KvOnPreempt = random.pick([
      { kind: 'held' },
      { kind: 'spilled' },
      { kind: 'dropped' },
      { kind: 'pressure', blocksMax: random.int(0, 12) },
    ]);
    const settings = { ...laneSettings({ sliceUs: 500, inFlightUs: 1000 }), kvOnPreempt };
    await this.lane().request({ kind: 'configure', settings });
    const tokens = Int32Array.from({ length: random.int(20, 100) }, () => random.int(3, 15));
    const { temperature, topK, topP, minP } = prepared.config.rollout;
    const weights = new Float32Array(tokens.length).fill(1, 0, tokens.length - 1);
    const sequences = [{ tokens, weights, sampling: { temperature, topK, topP, minP } }];
    const stage = { stage: 'oldLogProbs', which: 'policy' } as const;
    await this.lane().request({ kind: 'score', job: JOB, requestedMs: nowMs(), ...stage, sequences });
  }

  /** The engine holds what is beyond so many slots. */
  async resize(): Promise<void> {
    await this.lane().request({ kind: 'slots', job: JOB, slots: this.random.int(0, SLOTS) });
    await gap(5);
    await this.lane().request({ kind: 'slots', job: JOB, slots: SLOTS });
  }

  /** Puts the engine to sleep, episodes between two turns and all, and wakes it. */
  async nap(): Promise<void> {
    this.#isOpen = false;
    const { evicted } = await this.lane().request({ kind: 'removeEngine', job: JOB });
    this.#pool.comeBack(
      0,
      evicted.map(({ id }) => id),
    );
    await this.wake();
  }

  async close(): Promise<void> {
    const answer = await this.lane().request({ kind: 'flush' });
    this.preemptions.push(...answer.preemptions);
    await this.#environments.close();
    await this.lane().close();
  }

  #place(): void {
    if (this.#isOpen) this.#pool.place(new Map([[0, SLOTS]]));
  }
}

function resultsOf(groups: readonly Group[]): object[] {
  return groups
    .flatMap(({ rollouts }) => rollouts)
    .map(({ id, generated, episode, finishReason }) => ({
      id,
      generated,
      finishReason,
      observations: episode?.observations,
      turnEnds: episode?.turnEnds,
      texts: episode?.record?.turns.map(({ action, observation }) => [action.text, observation]),
      stop: episode?.record?.stopCondition,
    }));
}

describe('episodes on a lane that is taken away again and again', () => {
  let alone: object[];
  beforeAll(async () => {
    const rig = await Rig.open(new Random(1));
    const groups = rig.start();
    await Promise.all(groups.map(({ scored }) => scored));
    await rig.close();
    alone = resultsOf(groups);
  });
  const rigs: Rig[] = [];
  afterAll(() => Promise.all(rigs.splice(0).map((rig) => rig.close())));

  for (const seed of seeds()) {
    it(`come to the bits they come to alone (seed ${seed})`, async () => {
      const random = new Random(6200 + seed);
      const rig = await Rig.open(random);
      rigs.push(rig);
      const groups = rig.start();
      let isOver = false;
      const over = Promise.all(groups.map(({ scored }) => scored)).then(() => (isOver = true));
      const counts = { preempt: 0, resize: 0, nap: 0 };
      while (!isOver && rig.failure === null) {
        const what = random.pick(['preempt', 'preempt', 'preempt', 'resize', 'nap'] as const);
        await rig[what]();
        counts[what]++;
        await gap(random.int(0, 8));
      }
      if (rig.failure !== null) throw rig.failure;
      await over;
      const label = `seed ${seed}: ${JSON.stringify(counts)}`;
      expect(resultsOf(groups), label).toEqual(alone);
      expect(Math.min(counts.preempt, counts.resize, counts.nap), label).toBeGreaterThan(0);
      await rig.close();
      rigs.pop();
      expect(rig.preemptions.length, label).toBeGreaterThan(2);
    });
  }
});
