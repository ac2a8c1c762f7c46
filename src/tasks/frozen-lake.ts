import { z } from 'zod';
import { assert, at } from '../lib/assert.js';
import { Random } from '../lib/prng.js';
import { EOS_TEXT } from './char-tokenizer.js';
import {
  type Board,
  type Direction,
  DIRECTIONS,
  drawBoard,
  movesToGoal,
  neighbour,
  renderBoard,
  slip,
} from './frozen-board.js';
import { parseOptions } from './options.js';
import { splitOf } from './split.js';
import { sumOfTurnRewards, type Example, type Json, type MultiTurnEnvironment, type Task } from './task.js';

/**
 * Gymnasium's FrozenLake as ROLL and RAGEN put it to a language model: the board as text, one move a turn as
 * `<answer>Right</answer>`, reward 1 at the goal, the end of the episode in a hole. Boards are 4 by 4, with start and
 * goal anywhere, and can always be solved. A turn of a player who moves takes 44 tokens of a character tokenizer at
 * most: 23 for the move and its end, 20 for the board; `Invalid` in front of the board takes 8 more.
 */
export type LakeState = {
  readonly cells: string;
  readonly player: number;
  /** Turns taken. */
  readonly turn: number;
  /** Turns whose action was no move. */
  readonly invalid: number;
};

const penalty = (): z.ZodDefault<z.ZodNumber> =>
  z.number('must be a number').min(0, 'must be 0 to 1').max(1, 'must be 0 to 1').default(0);

const optionsSchema = z.strictObject({
  /** Chance of each cell to be a hole. */
  holes: z.number('must be a number').min(0, 'must be 0 to 0.5').max(0.5, 'must be 0 to 0.5').default(0.2),
  /** Moves go astray, to either side, each way a third of the time. */
  slippery: z.boolean('must be true or false').default(false),
  /** Turns after which the episode is cut off. */
  turns: z.int('must be a whole number').min(1, 'must be 1 to 100').max(100, 'must be 1 to 100').default(10),
  /** Taken off for every turn. */
  step_penalty: penalty(),
  /** Taken off for a turn whose action is no move. */
  format_penalty: penalty().default(0.01),
  /** The rules in words before the first board, for models that have not learnt them. */
  instructions: z.boolean('must be true or false').default(false),
});
type LakeOptions = z.infer<typeof optionsSchema>;

const INSTRUCTIONS =
  'You (P) stand on a frozen lake. Walk over ice (_) to the goal (G) and keep out of the holes (O). ' +
  'Each turn, make one move: <answer>Left</answer>, <answer>Down</answer>, <answer>Right</answer> or <answer>Up</answer>.\n';
const INVALID = 'Invalid\n';
/** Held-out boards given before that split ends. */
const HELDOUT_MAX = 4096;
/** Boards drawn in a row that were all in training or given before, after which the held-out split ends too. */
const REPEATS_MAX = 4096;

/** Options: `holes`, `slippery`, `turns`, `step_penalty`, `format_penalty`, `instructions`. */
export function createEnvironment(given: Json): MultiTurnEnvironment<Board, LakeState> {
  const options = parseOptions('frozenLake', optionsSchema, given);
  return {
    id: 'frozenLake',
    version: '1',
    alphabet: alphabetOf(options),
    tasks: ({ split, seed }) =>
      split === 'train'
        ? trainTasks(options, new Random(seed).fork('frozenLake/train'))
        : heldoutTasks(options, new Random(seed).fork('frozenLake/heldout')),
    corpus: ({ seed, sloppiness }) => walks(options, new Random(seed).fork('frozenLake/corpus'), sloppiness),
    reset: ({ info: { cells, start } }) => ({
      observation: '',
      state: { cells, player: start, turn: 0, invalid: 0 },
    }),
    step: ({ text }, state, { seed }) => takeTurn(options, text, state, new Random(seed)),
    rewards: {
      return: { fn: sumOfTurnRewards, weight: 1 },
      success: { fn: ({ turns }) => ((turns?.at(-1)?.observation ?? '').includes('√') ? 1 : 0), weight: 0 },
      turns: { fn: ({ turns }) => turns?.length ?? 0, weight: 0 },
    },
  };
}

function takeTurn(options: LakeOptions, text: string, state: LakeState, random: Random) {
  const { cells } = state;
  const meant = parseMove(text);
  const turn = state.turn + 1;
  let { player } = state;
  if (meant !== null) {
    player = neighbour(player, options.slippery ? slip(meant, random.fork(`slip/${turn}`)) : meant);
  }
  const ground = cells[player];
  const terminated = ground !== '_';
  const penalties = options.step_penalty + (meant === null ? options.format_penalty : 0);
  return {
    observation: (meant === null ? INVALID : '') + renderBoard(cells, player),
    state: { cells, player, turn, invalid: state.invalid + (meant === null ? 1 : 0) },
    reward: (ground === 'G' ? 1 : 0) - penalties,
    terminated,
    truncated: !terminated && turn >= options.turns,
  };
}

/** The move in the first `<answer>`, in any case; null when there is none or it is no direction. */
function parseMove(text: string): Direction | null {
  const word = /<answer>(.*?)<\/answer>/s.exec(text)?.[1]?.trim().toLowerCase();
  return DIRECTIONS.find((direction) => direction.toLowerCase() === word) ?? null;
}

function writeMove(direction: Direction): string {
  return `<answer>${direction}</answer>`;
}

function toTask({ instructions }: LakeOptions, board: Board): Task<Board> {
  const lake = renderBoard(board.cells, board.start);
  return { key: lake, prompt: (instructions ? INSTRUCTIONS : '') + lake, info: board };
}

/** Drawn with repetition, from all that is not held out. Never ends. */
function* trainTasks(options: LakeOptions, random: Random): Generator<Task<Board>> {
  for (;;) {
    const task = toTask(options, drawBoard(options.holes, random));
    if (splitOf(task.key) === 'train') yield task;
  }
}

/** Each board once; ends after `HELDOUT_MAX`, or when no new one turns up. */
function* heldoutTasks(options: LakeOptions, random: Random): Generator<Task<Board>> {
  const given = new Set<string>();
  for (let repeats = 0; repeats < REPEATS_MAX && given.size < HELDOUT_MAX;) {
    const task = toTask(options, drawBoard(options.holes, random));
    if (splitOf(task.key) === 'train' || given.has(task.key)) {
      repeats++;
      continue;
    }
    repeats = 0;
    given.add(task.key);
    yield task;
  }
}

/**
 * Endless walks over train boards, an example a turn: shortest ways, each move with probability `sloppiness` any other
 * move instead. What a turn showed stands in the prompt of the next, behind the end of the move that led there.
 */
function* walks(options: LakeOptions, random: Random, sloppiness: number): Generator<Example> {
  assert(sloppiness >= 0 && sloppiness <= 1, `sloppiness ${sloppiness} lies outside 0 to 1`);
  const [choices, slips] = [random.fork('choices'), random.fork('slips')];
  for (const { prompt: opening, info } of trainTasks(options, random.fork('boards'))) {
    const moves = movesToGoal(info.cells);
    let prompt = opening;
    let player = info.start;
    for (let turn = 0; turn < options.turns && info.cells[player] === '_'; turn++) {
      const left = at(moves, player);
      const isGood = (direction: Direction): boolean => at(moves, neighbour(player, direction)) < left;
      const isSlip = choices.uniform() < sloppiness;
      // Where every move is good or none is, there is nothing to choose between.
      const wanted = DIRECTIONS.filter((direction) => isGood(direction) !== isSlip);
      const move = choices.pick(wanted.length > 0 ? wanted : DIRECTIONS);
      yield { prompt, completion: writeMove(move) };
      player = neighbour(player, options.slippery ? slip(move, slips) : move);
      prompt += writeMove(move) + EOS_TEXT + renderBoard(info.cells, player);
    }
  }
}

function alphabetOf({ instructions }: LakeOptions): string {
  const texts = ['_PGOX√\n', INVALID, ...DIRECTIONS.map(writeMove), instructions ? INSTRUCTIONS : ''];
  return [...new Set(texts.join(''))].join('');
}
