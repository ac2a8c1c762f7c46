import { nextRound, Round, type RoundKind, type RoundRule, type StepShape } from '../scheduler/rounds.js';
import type { TokenLedger } from './ledger.js';
import type { Prompt } from './prompt-source.js';
import type { Group, GroupListener, Rollout, RolloutKind, RolloutPool } from './rollouts.js';

export interface RoundsParts {
  readonly pool: RolloutPool;
  readonly ledger: TokenLedger;
  /** What one training step takes. */
  readonly step: StepShape;
  readonly kind: RolloutKind;
  /** A prompt nobody has seen. */
  readonly fresh: () => Prompt;
  /** So many prompts wait for a long round now. */
  readonly onDeferred: (prompts: number) => void;
}

/** Starts the rollouts of each step, and keeps the prompts that a short round did not get to for a long one. */
export class Rounds {
  readonly #deferred: Prompt[] = [];

  constructor(private readonly parts: RoundsParts) {}

  get deferredPrompts(): number {
    return this.#deferred.length;
  }

  /** @param rule as the newest plan has it; null for a plain round */
  start(step: number, rule: RoundRule | null): StepRound {
    const { parts } = this;
    const { kind, deferred, fresh, samples } = nextRound(rule, parts.step, this.#deferred.length);
    const prompts = this.#deferred.splice(0, deferred);
    for (let i = 0; i < fresh; i++) prompts.push(parts.fresh());
    if (deferred > 0) parts.onDeferred(this.deferredPrompts);
    return new StepRound({ kind, step, prompts, samples }, parts, (late) => {
      this.#deferred.push(...late);
      parts.onDeferred(this.deferredPrompts);
    });
  }
}

interface Beginning {
  readonly kind: RoundKind;
  readonly step: number;
  readonly prompts: readonly Prompt[];
  readonly samples: number;
}

/** A prompt and what was started of it. */
interface Attempt {
  readonly prompt: Prompt;
  readonly group: Group;
}

/**
 * The rollouts of one step. What the step has no need of any more is aborted the moment that is known, and its tokens
 * are counted so; rollouts of several turns are aborted never, and have plain rounds only.
 */
export class StepRound implements GroupListener {
  readonly kind: RoundKind;
  /** Everything that was started. */
  readonly started: readonly Group[];
  /** Resolves when all that the step trains has come to its end; rewards come later. */
  readonly whenFinished: Promise<void>;
  /** Resolves when all of it has its reward. */
  readonly whenScored: Promise<void>;
  readonly #round: Round<Attempt, Rollout>;
  /** Of what the step trains, those without their reward; null until that is decided. */
  #unscored: Set<Rollout> | null = null;
  #resolveFinished: () => void = () => undefined;
  #resolveScored: () => void = () => undefined;

  constructor(
    { kind, step, prompts, samples }: Beginning,
    private readonly parts: RoundsParts,
    private readonly defer: (prompts: readonly Prompt[]) => void,
  ) {
    const { pool } = parts;
    this.kind = kind;
    this.whenFinished = new Promise((resolve) => (this.#resolveFinished = resolve));
    this.whenScored = new Promise((resolve) => (this.#resolveScored = resolve));
    const attempts = prompts.map((prompt) => {
      const group = pool.start(prompt, step, samples, parts.kind, this);
      return { prompt: { prompt, group }, samples: group.rollouts };
    });
    this.started = attempts.map(({ prompt }) => prompt.group);
    this.#round = new Round(kind, parts.step, attempts);
  }

  /** What the step trains, once all of that has finished: each group with the samples that are taken. */
  get taken(): Group[] {
    return this.#round.taken.map(({ prompt: { group }, samples: rollouts }) =>
      rollouts.length === group.rollouts.length ? group : { ...group, rollouts },
    );
  }

  finished(rollout: Rollout): void {
    const { pool, ledger } = this.parts;
    const unneeded = this.#round.ended(rollout);
    const late = this.#round.deferred.map(({ prompt }) => prompt);
    if (late.length > 0) this.defer(late);
    for (const other of unneeded) ledger.settle(other, 'aborted');
    if (unneeded.length > 0) pool.abort(unneeded);
    if (!this.#round.isDecided) return;
    const taken = this.#round.taken.flatMap(({ samples }) => samples);
    this.#unscored = new Set(taken.filter(({ reward }) => reward === null));
    this.#resolveFinished();
  }

  scored(rollout: Rollout): void {
    this.#unscored?.delete(rollout);
    if (this.#unscored?.size === 0) this.#resolveScored();
  }
}
