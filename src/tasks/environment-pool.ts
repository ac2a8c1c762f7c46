import { setMaxListeners } from 'node:events';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { shortLine } from './any-error.js';
import type { Call, CallAnswer } from './calls.js';
import { RewardPool, type RewardPoolOptions, type RewardPoolStats } from './reward-pool.js';
import { Semaphore } from './semaphore.js';
import type { Action, EnvironmentContext, Json, ResetResult, StepResult, Task } from './task.js';
import { Waits } from './waits.js';
import { assertLimit, type CallFailureReason } from './worker-pool.js';

export interface EnvironmentPoolOptions extends RewardPoolOptions {
  /** Longest time for one `reset`, counted from when a worker begins on it; default 30 s. */
  readonly resetTimeoutMs?: number;
  /** Longest time for one `step`, counted from when a worker begins on it; default 30 s. */
  readonly stepTimeoutMs?: number;
  /** Longest wait an environment may ask for; default ten minutes. */
  readonly waitMsMax?: number;
  /** Resets and steps under way at once, their waits included; later ones wait for their turn. Default 4096. */
  readonly turnsMax?: number;
}

export interface ResetRequest {
  readonly rolloutId: string;
  readonly task: Task;
  readonly context: EnvironmentContext;
}

export interface StepRequest {
  readonly rolloutId: string;
  readonly action: Action;
  readonly state: Json;
  readonly context: EnvironmentContext;
}

/** Those of any call; and `malformed` for what is no observation, `waited too long` for a wait that is not allowed. */
export type EnvironmentFailureReason = CallFailureReason | 'malformed' | 'waited too long';

export interface EnvironmentFailure {
  readonly failed: true;
  readonly phase: 'reset' | 'step';
  readonly reason: EnvironmentFailureReason;
  /** One line for people. */
  readonly message: string;
}

export interface EnvironmentSuccess<R> {
  readonly failed: false;
  readonly result: R;
  /** The environment's own time as it really passed: from when a worker began until the wait was over. */
  readonly environmentMs: number;
  /** The wait's share of it: at least what was asked for. */
  readonly waitedMs: number;
  /** Before that: for room and for a worker. */
  readonly queuedMs: number;
}

export type EnvironmentOutcome<R> = EnvironmentSuccess<R> | EnvironmentFailure;

export interface EnvironmentPoolStats extends RewardPoolStats {
  /** Environments that let time pass; none of them holds a thread. */
  readonly thinking: number;
  /** Answered resets and steps. */
  readonly turns: number;
}

type Opened = Extract<CallAnswer, { kind: 'reset' | 'step' }>;

/**
 * Runs whole environments in the workers that also score: `reset`, `step`, rewards, each under its own limit. A wait
 * that an environment asks for passes in real time on a timer of this thread, so any number of tools may take their
 * time on few workers. Nothing here rejects: a failure is told, with its reason, to the rollout it belongs to.
 */
export class EnvironmentPool extends RewardPool {
  readonly #limits: { readonly reset: number; readonly step: number };
  readonly #waitMsMax: number;
  readonly #places: Semaphore;
  readonly #waits = new Waits();
  #turns = 0;

  constructor(options: EnvironmentPoolOptions) {
    super(options);
    const { resetTimeoutMs = 30_000, stepTimeoutMs = 30_000, waitMsMax = 600_000, turnsMax = 4096 } = options;
    for (const ms of [resetTimeoutMs, stepTimeoutMs, waitMsMax]) assertLimit(ms);
    assert(Number.isInteger(turnsMax) && turnsMax >= 1, `turnsMax is ${turnsMax}`);
    this.#limits = { reset: resetTimeoutMs, step: stepTimeoutMs };
    this.#waitMsMax = waitMsMax;
    this.#places = new Semaphore(turnsMax);
  }

  /** Opens an episode. Never rejects; a signal that fires is answered at once, in the queue, at work and in a wait. */
  async reset(request: ResetRequest, signal?: AbortSignal): Promise<EnvironmentOutcome<ResetResult>> {
    const { rolloutId, task, context } = request;
    return this.#turn(rolloutId, { kind: 'reset', task, context }, signal, (answer) =>
      answer.kind === 'reset' ? answer.result : undefined,
    );
  }

  /** Takes one action. Never rejects; a signal that fires is answered at once, in the queue, at work and in a wait. */
  async step(request: StepRequest, signal?: AbortSignal): Promise<EnvironmentOutcome<StepResult>> {
    const { rolloutId, action, state, context } = request;
    return this.#turn(rolloutId, { kind: 'step', action, state, context }, signal, (answer) =>
      answer.kind === 'step' ? answer.result : undefined,
    );
  }

  override close(): Promise<void> {
    this.#waits.close();
    return super.close();
  }

  override get stats(): EnvironmentPoolStats {
    return { ...super.stats, thinking: this.#waits.count, turns: this.#turns };
  }

  async #turn<R extends ResetResult>(
    rolloutId: string,
    call: Call & { readonly kind: 'reset' | 'step' },
    signal: AbortSignal | undefined,
    pick: (answer: Opened) => R | undefined,
  ): Promise<EnvironmentOutcome<R>> {
    const fail = (reason: EnvironmentFailureReason, message: string): EnvironmentFailure => {
      const line = shortLine(`rollout ${rolloutId}: ${call.kind}: ${message}`);
      return { failed: true, phase: call.kind, reason, message: line };
    };
    // One signal may stand for a whole run, so that as many calls as are under way listen to it.
    if (signal !== undefined) setMaxListeners(0, signal);
    try {
      return await this.#places.use(() => this.#answer(call, signal, pick, fail), signal);
    } catch (error) {
      if (signal?.aborted !== true) throw error;
      return fail('aborted', 'it was given up by its caller');
    }
  }

  async #answer<R extends ResetResult>(
    call: Call & { readonly kind: 'reset' | 'step' },
    signal: AbortSignal | undefined,
    pick: (answer: Opened) => R | undefined,
    fail: (reason: EnvironmentFailureReason, message: string) => EnvironmentFailure,
  ): Promise<EnvironmentOutcome<R>> {
    const requestedMs = nowMs();
    const done = await this.workers.run(call, { limitMs: this.#limits[call.kind], signal });
    if (done.failed) return fail(done.reason, done.message);
    const { answer, beganMs } = done;
    if (answer.kind === 'failed') return fail(answer.reason, answer.message);
    const result = answer.kind === 'score' ? undefined : pick(answer);
    assert(result !== undefined, `a worker answered ${call.kind} with ${answer.kind}`);
    const waitingFromMs = nowMs();
    const { waitMs = 0 } = result;
    if (waitMs > this.#waitMsMax) {
      return fail('waited too long', `it asks for ${waitMs} ms, more than ${this.#waitMsMax} ms`);
    }
    if (waitMs > 0) {
      const end = await this.#waits.wait(waitMs, signal);
      if (end !== 'over') return fail(end, `it ended ${end} within its wait of ${waitMs} ms`);
    }
    this.#turns++;
    const endedMs = nowMs();
    return {
      failed: false,
      result,
      environmentMs: endedMs - beganMs,
      waitedMs: waitMs > 0 ? endedMs - waitingFromMs : 0,
      queuedMs: beganMs - requestedMs,
    };
  }
}
