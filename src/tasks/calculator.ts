import { z } from 'zod';
import { Random } from '../lib/prng.js';
import { createEnvironment as createArithmetic } from './arithmetic.js';
import { drawLatencyMs, latencySchema, type Latency } from './latency.js';
import { parseOptions } from './options.js';
import { sumOfTurnRewards, type Episode, type Json, type MultiTurnEnvironment } from './task.js';

/**
 * Addition with a tool. The prompts and the characters are those of `arithmetic`, so a model that learnt to write
 * columns down plays this too: it writes an expression up to its `=`, which ends its turn; the calculator answers with
 * the result and `;`; a turn that ends without `=` is the final answer. The calculator takes its time, drawn from a
 * lognormal, as tools do; the pool lets it pass in real time.
 *
 *   47+85= | 7+5+0= | 12; | 4+8+1= | 13; | 132
 */
type Problem = { readonly left: number; readonly right: number };

export type CalculatorState = {
  /** Turns taken. */
  readonly turn: number;
  /** Calls the tool could make nothing of. */
  readonly invalid: number;
};

const LATENCY: Latency = { median_ms: 200, sigma: 0.8, max_ms: 5_000 };
const turnsRange = 'must be 1 to 100';

const optionsSchema = z.strictObject({
  /** Digits of each operand, as in `arithmetic`. */
  digits: z.int('must be a whole number').min(1, 'must be 1 to 6').max(6, 'must be 1 to 6').default(2),
  /** Turns after which the episode is cut off, the final answer counted. */
  turns: z.int('must be a whole number').min(1, turnsRange).max(100, turnsRange).default(10),
  /** Taken off for a call the tool can make nothing of. */
  format_penalty: z.number('must be a number').min(0, 'must be 0 to 1').max(1, 'must be 0 to 1').default(0),
  latency: latencySchema(LATENCY),
});

const CALL_END = '=';
/** The calculator's answer to what it cannot work out: no number. */
const NO_RESULT = ';';
/** Terms, and digits a term, that the calculator takes; sums stay far below the safe whole numbers. */
const EXPRESSION = /^\d{1,9}(?:\+\d{1,9}){0,15}=$/;

/** Options: `digits`, `turns`, `format_penalty`, `latency.median_ms`, `latency.sigma`, `latency.max_ms`. */
export function createEnvironment(given: Json): MultiTurnEnvironment<Problem, CalculatorState> {
  const { digits, turns, format_penalty, latency } = parseOptions('calculator', optionsSchema, given);
  const arithmetic = createArithmetic({ digits });
  return {
    id: 'calculator',
    version: '1',
    alphabet: arithmetic.alphabet,
    tasks: (options) => arithmetic.tasks(options),
    // Worked sums in one piece: the model learns to write calls and what they look like when answered.
    corpus: (options) => arithmetic.corpus(options),
    stops: [CALL_END],
    reset: () => ({ observation: '', state: { turn: 0, invalid: 0 } }),
    step({ text }, state, { seed }) {
      const turn = state.turn + 1;
      if (!text.endsWith(CALL_END)) {
        return { observation: '', state: { ...state, turn }, terminated: true, truncated: false };
      }
      const result = calculate(text);
      const invalid = result === null ? 1 : 0;
      return {
        observation: result ?? NO_RESULT,
        state: { turn, invalid: state.invalid + invalid },
        reward: 0 - invalid * format_penalty,
        terminated: false,
        truncated: turn >= turns,
        waitMs: drawLatencyMs(latency, new Random(seed).fork(`latency/${turn}`)),
      };
    },
    rewards: {
      correct: { fn: (episode) => scoreAnswer(episode, digits), weight: 1 },
      penalty: { fn: sumOfTurnRewards, weight: 1 },
      calls: { fn: ({ turns = [] }) => turns.filter(isCall).length, weight: 0 },
    },
  };
}

/** The sum of an expression such as `7+5+0=`, two digits or more, and `;`; null when it is none. */
function calculate(call: string): string | null {
  if (!EXPRESSION.test(call)) return null;
  const sum = call
    .slice(0, -1)
    .split('+')
    .reduce((total, term) => total + Number(term), 0);
  return `${String(sum).padStart(2, '0')};`;
}

/** 1 when the last turn is the sum and nothing else, zeros in front included, and ended by itself. */
function scoreAnswer({ task, text, finishReason }: Episode<Problem>, digits: number): number {
  const answer = String(task.info.left + task.info.right).padStart(digits + 1, '0');
  return finishReason === 'stop' && text === answer ? 1 : 0;
}

function isCall({ action }: { readonly action: { readonly text: string } }): boolean {
  return action.text.endsWith(CALL_END);
}
