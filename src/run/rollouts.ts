import type { EngineUpdate } from '../engine/engine.js';
import type { Turn, TurnEnd } from '../engine/episode.js';
import type { FinishReason, SequenceRequest } from '../engine/sequence.js';
import type { EpisodeTurn } from '../lanes/messages.js';
import { assert, at } from '../lib/assert.js';
import type { EndedRollout } from '../scheduler/lengths.js';
import { nowMs } from '../lib/clock.js';
import type { Prompt } from './prompt-source.js';
import type { GroupListener, RolloutEvents } from './rollout-events.js';
import {
  endedRollout,
  type Group,
  newRollout,
  type Rollout,
  type RolloutEpisode,
  type RolloutKind,
} from './rollout.js';

/** Ends that nobody has asked for, kept at most: then the oldest go. */
const ENDED_MAX = 4096;

export type { EpisodeEvents, GroupListener, RolloutEvents } from './rollout-events.js';
export { oldestVersion, type Fate, type Group, type Rollout, type RolloutKind } from './rollout.js';

/**
 * Owns every rollout from its prompt to its reward, and decides which awake lane it runs on: oldest first, to the
 * lane with most free slots. A lane never holds more than its slots, so what waits, waits here and can go anywhere.
 *
 * An episode whose environment thinks is parked: it has no slot, and its cache stays on its lane. It goes on there when
 * there is room, or else on any lane that has some, which then reads the whole transcript. So it does when its lane
 * is lost or falls asleep: the tokens are the same.
 */
export class RolloutPool {
  /** May run on any lane. */
  readonly #waiting: Rollout[] = [];
  readonly #running = new Map<number, Rollout>();
  /** Episodes between two turns, or before the first. */
  readonly #parked = new Map<number, Rollout>();
  /** Of these, those that have their next turn and their cache on a lane, in order of the answers. */
  #ready: ReadyRollout[] = [];
  readonly #onLane = new Map<number, number>();
  readonly #whenScored = new Map<number, () => void>();
  readonly #whenFinished = new Map<number, () => void>();
  readonly #listeners = new WeakMap<Group, GroupListener>();
  /** Ended early while they ran, by the lane that has not said so yet. */
  readonly #ending = new Map<number, number>();
  readonly #whenTurnEnds = new Map<number, (reason: TurnEnd) => void>();
  #ended: EndedRollout[] = [];
  #nextId = 1;
  #decoded = 0;

  constructor(private readonly events: RolloutEvents) {}

  /** Tokens heard of so far, of training rollouts only. */
  get decoded(): number {
    return this.#decoded;
  }

  /** What generation still has to do. */
  get demand(): { rollouts: number; runnable: number; tokensRemaining: number } {
    const outstanding = [...this.#waiting, ...this.#running.values(), ...this.#parked.values()];
    const tokensRemaining = outstanding.reduce(
      (sum, rollout) => sum + rollout.request.tokensMax - rollout.generated.tokenIds.length,
      0,
    );
    return { rollouts: outstanding.length, runnable: this.runnable, tokensRemaining };
  }

  /** Rollouts that run or would if they had a slot. */
  get runnable(): number {
    return this.#waiting.length + this.#running.size + this.#ready.length;
  }

  /** Lengths of the rollouts that came to an end of their own since the last call. */
  takeEnded(): EndedRollout[] {
    const ended = this.#ended;
    this.#ended = [];
    return ended;
  }

  runningOn(lane: number): number {
    return this.#onLane.get(lane) ?? 0;
  }

  /**
   * Starts `samples` rollouts of one prompt. They run as soon as `place` finds them a lane; episodes, once their
   * environment has opened them.
   */
  start(
    { task, tokenIds: promptTokenIds }: Prompt,
    step: number,
    samples: number,
    kind: RolloutKind,
    listener?: GroupListener,
  ): Group {
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
      const isEpisode = this.events.episodes !== undefined;
      const rollout = newRollout(this.#nextId++, group, sampleIndex, { ...kind, isEpisode });
      const { id, episode } = rollout;
      rollouts.push(rollout);
      ended.push(new Promise((resolve) => this.#whenFinished.set(id, resolve)));
      done.push(new Promise((resolve) => this.#whenScored.set(id, resolve)));
      if (episode === undefined) this.#waiting.push(rollout);
      else {
        this.#parked.set(id, rollout);
        void this.#play(rollout, episode);
      }
    }
    if (listener !== undefined) this.#listeners.set(group, listener);
    return group;
  }

  /**
   * Nobody needs these any more, whether they wait, run or have come to their end: what they have sampled so far is all.
   * Of rollouts of a single turn only. Their group never counts as finished or scored.
   */
  abort(rollouts: readonly Rollout[]): void {
    const byLane = new Map<number, number[]>();
    const gone = new Set(rollouts);
    for (const rollout of rollouts) {
      const { id, lane } = rollout;
      assert(rollout.episode === undefined, `rollout ${id} has turns and cannot be aborted`);
      this.#whenFinished.delete(id);
      this.#whenScored.delete(id);
      if (lane !== null) {
        this.#leave(rollout);
        this.#ending.set(id, lane);
        add(byLane, lane, id);
      }
      rollout.finishReason ??= 'abort';
    }
    const waiting = this.#waiting.filter((rollout) => !gone.has(rollout));
    this.#waiting.splice(0, this.#waiting.length, ...waiting);
    for (const [lane, ids] of byLane) this.events.abort?.(lane, ids);
    this.events.changed();
  }

  /** Gives rollouts to the lanes that have room: first those whose cache is there, then those that can go anywhere. */
  place(slots: ReadonlyMap<number, number>): void {
    const batches = new Map<number, SequenceRequest[]>();
    this.#goOn(slots, batches);
    while (this.#waiting.length > 0) {
      const lane = this.#roomiest(slots);
      if (lane === null) break;
      const rollout = this.#waiting.shift();
      assert(rollout !== undefined, 'a waiting rollout');
      this.#give(rollout, lane, batches);
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
      this.#ending.delete(id);
      const rollout = this.#running.get(id);
      // An episode ends here, not in the engine: what that says is an answer to `finish`.
      if (rollout?.lane !== lane || rollout.episode !== undefined) continue;
      this.#leave(rollout);
      this.#finish(rollout, reason);
    }
    const { paused = [] } = update;
    for (const { id, reason } of paused) this.#pause(lane, id, reason);
    if (update.finished.length + paused.length > 0) this.events.changed();
  }

  /** The lane's engine fell asleep with these unfinished: they go on elsewhere, from their last token. */
  comeBack(lane: number, ids: readonly number[]): void {
    const mine = ids.filter((id) => {
      const rollout = this.#running.get(id) ?? this.#parked.get(id);
      // It may have come to its end while the engine fell asleep.
      const isEnding = this.#ending.delete(id);
      const isOver = rollout === undefined && (isEnding || this.events.episodes !== undefined);
      assert(
        isOver || rollout?.lane === lane,
        `sequence ${id} came back from lane ${lane}, where it was not`,
      );
      return !isOver;
    });
    this.#returnAll(new Set(mine));
  }

  /**
   * The lane is gone: what it had goes on elsewhere, from the last token that was heard of. Returns how many that are.
   */
  laneLost(lane: number): number {
    const had = [...this.#running.values(), ...this.#parked.values()].filter((each) => each.lane === lane);
    this.#returnAll(new Set(had.map(({ id }) => id)));
    for (const [id, home] of this.#ending) if (home === lane) this.#ending.delete(id);
    return had.length;
  }

  async #play(rollout: Rollout, episode: RolloutEpisode): Promise<void> {
    const { episodes } = this.events;
    assert(episodes !== undefined, 'an episode without a player');
    const record = await episodes.play(rollout, episode, (turn) => this.#nextTurn(rollout, turn));
    // The run is over, and the rollout stays as it is.
    if (record === null) return;
    episode.record = record;
    const { id, lane } = rollout;
    assert(this.#parked.delete(id), `rollout ${id} ended in the middle of a turn`);
    if (lane !== null) episodes.finish(lane, [id]);
    rollout.lane = null;
    this.#finish(rollout, record.turns.at(-1)?.action.finishReason ?? 'abort');
    this.events.changed();
  }

  /** The environment has answered; resolves when the turn that begins now is over. */
  #nextTurn(rollout: Rollout, turn: Turn): Promise<TurnEnd> {
    const { id, lane, generated } = rollout;
    assert(this.#parked.has(id), `rollout ${id} has a next turn in the middle of one`);
    const ended = new Promise<TurnEnd>((resolve) => this.#whenTurnEnds.set(id, resolve));
    if (lane !== null) this.#ready.push({ rollout, turn });
    else {
      this.#parked.delete(id);
      if (generated.tokenIds.length > 0) this.#waiting.unshift(rollout);
      else this.#waiting.push(rollout);
    }
    this.events.changed();
    return ended;
  }

  /** The rollout's turn is over: its lane keeps its cache, and has a slot to give away. */
  #pause(lane: number, id: number, reason: TurnEnd): void {
    const rollout = this.#running.get(id);
    if (rollout?.lane !== lane) return;
    assert(rollout.episode !== undefined, `rollout ${id} has no turns and paused`);
    this.#running.delete(id);
    this.#onLane.set(lane, this.runningOn(lane) - 1);
    this.#parked.set(id, rollout);
    rollout.episode.turnEnds.push(rollout.generated.tokenIds.length);
    const end = this.#whenTurnEnds.get(id);
    this.#whenTurnEnds.delete(id);
    end?.(reason);
  }

  /**
   * Begins the next turn of the episodes that have one, where their cache is if there is room. A lane that takes nothing
   * at present will, or will be asleep: its episodes stay until then.
   */
  #goOn(slots: ReadonlyMap<number, number>, batches: Map<number, SequenceRequest[]>): void {
    const { episodes } = this.events;
    const turns = new Map<number, EpisodeTurn[]>();
    const left: ReadyRollout[] = [];
    for (const ready of this.#ready) {
      const { rollout, turn } = ready;
      const { id, lane: home } = rollout;
      assert(home !== null, `rollout ${id} is ready on no lane`);
      const isOpen = slots.has(home);
      const hasRoom = (slots.get(home) ?? 0) > this.runningOn(home);
      const lane = !isOpen || hasRoom ? home : this.#roomiest(slots);
      if (!isOpen || lane === null) {
        left.push(ready);
        continue;
      }
      this.#parked.delete(id);
      if (lane === home) {
        this.#runs(rollout, home);
        add(turns, home, { id, turn });
      } else {
        episodes?.finish(home, [id]);
        this.#give(rollout, lane, batches);
      }
    }
    this.#ready = left;
    for (const [lane, batch] of turns) episodes?.extend(lane, batch);
  }

  /** Has the lane run the rollout from the beginning of its transcript. */
  #give(rollout: Rollout, lane: number, batches: Map<number, SequenceRequest[]>): void {
    const { request, generated, episode } = rollout;
    rollout.lanes.push(lane);
    this.#runs(rollout, lane);
    const turns =
      episode === undefined
        ? {}
        : { tokensMax: episode.tokensMax, episode: { observations: episode.observations, turnEnd: null } };
    add(batches, lane, { ...request, generated, ...turns });
  }

  #runs(rollout: Rollout, lane: number): void {
    rollout.lane = lane;
    this.#running.set(rollout.id, rollout);
    this.#onLane.set(lane, this.runningOn(lane) + 1);
  }

  /** Their lane has them no more: those that can run wait for any lane, before those that never ran. */
  #returnAll(ids: ReadonlySet<number>): void {
    const returned: Rollout[] = [];
    for (const rollout of [...this.#running.values()].filter(({ id }) => ids.has(id))) {
      this.#leave(rollout);
      returned.push(rollout);
    }
    for (const { rollout } of this.#ready.filter((ready) => ids.has(ready.rollout.id))) {
      this.#parked.delete(rollout.id);
      rollout.lane = null;
      returned.push(rollout);
    }
    this.#ready = this.#ready.filter(({ rollout }) => !ids.has(rollout.id));
    for (const rollout of this.#parked.values()) if (ids.has(rollout.id)) rollout.lane = null;
    this.#waiting.unshift(...returned);
    this.events.changed();
  }

  #leave(rollout: Rollout): void {
    const { lane } = rollout;
    assert(lane !== null, 'a rollout that leaves no lane');
    this.#running.delete(rollout.id);
    this.#onLane.set(lane, this.runningOn(lane) - 1);
    rollout.lane = null;
  }

  #finish(rollout: Rollout, reason: FinishReason): void {
    rollout.finishReason = reason;
    rollout.finishedMs = nowMs();
    if (reason !== 'abort') this.#ended.push(endedRollout(rollout));
    if (this.#ended.length > ENDED_MAX) this.#ended.shift();
    this.#whenFinished.get(rollout.id)?.();
    this.#whenFinished.delete(rollout.id);
    this.#listeners.get(rollout.group)?.finished(rollout);
    void this.#score(rollout);
  }

  async #score(rollout: Rollout): Promise<void> {
    rollout.reward = await this.events.score(rollout);
    this.#whenScored.get(rollout.id)?.();
    this.#whenScored.delete(rollout.id);
    this.#listeners.get(rollout.group)?.scored(rollout);
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

/** An episode whose environment has answered, and what. */
interface ReadyRollout {
  readonly rollout: Rollout;
  readonly turn: Turn;
}

function add<T>(lists: Map<number, T[]>, lane: number, item: T): void {
  const list = lists.get(lane);
  if (list === undefined) lists.set(lane, [item]);
  else list.push(item);
}
