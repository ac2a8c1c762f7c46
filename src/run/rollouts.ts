import type { EngineUpdate } from '../engine/engine.js';
import {
  type FinishReason,
  type GeneratedTokens,
  noTokens,
  type SequenceRequest,
} from '../engine/sequence.js';
import type { SamplingParams } from '../kernels/output-head.js';
import { assert, at } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { rolloutKey } from '../lib/prng.js';
import type { RewardResult } from '../tasks/reward-result.js';
import type { Task } from '../tasks/task.js';
import type { Prompt } from './prompt-source.js';

/** Where a rollout's tokens ended up. */
export type Fate = 'trained' | 'aborted' | 'expired' | 'filtered';

/** What all rollouts of a kind have in common. */
export interface RolloutKind {
  readonly seed: number;
  readonly tokensMax: number;
  readonly sampling: SamplingParams;
  readonly stopTokenIds: readonly number[];
}

/** One whole episode of a task: here, one completion of its prompt. */
export interface Rollout {
  readonly id: number;
  readonly group: Group;
  readonly sampleIndex: number;
  readonly request: SequenceRequest;
  /** Everything the host has heard of, whichever lanes it came from. */
  readonly generated: GeneratedTokens;
  /** Where it runs; null while it waits. */
  lane: number | null;
  /** Every lane it was given to, in order. */
  readonly lanes: number[];
  finishReason: FinishReason | null;
  /** When the host heard of its end, on lib/clock. */
  finishedMs: number | null;
  reward: RewardResult | null;
  /** Null while it is in flight: unfinished, or finished and waiting to be used. */
  fate: Fate | null;
}

/** The n rollouts of one prompt. */
export interface Group {
  readonly task: Task;
  /** The training step it is for; 0 for held-out prompts. */
  readonly step: number;
  readonly promptTokenIds: readonly number[];
  readonly rollouts: readonly Rollout[];
  /** Resolves when every rollout has come to its end; rewards come later. */
  readonly finished: Promise<void>;
  /** Resolves when every rollout has its reward. */
  readonly scored: Promise<void>;
}

export interface RolloutEvents {
  /** Sends sequences to a lane's engine. */
  readonly send: (lane: number, sequences: readonly SequenceRequest[]) => void;
  /** Scores a finished rollout; never rejects. */
  readonly score: (rollout: Rollout) => Promise<RewardResult>;
  /** The number of outstanding rollouts or of free places changed. */
  readonly changed: () => void;
}

/** First version a rollout's tokens were sampled under: its staleness is counted from it. */
export function oldestVersion(rollout: Rollout): number {
  const { versions } = rollout.generated;
  return versions.length === 0 ? Infinity : Math.min(...versions);
}

/**
 * Owns every rollout from its prompt to its reward, and decides which awake lane it runs on: oldest first, to the
 * lane with most free slots. A lane never holds more than its slots, so what waits, waits here and can go anywhere.
 */
export class RolloutPool {
  readonly #waiting: Rollout[] = [];
  readonly #running = new Map<number, Rollout>();
  readonly #onLane = new Map<number, number>();
  readonly #whenScored = new Map<number, () => void>();
  readonly #whenFinished = new Map<number, () => void>();
  #nextId = 1;
  #decoded = 0;

  constructor(private readonly events: RolloutEvents) {}

  /** Tokens heard of so far, of training rollouts only. */
  get decoded(): number {
    return this.#decoded;
  }

  /** What generation still has to do. */
  get demand(): { rollouts: number; runnable: number; tokensRemaining: number } {
    const outstanding = [...this.#waiting, ...this.#running.values()];
    const tokensRemaining = outstanding.reduce(
      (sum, rollout) => sum + rollout.request.tokensMax - rollout.generated.tokenIds.length,
      0,
    );
    return { rollouts: outstanding.length, runnable: outstanding.length, tokensRemaining };
  }

  runningOn(lane: number): number {
    return this.#onLane.get(lane) ?? 0;
  }

  /** Starts `samples` rollouts of one prompt. They run as soon as `place` finds them a lane. */
  start({ task, tokenIds: promptTokenIds }: Prompt, step: number, samples: number, kind: RolloutKind): Group {
    const rollouts: Rollout[] = [];
    const ended: Promise<void>[] = [];
    const done: Promise<void>[] = [];
    const group: Group = {
      task,
      step,
      promptTokenIds,
      rollouts,
      get finished() {
        return Promise.all(ended).then(() => undefined);
      },
      get scored() {
        return Promise.all(done).then(() => undefined);
      },
    };
    for (let sampleIndex = 0; sampleIndex < samples; sampleIndex++) {
      const id = this.#nextId++;
      const request: SequenceRequest = {
        id,
        promptTokenIds,
        generated: noTokens(),
        tokensMax: kind.tokensMax,
        sampling: kind.sampling,
        key: rolloutKey(kind.seed, task.key, sampleIndex),
        stopTokenIds: kind.stopTokenIds,
      };
      const rollout: Rollout = {
        id,
        group,
        sampleIndex,
        request,
        generated: noTokens(),
        lane: null,
        lanes: [],
        finishReason: null,
        finishedMs: null,
        reward: null,
        fate: null,
      };
      rollouts.push(rollout);
      ended.push(new Promise((resolve) => this.#whenFinished.set(id, resolve)));
      done.push(new Promise((resolve) => this.#whenScored.set(id, resolve)));
      this.#waiting.push(rollout);
    }
    return group;
  }

  /** Gives waiting rollouts to the lanes that have room. */
  place(slots: ReadonlyMap<number, number>): void {
    const batches = new Map<number, SequenceRequest[]>();
    while (this.#waiting.length > 0) {
      const lane = this.#roomiest(slots);
      if (lane === null) break;
      const rollout = this.#waiting.shift();
      assert(rollout !== undefined, 'a waiting rollout');
      rollout.lane = lane;
      rollout.lanes.push(lane);
      this.#running.set(rollout.id, rollout);
      this.#onLane.set(lane, this.runningOn(lane) + 1);
      const batch = batches.get(lane) ?? [];
      batch.push({ ...rollout.request, generated: rollout.generated });
      batches.set(lane, batch);
    }
    for (const [lane, batch] of batches) this.events.send(lane, batch);
  }

  /** Takes in what one step of a lane's engine produced. */
  receive(lane: number, update: EngineUpdate): void {
    update.ids.forEach((id, i) => {
      const rollout = this.#running.get(id);
      if (rollout?.lane !== lane) return;
      rollout.generated.tokenIds.push(at(update.tokenIds, i));
      rollout.generated.logprobs.push(at(update.logprobs, i));
      rollout.generated.rawLogprobs.push(at(update.rawLogprobs, i));
      rollout.generated.versions.push(update.version);
      if (rollout.group.step > 0) this.#decoded++;
    });
    for (const { id, reason } of update.finished) {
      const rollout = this.#running.get(id);
      if (rollout?.lane !== lane) continue;
      this.#leave(rollout);
      rollout.finishReason = reason;
      rollout.finishedMs = nowMs();
      this.#whenFinished.get(id)?.();
      this.#whenFinished.delete(id);
      void this.#score(rollout);
    }
    if (update.finished.length > 0) this.events.changed();
  }

  /** The lane's engine fell asleep with these unfinished: they go on elsewhere, from their last token. */
  comeBack(lane: number, ids: readonly number[]): void {
    const returned: Rollout[] = [];
    for (const id of ids) {
      const rollout = this.#running.get(id);
      assert(rollout?.lane === lane, `sequence ${id} came back from lane ${lane}, where it was not`);
      this.#leave(rollout);
      returned.push(rollout);
    }
    this.#waiting.unshift(...returned);
    this.events.changed();
  }

  /**
   * The lane is gone: what it ran goes on elsewhere, from the last token that was heard of. Returns how many that are.
   */
  laneLost(lane: number): number {
    const lost = [...this.#running.values()].filter((rollout) => rollout.lane === lane);
    for (const rollout of lost) this.#leave(rollout);
    this.#waiting.unshift(...lost);
    this.events.changed();
    return lost.length;
  }

  #leave(rollout: Rollout): void {
    const { lane } = rollout;
    assert(lane !== null, 'a rollout that leaves no lane');
    this.#running.delete(rollout.id);
    this.#onLane.set(lane, this.runningOn(lane) - 1);
    rollout.lane = null;
  }

  async #score(rollout: Rollout): Promise<void> {
    rollout.reward = await this.events.score(rollout);
    this.#whenScored.get(rollout.id)?.();
    this.#whenScored.delete(rollout.id);
  }

  #roomiest(slots: ReadonlyMap<number, number>): number | null {
    let best: number | null = null;
    let most = 0;
    for (const [lane, count] of slots) {
      const room = count - this.runningOn(lane);
      if (room > most) [best, most] = [lane, room];
    }
    return best;
  }
}
