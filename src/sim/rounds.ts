import type { Random } from '../lib/prng.js';
import { nextRound, Round, type RoundRule, type StepShape } from '../scheduler/rounds.js';
import type { SimRounds } from './outcome.js';
import type { SimEvaluation, SimFaults, SimJobSpec } from './scenario.js';
import { EVALUATION } from './evaluation.js';
import { recordedAt, SimSequence } from './sequence.js';

/** Cycles of which is kept how long they took. */
const CYCLES_MAX = 10_000;

/** The round of one step: what it started, and what of that its step waits for. */
export class StepRound {
  readonly #round: Round<number, SimSequence>;
  /** What is taken and has no reward yet; null until it is decided what is taken. */
  #unscored: number | null = null;

  constructor(
    readonly sequences: readonly SimSequence[],
    round: Round<number, SimSequence>,
  ) {
    this.#round = round;
  }

  get kind(): Round<number, SimSequence>['kind'] {
    return this.#round.kind;
  }

  /** All that the step trains have their reward. */
  get isScored(): boolean {
    return this.#unscored === 0;
  }

  /** Those that nobody has given up. */
  get kept(): SimSequence[] {
    return this.sequences.filter(({ status }) => status !== 'aborted');
  }

  /** Prompts put off, once it is decided what is taken. */
  get deferred(): readonly number[] {
    return this.#round.deferred;
  }

  /** A sequence has come to its end: those that nobody needs any more. */
  ended(sequence: SimSequence): SimSequence[] {
    const unneeded = this.#round.ended(sequence);
    if (this.#round.isDecided) {
      const gone = new Set(unneeded);
      this.#unscored = this.sequences.filter(
        (other) => other.status !== 'aborted' && !gone.has(other) && !other.isScored,
      ).length;
    }
    return unneeded;
  }

  scored(sequence: SimSequence): void {
    sequence.isScored = true;
    if (this.#unscored !== null) this.#unscored--;
  }
}

/** What a job's rounds start, prompt by prompt, and which prompts wait for a long one. */
export class Rounds {
  rule: RoundRule | null = null;
  readonly #deferred: number[] = [];
  readonly #step: StepShape;
  #prompts = 0;
  #sequences = 0;
  readonly #counts = { plain: 0, short: 0, long: 0 };
  readonly #cycles: SimRounds['cycles'][number][] = [];
  /** The one under way, and when it began. */
  #cycle = { steps: 0, fromMs: NaN };

  constructor(
    private readonly spec: SimJobSpec,
    private readonly faults: SimFaults,
    private readonly random: Random,
  ) {
    this.#step = { prompts: spec.groupsPerStep, samples: spec.groupSize };
  }

  /** Prompts that wait for a long round. */
  get deferredPrompts(): number {
    return this.#deferred.length;
  }

  /** Null for a job that was never told of rounds. */
  get outcome(): SimRounds | null {
    const { short, long } = this.#counts;
    if (short + long === 0) return null;
    return { short, long, deferredPrompts: this.deferredPrompts, cycles: this.#cycles };
  }

  start(step: number, nowMs: number): StepRound {
    if (Number.isNaN(this.#cycle.fromMs)) this.#cycle.fromMs = nowMs;
    const { kind, deferred, fresh, samples } = nextRound(this.rule, this.#step, this.#deferred.length);
    const prompts = this.#deferred.splice(0, deferred);
    for (let i = 0; i < fresh; i++) prompts.push(this.#prompts++);
    const started = prompts.map((prompt) => ({
      prompt,
      samples: Array.from({ length: samples }, (_, sample) => this.#sequence(step, prompt, sample)),
    }));
    const sequences = started.flatMap((each) => each.samples);
    return new StepRound(sequences, new Round(kind, this.#step, started));
  }

  /** The rollouts of a held-out evaluation. */
  heldout({ prompts, recorded }: SimEvaluation): SimSequence[] {
    return Array.from({ length: prompts }, (_, index) => {
      const id = ++this.#sequences;
      const course = { recorded: recordedAt(recorded, index), isFiltered: false };
      const random = this.random.fork(`held-out ${id}`);
      return new SimSequence(id, EVALUATION, course, this.spec, this.faults, random);
    });
  }

  /** Begun anew, these prompts are the very same work. */
  defer(prompts: readonly number[]): void {
    this.#deferred.push(...prompts);
  }

  /** A step has been trained. A cycle ends with its long round. */
  stepEnded({ kind }: StepRound, nowMs: number): void {
    this.#counts[kind]++;
    this.#cycle.steps++;
    if (kind === 'short') return;
    const { steps, fromMs } = this.#cycle;
    const { deferredPrompts } = this;
    if (kind === 'long' && this.#cycles.length < CYCLES_MAX)
      this.#cycles.push({ steps, ms: nowMs - fromMs, deferredPrompts });
    this.#cycle = { steps: 0, fromMs: nowMs };
  }

  /** Prompt and sample decide its course, so that it is the same in whatever round it runs. */
  #sequence(step: number, prompt: number, sample: number): SimSequence {
    const { groupSize } = this.spec;
    const number = prompt * groupSize + (sample % groupSize) + 1;
    const isSpare = sample >= groupSize;
    const random = this.random.fork(isSpare ? `spare ${prompt} ${sample}` : number);
    const recorded = recordedAt(this.spec.recorded, number - 1);
    const course = { recorded, isFiltered: recorded?.isFiltered ?? this.#isFiltered(prompt) };
    return new SimSequence(++this.#sequences, step, course, this.spec, this.faults, random);
  }

  /** The same for all rollouts of a group. */
  #isFiltered(prompt: number): boolean {
    const { filteredShare } = this.spec;
    return filteredShare > 0 && this.random.fork(`group ${prompt}`).uniform() < filteredShare;
  }
}
