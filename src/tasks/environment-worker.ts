import { AsyncLocalStorage } from 'node:async_hooks';
import { Console } from 'node:console';
import { textOf } from './any-error.js';
import type { Call, CallAnswer, CallMessage } from './calls.js';
import { evaluate } from './evaluate.js';
import { loadEnvironment } from './load-environment.js';
import { readReset, readStep } from './step-result.js';
import type { Environment } from './task.js';

// Standard output carries results of the command line; what an environment prints goes to standard error.
globalThis.console = new Console(process.stderr, process.stderr);

interface RunningCall {
  readonly fail: (error: unknown) => void;
}

/** Follows a call into everything it starts, so that an error thrown from a timer finds its rollout. */
const calls = new AsyncLocalStorage<RunningCall>();
let running: RunningCall | undefined;

// Without this, a stray error would end the worker and with it whichever call is being answered by then. An error
// that comes after its own call was answered changes nothing any more.
process.on('uncaughtException', (error) => {
  const call = calls.getStore() ?? running;
  if (call === undefined) throw error;
  call.fail(error);
});

let environment: Promise<Environment> | undefined;

/** Answers one call. An environment's failure is an answer, not an error: this does not reject. */
export async function answerCall(message: CallMessage): Promise<CallAnswer> {
  try {
    environment ??= loadEnvironment(message.environment);
    const loaded = await environment;
    Atomics.store(message.startedNs, 0, process.hrtime.bigint());
    return await new Promise<CallAnswer>((resolve, reject) => {
      running = { fail: reject };
      calls.run(running, () => {
        perform(loaded, message.call).then(resolve, reject);
      });
    });
  } catch (error) {
    return { kind: 'failed', reason: 'threw', message: textOf(error) };
  } finally {
    running = undefined;
  }
}

async function perform(world: Environment, call: Call): Promise<CallAnswer> {
  switch (call.kind) {
    case 'score':
      return { kind: 'score', result: await evaluate(world.rewards, call.episode) };
    case 'reset':
      if (world.reset === undefined) return singleTurn(world);
      return readReset(await world.reset(call.task, call.context));
    case 'step':
      if (world.step === undefined) return singleTurn(world);
      return readStep(await world.step(call.action, call.state, call.context));
    default:
      return call satisfies never;
  }
}

function singleTurn({ id }: Environment): CallAnswer {
  return { kind: 'failed', reason: 'malformed', message: `task "${id}" has no turns: it exports no step` };
}
