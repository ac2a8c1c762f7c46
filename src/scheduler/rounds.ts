import { assert } from '../lib/assert.js';

/**
 * Tail batching after RollPacker (2509.21009): short rounds start more prompts and more samples of each than a training
 * step takes, and end with the first that finish. The prompts that did not are deferred. Once a whole step's prompts are,
 * they make a long round of their own, which runs to its end. What a short round has no need of any more is discarded
 * and begins anew in its long round, so every step stays on policy.
 *
 * Each prompt is trained once, in a short round or in a long one: over a cycle, from one empty queue of deferred prompts
 * to the next, the prompts trained are those of the source. With spare samples, which of a prompt's samples are trained
 * depends on which end first, and those tend to be short ones; without, nothing does.
 */

/** What one training step of a job takes. */
export interface StepShape {
  readonly prompts: number;
  /** Of each prompt. */
  readonly samples: number;
}

/** How a job's next rounds of rollouts begin. */
export interface RoundRule {
  /** What a short round starts: at least what a step takes. */
  readonly prompts: number;
  readonly samples: number;
  /** The next round is a long one, provided that a whole step's prompts are deferred when it begins. */
  readonly isLongDue: boolean;
}

/** A plain round starts what its step takes. */
export type RoundKind = 'plain' | 'short' | 'long';

/** What a round starts: prompts that were deferred before, oldest first, and prompts nobody has seen. */
export interface RoundStart {
  readonly kind: RoundKind;
  readonly deferred: number;
  readonly fresh: number;
  readonly samples: number;
}

/** Most that a short round may start, in what a step takes. */
const SPARE_MAX = 4;

/** What is wrong with a rule for steps of this shape, in words; null if nothing is. */
export function roundFlaw({ prompts, samples }: RoundRule, step: StepShape): string | null {
  const fits = (count: number, least: number): boolean =>
    Number.isInteger(count) && count >= least && count <= SPARE_MAX * least;
  if (fits(prompts, step.prompts) && fits(samples, step.samples)) return null;
  return `a round of ${prompts} prompts by ${samples} does not hold a step of ${step.prompts} by ${step.samples}, or is more than ${SPARE_MAX} times that`;
}

/** True for two rules that say the same; null is the rule of plain rounds. */
export function isSameRule(a: RoundRule | null, b: RoundRule | null): boolean {
  if (a === null || b === null) return a === b;
  return a.prompts === b.prompts && a.samples === b.samples && a.isLongDue === b.isLongDue;
}

/**
 * What the next round starts.
 *
 * @param deferred prompts that wait for a long round. Without a rule nobody calls one any more: they come first.
 */
export function nextRound(rule: RoundRule | null, step: StepShape, deferred: number): RoundStart {
  if (rule === null) {
    const old = Math.min(deferred, step.prompts);
    return { kind: 'plain', deferred: old, fresh: step.prompts - old, samples: step.samples };
  }
  if (rule.isLongDue && deferred >= step.prompts)
    return { kind: 'long', deferred: step.prompts, fresh: 0, samples: step.samples };
  return { kind: 'short', deferred: 0, fresh: rule.prompts, samples: rule.samples };
}

interface Started<Prompt, Sample> {
  readonly prompt: Prompt;
  readonly samples: readonly Sample[];
  /** In the order in which they ended; none after the last that is taken. */
  readonly ended: Sample[];
}

/** A prompt of a step, with the samples that are trained. */
export interface Taken<Prompt, Sample> {
  readonly prompt: Prompt;
  readonly samples: readonly Sample[];
}

/**
 * A round under way: says of each sample that ends whose samples are not needed any more, and, once it is decided,
 * which prompts its step takes and which are deferred. Prompts and samples are told apart by identity.
 */
export class Round<Prompt, Sample> {
  readonly #started: readonly Started<Prompt, Sample>[];
  readonly #of = new Map<Sample, Started<Prompt, Sample>>();
  #missing: number;

  /** @param prompts with all their samples: at least what a step takes */
  constructor(
    readonly kind: RoundKind,
    private readonly step: StepShape,
    prompts: readonly Taken<Prompt, Sample>[],
  ) {
    assert(prompts.length >= step.prompts, `a round of ${prompts.length} prompts for ${step.prompts}`);
    this.#missing = step.prompts;
    this.#started = prompts.map(({ prompt, samples }) => ({ prompt, samples, ended: [] }));
    for (const started of this.#started) {
      const { samples } = started;
      assert(samples.length >= step.samples, `${samples.length} samples of a prompt for ${step.samples}`);
      for (const sample of samples) this.#of.set(sample, started);
    }
  }

  /** As many prompts as the step takes have their samples. */
  get isDecided(): boolean {
    return this.#missing === 0;
  }

  /** Those with all the samples they need, as they were started; a prompt's samples too, whichever ended first. */
  get taken(): Taken<Prompt, Sample>[] {
    return this.#started
      .filter((started) => this.#isDone(started))
      .map(({ prompt, samples, ended }) => {
        return { prompt, samples: samples.filter((sample) => ended.includes(sample)) };
      });
  }

  /** Prompts that the step does not take, as they were started; none before it is decided. */
  get deferred(): Prompt[] {
    if (!this.isDecided) return [];
    return this.#started.filter((started) => !this.#isDone(started)).map(({ prompt }) => prompt);
  }

  /**
   * A sample has come to its end. Returns those that nobody needs from now on: the others of its prompt if that is done,
   * and all of every prompt that is not, ended or not, if the round is decided. They must not be told of again.
   */
  ended(sample: Sample): Sample[] {
    const started = this.#of.get(sample);
    assert(started !== undefined && !this.#isDone(started) && !this.isDecided, 'a sample nobody waits for');
    assert(!started.ended.includes(sample), 'a sample ended twice');
    started.ended.push(sample);
    if (!this.#isDone(started)) return [];
    this.#missing--;
    const spare = started.samples.filter((other) => !started.ended.includes(other));
    if (!this.isDecided) return spare;
    const late = this.#started.filter((other) => !this.#isDone(other));
    return [...spare, ...late.flatMap(({ samples }) => samples)];
  }

  #isDone({ ended }: Started<Prompt, Sample>): boolean {
    return ended.length === this.step.samples;
  }
}
