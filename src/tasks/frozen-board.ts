import { assert, at } from '../lib/assert.js';
import type { Random } from '../lib/prng.js';

export const SIZE = 4;
const CELLS = SIZE * SIZE;

/** A lake: `_` ice, `O` a hole, `G` the goal, row by row from the top left, and where the player starts. */
export type Board = { readonly cells: string; readonly start: number };

export const DIRECTIONS = ['Left', 'Down', 'Right', 'Up'] as const;
export type Direction = (typeof DIRECTIONS)[number];

const STEPS: Readonly<Record<Direction, readonly [number, number]>> = {
  Left: [0, -1],
  Down: [1, 0],
  Right: [0, 1],
  Up: [-1, 0],
};

/** Where a move leads; against the edge it leads nowhere. */
export function neighbour(cell: number, direction: Direction): number {
  const [down, right] = STEPS[direction];
  const row = Math.floor(cell / SIZE) + down;
  const column = (cell % SIZE) + right;
  return row < 0 || row >= SIZE || column < 0 || column >= SIZE ? cell : row * SIZE + column;
}

/** On ice, a third each: the way meant, and the two ways square to it. */
export function slip(direction: Direction, random: Random): Direction {
  const turn = random.int(-1, 1);
  return at(DIRECTIONS, (DIRECTIONS.indexOf(direction) + turn + 4) % 4);
}

/** Moves from each cell to the goal without entering a hole, by breadth-first search; Infinity where there is no way. */
export function movesToGoal(cells: string): number[] {
  const goal = cells.indexOf('G');
  const moves = Array.from(cells, () => Infinity);
  moves[goal] = 0;
  for (const queue = [goal]; queue.length > 0;) {
    const cell = at(queue.splice(0, 1), 0);
    // Moves can be made both ways, so the neighbours of a cell are those it can be reached from.
    for (const direction of DIRECTIONS) {
      const next = neighbour(cell, direction);
      if (cells[next] === 'O' || moves[next] !== Infinity) continue;
      moves[next] = at(moves, cell) + 1;
      queue.push(next);
    }
  }
  return moves;
}

/** With at most half of the cells holes, far more than one board in a hundred can be solved. */
const TRIES_MAX = 10_000;

/**
 * Start and goal anywhere, each other cell a hole with probability `holes` (0 to 0.5), drawn again until the goal can be
 * reached.
 */
export function drawBoard(holes: number, random: Random): Board {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const start = random.int(0, CELLS - 1);
    const goal = (start + random.int(1, CELLS - 1)) % CELLS;
    const cells = Array.from({ length: CELLS }, (_, cell) => {
      const isHole = random.uniform() < holes;
      if (cell === goal) return 'G';
      return isHole && cell !== start ? 'O' : '_';
    }).join('');
    if (movesToGoal(cells)[start] !== Infinity) return { cells, start };
  }
  assert(false, `no board with holes at ${holes} could be solved`);
}

/** The board as the model sees it, a line a row; `P` is the player, `X` one in a hole, `√` one at the goal. */
export function renderBoard(cells: string, player: number): string {
  const marks: Readonly<Record<string, string>> = { _: 'P', O: 'X', G: '√' };
  let text = '';
  for (let cell = 0; cell < CELLS; cell++) {
    const ground = cells.charAt(cell);
    text += cell === player ? (marks[ground] ?? ground) : ground;
    if (cell % SIZE === SIZE - 1) text += '\n';
  }
  return text;
}
