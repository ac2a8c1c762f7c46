import type { Program } from '../gpu/ops.js';
import { toError } from '../lib/errors.js';
import type { ResidentKind } from '../telemetry/records.js';
import type { Resident } from './resident.js';
import { StepTimes } from './step-times.js';

interface Task {
  readonly program: Program;
  readonly reject: (reason: Error) => void;
}

/** A resident fed by hand: programs queue up and run in order; `fallback` has more when the queue is empty. */
export class ProgramQueue implements Resident {
  /** Of the programs of `fallback`. */
  readonly steps = new StepTimes();
  readonly #waiting: Task[] = [];
  #current: Task | null = null;
  #closed: Error | null = null;

  constructor(
    readonly job: string,
    readonly kind: ResidentKind,
    readonly priority: number,
    private readonly fallback: () => Program | null,
    /** Whether the fallback would have some, without asking for it. */
    private readonly fallbackHasWork: () => boolean = () => false,
    readonly weight = 1,
  ) {}

  get hasWork(): boolean {
    return this.#closed === null && (this.#waiting.length > 0 || this.fallbackHasWork());
  }

  next(): Program | null {
    if (this.#closed !== null) return null;
    this.#current = this.#waiting.shift() ?? null;
    return this.#current?.program ?? this.fallback();
  }

  ended(us: number): void {
    if (this.#current === null) this.steps.add(us);
  }

  /**
   * Resolves when every op of the program is submitted, so that what follows on the device's queue sees its effect. When
   * the program throws, that is the executor's end.
   *
   * @throws the reason given to `close` or `abandon`, when the program will not be run to its end.
   */
  run(program: Program): Promise<void> {
    return this.#queue(program, false);
  }

  /** As `run`; but a program that throws closes this queue and rejects with its error, and others do not notice. */
  runContained(program: Program): Promise<void> {
    return this.#queue(program, true);
  }

  #queue(program: Program, contains: boolean): Promise<void> {
    if (this.#closed !== null) {
      program.return();
      return Promise.reject(this.#closed);
    }
    return new Promise((resolve, reject) => {
      const end = (failure: Error | null): void => {
        if (failure === null) return resolve();
        this.close(failure);
        reject(failure);
      };
      this.#waiting.push({ program: thenCall(program, contains, end), reject });
    });
  }

  /** Takes nothing more and gives up what waits. A program half done goes on to its end. */
  close(reason: Error): void {
    this.#closed ??= reason;
    for (const task of this.#waiting.splice(0)) giveUp(task, reason);
  }

  /** Gives up the program half done too. */
  abandon(reason: Error): void {
    this.close(reason);
    if (this.#current !== null) giveUp(this.#current, reason);
    this.#current = null;
  }
}

function giveUp({ program, reject }: Task, reason: Error): void {
  program.return();
  // Nothing happens when it had already come to its end.
  reject(reason);
}

/**
 * The program with a last op that calls `end`, with the error of a program that threw and is contained: so whoever waits
 * for a slice of it is not left waiting. Returning from it returns from the program, even before it began.
 */
function thenCall(program: Program, contains: boolean, end: (failure: Error | null) => void): Program {
  const whole = (function* (): Program {
    let failure: Error | null = null;
    try {
      yield* program;
    } catch (error) {
      if (!contains) throw error;
      failure = toError(error);
    }
    yield { kind: 'submitted', call: () => end(failure) };
  })();
  const giveUp = whole.return.bind(whole);
  whole.return = (value) => {
    program.return();
    return giveUp(value);
  };
  return whole;
}
