import { assert, at } from '../lib/assert.js';
import type { Random } from '../lib/prng.js';
import { draw, drawCount } from './distribution.js';
import type { HeapItem } from './heap.js';
import type { RecordedRollout, RecordedTurn, SimFaults, SimJobSpec } from './scenario.js';

/** Where a sequence's KV is. */
export interface KvHome {
  take(sequences: readonly SimSequence[]): void;
  drop(sequences: readonly SimSequence[]): void;
  forget(sequence: SimSequence): void;
}

/** What decides how a sequence goes, whenever and wherever it runs. */
export interface SimCourse {
  /** How it went in a run, where that is known. */
  readonly recorded: RecordedRollout | undefined;
  /** Its group teaches nothing. */
  readonly isFiltered: boolean;
}

/** One rollout: its whole course is drawn beforehand, so it is the same whatever the scheduler decides. */
export class SimSequence implements HeapItem {
  place = -1;
  /** In its environment is `thinking`; `aborted` is what nobody needs any more, ended or not. */
  status: 'open' | 'thinking' | 'ended' | 'aborted' = 'open';
  /** Has its reward. */
  isScored = false;
  /** Sampled and committed: over all turns, and in this one. */
  tokens = 0;
  turnTokens = 0;
  /** Tokens the engine has to read before the next one can be sampled. */
  prefillLeft: number;
  /** Version its first token was sampled under; null before. */
  firstVersion: number | null = null;
  /** The engine that has its KV. */
  engine: KvHome | null = null;
  /** While it decodes, on its engine's count of steps: when it had `turnTokens`. */
  startStep = 0;
  /** The step its turn ends at. */
  key = 0;
  readonly tie: number;
  /** When it lost its slot in the middle of a turn; null while it has one, or none of its turn's tokens. */
  stoppedMs: number | null = null;
  readonly #turns: readonly RecordedTurn[];
  /** Until its reward once its last turn is over; null: nobody knows beforehand. */
  readonly rewardMs: number | null;
  #turn = 0;
  #contextTokens: number;

  constructor(
    readonly id: number,
    readonly step: number,
    private readonly course: SimCourse,
    work: SimJobSpec,
    faults: SimFaults,
    random: Random,
  ) {
    this.tie = id;
    this.#contextTokens = drawCount(work.promptTokens, 1, random);
    this.prefillLeft = this.#contextTokens;
    const { recorded } = course;
    this.rewardMs = recorded?.rewardMs ?? null;
    if (recorded !== undefined) {
      const { promptTokens, tokens, turns } = recorded;
      assert(tokens > 0 && promptTokens > 0, `a recorded rollout of ${promptTokens} and ${tokens} tokens`);
      this.#contextTokens = this.prefillLeft = promptTokens;
      this.#turns = turns ?? [{ tokens, waitMs: 0, observationTokens: 0 }];
      return;
    }
    const count = drawCount(work.turns, 1, random);
    const { share = 0, factor = 1 } = faults.stragglers ?? {};
    const turns: RecordedTurn[] = [];
    for (let turn = 1; turn <= count; turn++) {
      const isStraggler = share > 0 && random.uniform() < share;
      const length = draw(work.completionTokens, random) * (isStraggler ? factor : 1);
      const isLast = turn === count;
      turns.push({
        tokens: Math.max(1, Math.round(length)),
        waitMs: isLast ? 0 : draw(work.environmentWaitMs, random),
        observationTokens: isLast ? 0 : drawCount(work.observationTokens, 0, random),
      });
    }
    this.#turns = turns;
  }

  /** Its group teaches nothing. */
  get isFiltered(): boolean {
    return this.course.isFiltered;
  }

  /** Tokens still to sample in this turn. */
  get turnLeft(): number {
    return at(this.#turns, this.#turn).tokens - this.turnTokens;
  }

  /** Prompt, observations and all that was sampled. */
  get contextTokens(): number {
    return this.#contextTokens + this.tokens;
  }

  /** Ends a turn: how long its environment takes, or null when the episode is over. */
  nextTurn(): number | null {
    const { waitMs, observationTokens } = at(this.#turns, this.#turn);
    if (this.#turn + 1 === this.#turns.length) return null;
    this.#turn++;
    this.turnTokens = 0;
    this.#contextTokens += observationTokens;
    this.prefillLeft += observationTokens;
    return waitMs;
  }

  /** Its KV is gone: wherever it goes on, everything is read again. Returns how many tokens that are. */
  dropCache(): number {
    const before = this.prefillLeft;
    this.engine = null;
    this.prefillLeft = this.contextTokens;
    return this.prefillLeft - before;
  }
}

/** Over again when they are used up. */
export function recordedAt(
  recorded: readonly RecordedRollout[] | undefined,
  index: number,
): RecordedRollout | undefined {
  return recorded === undefined ? undefined : at(recorded, index % recorded.length);
}
