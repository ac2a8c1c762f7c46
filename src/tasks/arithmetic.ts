import { z } from 'zod';
import { assert } from '../lib/assert.js';
import { childKey, Random, seedKey, threefry2x32, type Key } from '../lib/prng.js';
import { parseOptions } from './options.js';
import { splitOf } from './split.js';
import type { Environment, Episode, Example, Json, Task } from './task.js';

/**
 * Addition with its written working, column by column from the right: `47+85=` is answered by
 * `7+5+0=12;4+8+1=13;132`. Each column is `a+b+carry=sum;`, then comes the answer. Every number has a fixed width
 * (operands `digits`, column sums 2, the answer `digits` + 1, all with leading zeros), so each place in the text
 * always plays the same part: that is what a very small model learns soonest. A completion has 10·digits + 1
 * characters.
 */
type Problem = { readonly left: number; readonly right: number };

/** `corpus` is always there, unlike in environments at large. */
export interface ArithmeticEnvironment extends Environment<Problem> {
  readonly alphabet: string;
  corpus(options: { readonly seed: number; readonly sloppiness: number }): Iterable<Example>;
}

const optionsSchema = z.strictObject({
  /** Digits of each operand. */
  digits: z.int('must be a whole number').min(1, 'must be 1 to 6').max(6, 'must be 1 to 6').default(2),
});

/** Options: `digits` (1 to 6, default 2); operands are uniform in [0, 10^digits − 1]. */
export function createEnvironment(options: Json): ArithmeticEnvironment {
  const { digits } = parseOptions('arithmetic', optionsSchema, options);
  return {
    id: 'arithmetic',
    version: '1',
    alphabet: '0123456789+=;',
    tasks: ({ split, seed }) =>
      split === 'train'
        ? trainTasks(digits, new Random(seed).fork('arithmetic/train'))
        : heldoutTasks(digits, childKey(seedKey(seed), 'arithmetic/heldout')),
    corpus: ({ seed, sloppiness }) =>
      sloppyHomework(digits, new Random(seed).fork('arithmetic/corpus'), sloppiness),
    rewards: {
      correct: { fn: (episode) => scoreAnswer(episode, digits), weight: 1 },
      working: { fn: (episode) => scoreWorking(episode, digits), weight: 0 },
    },
  };
}

/** 1 when the completion ended by itself and what follows its last `;` is the sum, zeros in front included. */
function scoreAnswer({ task, text, finishReason }: Episode<Problem>, digits: number): number {
  const { left, right } = task.info;
  const answer = String(left + right).padStart(digits + 1, '0');
  return finishReason === 'stop' && text.slice(text.lastIndexOf(';') + 1) === answer ? 1 : 0;
}

/** The share of columns that stand in their place exactly as in faultless working. */
function scoreWorking({ task, text }: Episode<Problem>, digits: number): number {
  const written = text.split(';');
  const faultless = writeOut(task.info, digits, (digit) => digit).split(';');
  let right = 0;
  for (let column = 0; column < digits; column++) if (written[column] === faultless[column]) right++;
  return right / digits;
}

/**
 * The completion as a pupil writes it. Every digit of a column's sum and of the answer passes through `write`, and
 * what was written is carried on, so a slip spreads the way it does on paper while the form stays right.
 */
function writeOut({ left, right }: Problem, digits: number, write: (digit: number) => number): string {
  let text = '';
  let carry = 0;
  let answer = '';
  for (let column = 0; column < digits; column++) {
    const a = digitOf(left, column);
    const b = digitOf(right, column);
    const sum = a + b + carry;
    const tens = write(Math.floor(sum / 10));
    const ones = write(sum % 10);
    text += `${a}+${b}+${carry}=${tens}${ones};`;
    answer = `${ones}${answer}`;
    carry = tens;
  }
  for (const digit of `${carry}${answer}`) text += String(write(Number(digit)));
  return text;
}

function digitOf(value: number, column: number): number {
  return Math.floor(value / 10 ** column) % 10;
}

function toTask(problem: Problem, digits: number): Task<Problem> {
  const [left, right] = [problem.left, problem.right].map((operand) => String(operand).padStart(digits, '0'));
  const prompt = `${left}+${right}=`;
  return { key: prompt, prompt, info: problem };
}

/** Uniform draws, with repetition, from all that is not held out. Never ends. */
function* trainTasks(digits: number, random: Random): Generator<Task<Problem>> {
  const operandMax = 10 ** digits - 1;
  for (;;) {
    const task = toTask({ left: random.int(0, operandMax), right: random.int(0, operandMax) }, digits);
    if (splitOf(task.key) === 'train') yield task;
  }
}

/**
 * Every held-out task exactly once, in an order that depends on the key; ends after the last one (2 tasks at one
 * digit, 586 at two). All pairs of operands are walked in a shuffled order and the held-out ones kept, which
 * takes no memory.
 */
function* heldoutTasks(digits: number, key: Key): Generator<Task<Problem>> {
  const range = 10 ** digits;
  for (let index = 0; index < range * range; index++) {
    const task = toTask(shufflePair(index, range, key), digits);
    if (splitOf(task.key) === 'heldout') yield task;
  }
}

/**
 * A keyed permutation of [0, range²), its result read as a pair of operands: a Feistel network of four rounds
 * (Luby and Rackoff, 1988) whose halves are numbers below `range`, added modulo `range` so that no value falls outside.
 */
function shufflePair(index: number, range: number, key: Key): Problem {
  let left = Math.floor(index / range);
  let right = index % range;
  for (let round = 0; round < 4; round++) {
    const [word] = threefry2x32(key, [round, right]);
    [left, right] = [right, (left + word) % range];
  }
  return { left, right };
}

/** Endless examples on train prompts whose written digits are each wrong with probability `sloppiness`. */
function* sloppyHomework(digits: number, random: Random, sloppiness: number): Generator<Example> {
  assert(sloppiness >= 0 && sloppiness <= 1, `sloppiness ${sloppiness} lies outside 0 to 1`);
  const slips = random.fork('slips');
  const write = (digit: number): number =>
    slips.uniform() < sloppiness ? (digit + slips.int(1, 9)) % 10 : digit;
  for (const { prompt, info } of trainTasks(digits, random.fork('prompts'))) {
    yield { prompt, completion: writeOut(info, digits, write) };
  }
}
