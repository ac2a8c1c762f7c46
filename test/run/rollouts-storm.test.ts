import { describe, expect, it } from 'vitest';
import { allTokens } from '#src/engine/episode.js';
import { assert, at } from '#src/lib/assert.js';
import { Random, rolloutKey } from '#src/lib/prng.js';
import { Tokenizer } from '#src/model/tokenizer.js';
import { EpisodePlayer, type TurnLimits } from '#src/run/episodes.js';
import { type Group, type Rollout, RolloutPool } from '#src/run/rollouts.js';
import type { EnvironmentPool } from '#src/tasks/environment-pool.js';
import { environmentSeed } from '#src/tasks/episode.js';
import type { Environment, StepResult } from '#src/tasks/task.js';
import { seeds } from '../helpers/seeds.js';
import { SHIPPED_MODEL } from './runs.js';
import { nextToken, Pending, ScriptedLane } from './scripted-lanes.js';

const tokenizer = await Tokenizer.load(SHIPPED_MODEL);
const KIND = {
  seed: 9,
  tokensMax: 40,
  sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
  stopTokenIds: [2, 14],
};
const LIMITS: TurnLimits = { turnsMax: 6, turnTokensMax: 9, contextTokensMax: 64 };

/** Says how long the text was, and ends some day. */
const environment = {
  id: 'echo',
  version: '1',
  tasks: () => [],
  rewards: { none: { fn: () => 0, weight: 1 } },
  reset: (_: unknown, { seed }: { readonly seed: number }) => ({ observation: `${seed % 7};`, state: 0 }),
  step: ({ text }: { readonly text: string }, state: unknown): StepResult => ({
    observation: text.length % 3 === 0 ? '' : `${text.length};${String(state)}`,
    state: Number(state) + 1,
    terminated: text.includes('77') || text === '=',
    truncated: Number(state) > 4,
  }),
} satisfies Environment;

/** An environment pool that answers when `pending` lets it. */
function slowPool(pending: Pending): Pick<EnvironmentPool, 'reset' | 'step'> {
  const times = { environmentMs: 1, waitedMs: 0, queuedMs: 0 };
  return {
    reset: async ({ task, context }) => {
      await pending.wait();
      return { failed: false, result: environment.reset(task, context), ...times };
    },
    step: async ({ action, state }) => {
      await pending.wait();
      return { failed: false, result: environment.step(action, state), ...times };
    },
  };
}

/** The transcript of one rollout, played by itself with nothing in between. */
function playAlone({ group, sampleIndex }: Rollout): number[] {
  const seed = environmentSeed(KIND.seed, group.task.key, sampleIndex);
  const key = rolloutKey(KIND.seed, group.task.key, sampleIndex);
  const tokens = [...group.promptTokenIds];
  let observation = environment.reset(group.task, { seed }).observation;
  let state: unknown = 0;
  let sampled = 0;
  for (let turn = 0; turn < LIMITS.turnsMax; turn++) {
    const ids = observation === '' ? [] : tokenizer.encode(observation, { specialTokens: false });
    const room = LIMITS.contextTokensMax - tokens.length - ids.length;
    const most = Math.min(LIMITS.turnTokensMax, KIND.tokensMax - sampled, room);
    if (most < 1) break;
    tokens.push(...ids);
    const own: number[] = [];
    while (own.length < most && !KIND.stopTokenIds.includes(own.at(-1) ?? -1)) {
      own.push(nextToken([...tokens, ...own], key));
    }
    const text = tokenizer.decode(own, tokens);
    tokens.push(...own);
    sampled += own.length;
    const step = environment.step({ text }, state);
    if (step.terminated || step.truncated) break;
    ({ observation, state } = step);
  }
  return tokens;
}

class Storm {
  readonly lanes = Array.from({ length: 3 }, () => new ScriptedLane());
  readonly pending = new Pending();
  readonly pool: RolloutPool;
  readonly groups: Group[];
  readonly counts = { slept: 0, died: 0, moved: 0 };
  failure: Error | null = null;
  #unscored = 0;

  constructor(private readonly random: Random) {
    const player = new EpisodePlayer({
      environment,
      pool: slowPool(this.pending),
      tokenizer,
      limits: LIMITS,
      onFailed: (error) => (this.failure ??= error),
    });
    this.pool = new RolloutPool({
      send: (lane, sequences) => at(this.lanes, lane).tell({ kind: 'add', sequences }),
      episodes: {
        play: (rollout, episode, sample) => player.play(rollout, episode, sample),
        extend: (lane, turns) => at(this.lanes, lane).tell({ kind: 'extend', turns }),
        finish: (lane, ids) => at(this.lanes, lane).tell({ kind: 'finish', ids }),
      },
      score: () => {
        this.#unscored--;
        return Promise.resolve({ failed: false, reward: 0, scores: {} });
      },
      changed: () => undefined,
    });
    this.groups = Array.from({ length: 5 }, (_, i) => {
      const task = { key: `task ${i}`, prompt: `${i}+${i}=`, info: null };
      return this.pool.start({ task, tokenIds: tokenizer.encode(task.prompt) }, 1, 4, KIND);
    });
    this.#unscored = this.rollouts.length;
  }

  get rollouts(): Rollout[] {
    return this.groups.flatMap(({ rollouts }) => rollouts);
  }

  get isOver(): boolean {
    return this.#unscored === 0;
  }

  /** Anything that may happen to a run, one thing after the other. */
  async happen(): Promise<void> {
    const { random, lanes } = this;
    const index = random.int(0, lanes.length - 1);
    const lane = at(lanes, index);
    const what = random.int(0, 99);
    if (what < 40) lane.step(random);
    else if (what < 55) lane.take();
    else if (what < 75) this.#hear(index, lane);
    else if (what < 85) this.pending.answerOne(random);
    else if (what < 96) this.#place();
    else if (what < 99) this.#sleep(lane);
    else this.#die(index, lane);
    await new Promise(setImmediate);
    if (this.failure !== null) throw this.failure;
    this.#check();
  }

  #hear(index: number, lane: ScriptedLane): void {
    const message = lane.toHost.shift();
    if (message === undefined) return;
    if (message.kind === 'tokens') return this.pool.receive(index, message.update);
    this.pool.comeBack(index, message.ids);
    lane.wake();
  }

  #place(): void {
    const { random, pool } = this;
    const slots = new Map<number, number>();
    this.lanes.forEach((lane, i) => {
      if (!lane.isLeaving) slots.set(i, random.int(0, 4));
    });
    const before = this.lanes.map((_, i) => pool.runningOn(i));
    const places = new Map(this.rollouts.map(({ id, lanes }) => [id, lanes.length]));
    pool.place(slots);
    for (const [i, count] of slots) {
      expect(pool.runningOn(i)).toBeLessThanOrEqual(Math.max(count, at(before, i)));
    }
    this.counts.moved += this.rollouts.filter(({ id, lanes }) => {
      const had = places.get(id) ?? 0;
      return had > 0 && lanes.length > had;
    }).length;
  }

  #sleep(lane: ScriptedLane): void {
    if (lane.isLeaving) return;
    lane.isLeaving = true;
    lane.tell({ kind: 'remove' });
    this.counts.slept++;
  }

  #die(index: number, lane: ScriptedLane): void {
    lane.die();
    this.pool.laneLost(index);
    this.counts.died++;
  }

  /** Who waits for an environment is unfinished and not runnable; everybody else who is unfinished is. */
  #check(): void {
    const { rollouts, runnable } = this.pool.demand;
    expect(rollouts).toBe(this.#unscored);
    expect(rollouts - runnable).toBe(this.pending.count);
    for (const { finishReason, finishedMs } of this.rollouts) {
      expect(finishReason === null).toBe(finishedMs === null);
    }
  }
}

describe('episodes on lanes that sleep, die and have few slots', () => {
  for (const seed of seeds(4)) {
    it(`come to the tokens they come to alone (seed ${seed})`, async () => {
      const storm = new Storm(new Random(5100 + seed));
      for (let i = 0; i < 60_000 && !storm.isOver; i++) await storm.happen();
      const label = `seed ${seed}: ${JSON.stringify(storm.counts)}`;
      expect(storm.isOver, label).toBe(true);
      expect(storm.pool.demand, label).toEqual({ rollouts: 0, runnable: 0, tokensRemaining: 0 });
      for (const rollout of storm.rollouts) {
        const { generated, group, episode } = rollout;
        assert(episode !== undefined, 'an episode');
        const transcript = allTokens(group.promptTokenIds, generated.tokenIds, episode.observations);
        expect(transcript, `${label}, rollout ${rollout.id}`).toEqual(playAlone(rollout));
        expect(generated.logprobs).toEqual(generated.tokenIds.map((token) => -token));
        expect(episode.turnEnds).toHaveLength(episode.record?.turns.length ?? NaN);
      }
      for (const count of Object.values(storm.counts)) expect(count, label).toBeGreaterThan(2);
      const stops = new Set(storm.rollouts.map(({ episode }) => episode?.record?.stopCondition));
      expect(stops.size, label).toBeGreaterThan(1);
    });
  }
});
