import type { EngineUpdate } from '#src/engine/engine.js';
import { allTokens, type TurnEnd } from '#src/engine/episode.js';
import type { SequenceRequest } from '#src/engine/sequence.js';
import type { EpisodeTurn } from '#src/lanes/messages.js';
import { assert, at } from '#src/lib/assert.js';
import { type Key, type Random, threefry2x32 } from '#src/lib/prng.js';

/** What a model would say next, as a function of all before it: any slip in a transcript changes all that follows. */
export function nextToken(tokens: readonly number[], key: Key): number {
  let state: Key = key;
  for (const token of tokens) state = threefry2x32(state, [token, tokens.length]);
  // The tokens of the shipped model: end of sequence, digits, signs.
  return 2 + (state[0] % 14);
}

interface Held {
  readonly request: SequenceRequest;
  readonly tokens: number[];
  sampled: number;
  tokensMax: number;
  turnEnd: TurnEnd | null;
}

type ToLane =
  | { readonly kind: 'add'; readonly sequences: readonly SequenceRequest[] }
  | { readonly kind: 'extend'; readonly turns: readonly EpisodeTurn[] }
  | { readonly kind: 'finish'; readonly ids: readonly number[] }
  | { readonly kind: 'remove' }
  | { readonly kind: 'create' };
type FromLane =
  | { readonly kind: 'tokens'; readonly update: EngineUpdate }
  | { readonly kind: 'removed'; readonly ids: readonly number[] };

/** A lane by the engine's rules, without a model: messages arrive late in both directions, in order. */
export class ScriptedLane {
  readonly toLane: ToLane[] = [];
  readonly toHost: FromLane[] = [];
  /** By id, in order of arrival; null while the engine is asleep. */
  #held: Map<number, Held> | null = new Map();
  /** The host has asked it to sleep, and not heard that it does. */
  isLeaving = false;

  tell(message: ToLane): void {
    this.toLane.push(structuredClone(message));
  }

  /** Takes in the oldest message. */
  take(): void {
    const message = this.toLane.shift();
    if (message === undefined) return;
    if (message.kind === 'finish') {
      for (const id of message.ids) this.#finish(id);
      return;
    }
    if (message.kind === 'create') {
      assert(this.#held === null, 'create for an engine that is awake');
      this.#held = new Map();
      return;
    }
    const held = this.#held;
    assert(held !== null, `${message.kind} for an engine that is asleep`);
    switch (message.kind) {
      case 'add':
        for (const request of message.sequences) this.#add(held, request);
        break;
      case 'extend':
        for (const { id, turn } of message.turns) {
          const sequence = held.get(id);
          assert(sequence !== undefined && sequence.turnEnd !== null, `extend of ${id}, which is not parked`);
          sequence.tokens.push(...turn.tokenIds);
          sequence.tokensMax = sequence.sampled + turn.tokensMax;
          sequence.turnEnd = null;
        }
        break;
      case 'remove':
        this.#held = null;
        this.toHost.push({ kind: 'removed', ids: [...held.keys()] });
        break;
      default:
        message satisfies never;
    }
  }

  /** One of its sequences samples a token. */
  step(random: Random): void {
    const running = [...(this.#held?.values() ?? [])].filter(({ turnEnd }) => turnEnd === null);
    if (running.length === 0) return;
    const sequence = random.pick(running);
    const { id, key, stopTokenIds } = sequence.request;
    const token = nextToken(sequence.tokens, key);
    sequence.tokens.push(token);
    sequence.sampled++;
    const stopped = stopTokenIds.includes(token);
    if (stopped || sequence.sampled === sequence.tokensMax) sequence.turnEnd = stopped ? 'stop' : 'length';
    const { turnEnd: reason } = sequence;
    this.#tell([{ id, token }], reason === null ? [] : [{ id, reason }]);
  }

  /** The host has heard that it sleeps, and wakes it. */
  wake(): void {
    this.tell({ kind: 'create' });
    this.isLeaving = false;
  }

  /** It is gone with all that was on its way; another one comes up. */
  die(): void {
    this.toLane.length = 0;
    this.toHost.length = 0;
    this.#held = new Map();
    this.isLeaving = false;
  }

  #add(held: Map<number, Held>, request: SequenceRequest): void {
    const { id, promptTokenIds, generated, episode, tokensMax } = request;
    assert(!held.has(id), `${id} was added twice`);
    assert(episode?.turnEnd === null, `${id} comes between two turns`);
    const tokens = allTokens(promptTokenIds, generated.tokenIds, episode.observations);
    const sampled = generated.tokenIds.length;
    assert(sampled < tokensMax, `${id} has nothing left to do`);
    held.set(id, { request, tokens, sampled, tokensMax, turnEnd: null });
  }

  #finish(id: number): void {
    const sequence = this.#held?.get(id);
    if (this.#held === null) return;
    const reason = sequence?.turnEnd ?? null;
    assert(reason !== null, `finish of ${id}, which is not parked`);
    this.#held.delete(id);
    this.toHost.push({ kind: 'tokens', update: { ...emptyUpdate(), finished: [{ id, reason }] } });
  }

  #tell(rows: readonly { id: number; token: number }[], paused: { id: number; reason: TurnEnd }[]): void {
    const ids = Uint32Array.from(rows, ({ id }) => id);
    const tokenIds = Uint32Array.from(rows, ({ token }) => token);
    const logprobs = Float32Array.from(rows, ({ token }) => -token);
    const update = { ...emptyUpdate(), ids, tokenIds, logprobs, rawLogprobs: logprobs };
    this.toHost.push({ kind: 'tokens', update: paused.length > 0 ? { ...update, paused } : update });
  }
}

function emptyUpdate(): EngineUpdate {
  const [ids, logprobs] = [new Uint32Array(), new Float32Array()];
  return { ids, tokenIds: ids, logprobs, rawLogprobs: logprobs, version: 0, finished: [] };
}

/** Calls that are answered when somebody says so, in any order. */
export class Pending {
  readonly #answers: (() => void)[] = [];

  get count(): number {
    return this.#answers.length;
  }

  wait(): Promise<void> {
    return new Promise((resolve) => this.#answers.push(resolve));
  }

  answerOne(random: Random): void {
    if (this.count === 0) return;
    const [answer] = this.#answers.splice(random.int(0, this.count - 1), 1);
    at([answer], 0)?.();
  }
}
