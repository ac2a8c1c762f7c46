import type { Program } from '../gpu/ops.js';
import type { ResidentKind } from '../telemetry/records.js';
import type { Resident } from './resident.js';

interface Task {
  readonly program: Program;
  readonly reject: (reason: Error) => void;
}

/** A resident fed by hand: programs queue up and run in order; `fallback` has more when the queue is empty. */
export class ProgramQueue implements Resident {
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
  ) {}

  get hasWork(): boolean {
    return this.#closed === null && (this.#waiting.length > 0 || this.fallbackHasWork());
  }

  next(): Program | null {
    if (this.#closed !== null) return null;
    this.#current = this.#waiting.shift() ?? null;
    return this.#current?.program ?? this.fallback();
  }

  /**
   * Resolves when every op of the program is submitted, so that what follows on the device's queue sees its effect.
   *
   * @throws the reason given to `close` or `abandon`, when the program will not be run to its end.
   */
  run(program: Program): Promise<void> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ program: thenCall(program, resolve), reject });
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

/** The program with a last op that calls `done`. Returning from it returns from the program, even before it began. */
function thenCall(program: Program, done: () => void): Program {
  const whole = (function* (): Program {
    yield* program;
    yield { kind: 'submitted', call: done };
  })();
  const end = whole.return.bind(whole);
  whole.return = (value) => {
    program.return();
    return end(value);
  };
  return whole;
}
