import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { createEnvironment, type LakeState } from '#src/tasks/frozen-lake.js';
import { DIRECTIONS, drawBoard, movesToGoal, slip, type Board } from '#src/tasks/frozen-board.js';
import { openEnvironment } from '#src/tasks/registry.js';
import type { Json, StepResult, Task } from '#src/tasks/task.js';
import { playScript, stepElsewhere, take, written, type StepCall } from './turns.js';

const say = (word: string): string => `<answer>${word}</answer>`;

const board: Board = { cells: '__O__O_____O__G_', start: 0 };
const task: Task<Board> = { key: 'b', prompt: 'P_O_\n_O__\n___O\n__G_\n', info: board };

async function step(options: Json, text: string, state: LakeState, seed = 1): Promise<StepResult<LakeState>> {
  return createEnvironment(options).step({ text, finishReason: 'stop' }, state, { seed });
}

const at = (player: number, turn = 0): LakeState => ({ cells: board.cells, player, turn, invalid: 0 });

describe('golden transcripts of frozenLake', () => {
  it('reach the goal', async () => {
    const record = await playScript('frozenLake', { step_penalty: 0.1 }, task, [
      say('Left'),
      say('Down'),
      'I go down: ' + say(' down\n'),
      'Right',
      say('Right'),
      say('RIGHT'),
      say('Down'),
    ]);
    expect(written(task, record)).toBe(
      `P_O_
_O__
___O
__G_
<answer>Left</answer>|P_O_
_O__
___O
__G_
<answer>Down</answer>|__O_
PO__
___O
__G_
I go down: <answer> down
</answer>|__O_
_O__
P__O
__G_
Right|Invalid
__O_
_O__
P__O
__G_
<answer>Right</answer>|__O_
_O__
_P_O
__G_
<answer>RIGHT</answer>|__O_
_O__
__PO
__G_
<answer>Down</answer>|__O_
_O__
___O
__√_
`,
    );
    expect(record.stopCondition).toBe('terminated');
    expect(record.turns.map(({ reward }) => Number(reward.toFixed(3)))).toEqual([
      -0.1, -0.1, -0.1, -0.11, -0.1, -0.1, 0.9,
    ]);
    expect(record.state).toEqual({ cells: board.cells, player: 14, turn: 7, invalid: 1 });
  });

  it('fall into a hole', async () => {
    const record = await playScript('frozenLake', {}, task, [say('Right'), say('Down'), say('Down')]);
    expect(written(task, record)).toBe(
      `P_O_
_O__
___O
__G_
<answer>Right</answer>|_PO_
_O__
___O
__G_
<answer>Down</answer>|__O_
_X__
___O
__G_
`,
    );
    expect(record).toMatchObject({ stopCondition: 'terminated' });
    expect(record.turns.map(({ reward }) => reward)).toEqual([0, 0]);
  });

  it('are cut off after the turns there are', async () => {
    const record = await playScript('frozenLake', { turns: 2 }, task, [say('Down'), say('Up'), say('Up')]);
    expect(record.stopCondition).toBe('truncated');
    expect(record.turns).toHaveLength(2);
  });
});

describe('frozenLake actions', () => {
  it.each<[string, number]>([
    [say('Right'), 1],
    [say('Left') + say('Right'), 0],
    ['<answer>\n UP </answer>', 0],
    [say('East'), 0],
    ['<answer></answer>', 0],
    ['<answer>Down', 0],
    ['', 0],
  ])('%j from the top left lead to cell %i', async (text, cell) => {
    const { state, reward } = await step({ format_penalty: 0.25 }, text, at(0));
    expect(state.player).toBe(cell);
    const isMove = text.includes('Right') || text.includes('UP');
    expect(reward).toBe(isMove ? 0 : -0.25);
    expect(state.invalid).toBe(isMove ? 0 : 1);
  });

  it('that are no move cost the format penalty beside the step penalty, and a turn', async () => {
    const result = await step({ format_penalty: 0.5, step_penalty: 0.25, turns: 4 }, '?', at(0, 3));
    expect(result).toMatchObject({ reward: -0.75, terminated: false, truncated: true });
  });

  it('reach the goal in the last turn all the same', async () => {
    const result = await step({ turns: 4 }, say('Right'), at(13, 3));
    expect(result).toMatchObject({ reward: 1, terminated: true, truncated: false });
  });
});

describe('slippery ice', () => {
  it('takes a third of the moves straight, a third to either side, none back', () => {
    const random = new Random(7);
    for (const direction of DIRECTIONS) {
      const counts = new Map<string, number>();
      for (let i = 0; i < 6_000; i++) {
        const way = slip(direction, random);
        counts.set(way, (counts.get(way) ?? 0) + 1);
      }
      const back = DIRECTIONS[(DIRECTIONS.indexOf(direction) + 2) % 4] ?? '';
      expect(counts.has(back), 'seed 7').toBe(false);
      for (const count of counts.values()) expect(Math.abs(count - 2_000), 'seed 7').toBeLessThan(5 * 36.6);
      expect(counts.size).toBe(3);
    }
  });

  it('is drawn from the sample’s seed and the turn, and from nothing else', async () => {
    const cells = '______________G_';
    const walk = async (seed: number): Promise<number[]> => {
      const places: number[] = [];
      let state: LakeState = { cells, player: 5, turn: 0, invalid: 0 };
      for (let turn = 0; turn < 12 && places.at(-1) !== 14; turn++) {
        ({ state } = await step({ slippery: true, turns: 100 }, say('Up'), state, seed));
        places.push(state.player);
      }
      return places;
    };
    const walks = await Promise.all(Array.from({ length: 20 }, (_, seed) => walk(seed)));
    expect(await walk(3)).toEqual(walks[3]);
    expect(new Set(walks.map(String)).size).toBeGreaterThan(15);
  });
});

/** Whether the goal can be reached, by flooding from the start: another way than the one the boards are made with. */
function isSolvable(prompt: string): boolean {
  const rows = prompt.trimEnd().split('\n');
  const reached = new Set<string>();
  const flood = (row: number, column: number): boolean => {
    const cell = rows[row]?.[column];
    if (cell === undefined || cell === 'O' || reached.has(`${row},${column}`)) return false;
    reached.add(`${row},${column}`);
    if (cell === 'G') return true;
    return (
      flood(row + 1, column) || flood(row - 1, column) || flood(row, column + 1) || flood(row, column - 1)
    );
  };
  const start = rows.findIndex((row) => row.includes('P'));
  return flood(start, rows[start]?.indexOf('P') ?? -1);
}

describe('frozenLake boards', () => {
  it('can be solved, at 500 seeds and every density of holes', async () => {
    for (let seed = 0; seed < 500; seed++) {
      const environment = createEnvironment({ holes: (seed % 6) / 10 });
      const tasks = [...take(environment.tasks({ split: 'train', seed }), 3)];
      tasks.push(...take(environment.tasks({ split: 'heldout', seed }), 1));
      for (const { prompt, info, key } of tasks) {
        expect(isSolvable(prompt), `seed ${seed}: ${prompt}`).toBe(true);
        expect(prompt).toMatch(/^(?:[P_OG]{4}\n){4}$/);
        expect([...prompt].filter((cell) => cell === 'P' || cell === 'G')).toHaveLength(2);
        expect(key).toBe(prompt);
        expect(JSON.parse(JSON.stringify(info))).toEqual(info);
        const opened = await environment.reset({ key, prompt, info }, { seed });
        expect(opened).toEqual({
          observation: '',
          state: { cells: info.cells, player: info.start, turn: 0, invalid: 0 },
        });
      }
    }
  });

  it('that cannot be solved are told apart', () => {
    expect(isSolvable('PO__\nO___\n____\n___G\n')).toBe(false);
    expect(movesToGoal('_O__O__________G')[0]).toBe(Infinity);
    expect(movesToGoal('_______________G')[0]).toBe(6);
    expect(movesToGoal(board.cells)[0]).toBe(5);
  });

  it('have as many holes as asked, less those that block every way', () => {
    const random = new Random(3);
    const boards = Array.from({ length: 2_000 }, () => drawBoard(0.2, random).cells);
    const holes = boards.join('').split('O').length - 1;
    // 14 cells may be holes; boards without a way have more of them than the rest and were drawn again.
    expect(holes / (2_000 * 14), 'seed 3').toBeGreaterThan(0.15);
    expect(holes / (2_000 * 14), 'seed 3').toBeLessThan(0.2);
  });

  it('are split by their looks: none is in both splits, held-out ones come once', () => {
    const environment = createEnvironment({});
    const heldout = take(environment.tasks({ split: 'heldout', seed: 5 }), 10_000).map(({ key }) => key);
    expect(new Set(heldout).size).toBe(heldout.length);
    expect(heldout.length).toBeLessThanOrEqual(4096);
    expect(heldout.length).toBeGreaterThan(1_000);
    const train = new Set(take(environment.tasks({ split: 'train', seed: 6 }), 20_000).map(({ key }) => key));
    expect(heldout.filter((key) => train.has(key))).toEqual([]);
    const again = take(environment.tasks({ split: 'train', seed: 6 }), 20).map(({ key }) => key);
    expect(again).toEqual([...train].slice(0, 20));
  });

  it('end their held-out split when there are no more, where boards are few', () => {
    const boards = [...createEnvironment({ holes: 0 }).tasks({ split: 'heldout', seed: 1 })];
    expect(boards.length).toBeGreaterThan(0);
    expect(boards.length).toBeLessThan(60);
  });
});

it('frozenLake steps come out alike in another process, from JSON', async () => {
  const options = { slippery: true, step_penalty: 0.01 };
  const { environment } = await openEnvironment('frozenLake', options, '.');
  const random = new Random(12);
  const calls: StepCall[] = [];
  const here: unknown[] = [];
  for (const { info } of take(environment.tasks({ split: 'train', seed: 12 }), 60)) {
    const { cells, start } = info as unknown as Board;
    let state: Json = { cells, player: start, turn: 0, invalid: 0 };
    const seed = random.int(0, 2 ** 40);
    for (let turn = 0; turn < 6; turn++) {
      const text = random.uniform() < 0.2 ? 'hm' : say(random.pick(DIRECTIONS));
      calls.push({ text, state, seed });
      const result: StepResult | undefined = await environment.step?.({ text, finishReason: 'stop' }, state, {
        seed,
      });
      if (result === undefined) throw new Error('frozenLake has no step');
      here.push(result);
      state = result.state;
    }
  }
  expect(await stepElsewhere('frozenLake', options, calls)).toEqual(JSON.parse(JSON.stringify(here)));
  expect(JSON.parse(JSON.stringify(here)), 'nothing is lost in JSON').toEqual(here);
});

describe('the frozenLake corpus', () => {
  it('walks the shortest way when it is not sloppy, an example a turn', () => {
    const environment = createEnvironment({});
    let previous = '';
    for (const { prompt, completion } of take(environment.corpus?.({ seed: 4, sloppiness: 0 }) ?? [], 400)) {
      expect(completion).toMatch(/^<answer>(?:Left|Down|Right|Up)<\/answer>$/);
      if (prompt.includes('<eos>')) expect(prompt.startsWith(previous), prompt).toBe(true);
      previous = `${prompt}${completion}<eos>`;
      const now = prompt.slice(-20).replaceAll('\n', '');
      const moves = movesToGoal(now);
      const [here, goal] = [now.indexOf('P'), now.indexOf('G')];
      expect(goal).toBeGreaterThanOrEqual(0);
      const delta = { Left: -1, Right: 1, Up: -4, Down: 4 }[completion.replace(/<.?answer>/g, '')] ?? NaN;
      expect(moves[here + delta]).toBe((moves[here] ?? NaN) - 1);
    }
  });

  it('makes another move as often as asked', () => {
    let sloppy = 0;
    let choices = 0;
    const examples = take(createEnvironment({}).corpus?.({ seed: 8, sloppiness: 0.3 }) ?? [], 6_000);
    for (const { prompt, completion } of examples) {
      const now = prompt.slice(-20).replaceAll('\n', '');
      const moves = movesToGoal(now);
      const here = now.indexOf('P');
      const [row, column] = [Math.floor(here / 4), here % 4];
      const ways = [
        ['Left', row, column - 1],
        ['Down', row + 1, column],
        ['Right', row, column + 1],
        ['Up', row - 1, column],
      ] as const;
      const good = ways.filter(
        ([, r, c]) => r >= 0 && r < 4 && c >= 0 && c < 4 && (moves[4 * r + c] ?? NaN) < (moves[here] ?? NaN),
      );
      choices++;
      if (!good.some(([word]) => completion === say(word))) sloppy++;
    }
    const sigma = Math.sqrt(choices * 0.3 * 0.7);
    expect(Math.abs(sloppy - 0.3 * choices), 'seed 8').toBeLessThan(5 * sigma);
  });

  it.each([false, true])(
    'and all observations stay within the alphabet, instructions %s',
    async (instructions) => {
      const environment = createEnvironment({ instructions, slippery: true });
      const alphabet = new Set(environment.alphabet);
      expect(alphabet.size).toBe([...(environment.alphabet ?? '')].length);
      expect(alphabet.size).toBeLessThan(instructions ? 60 : 36);
      for (const { prompt, completion } of take(
        environment.corpus?.({ seed: 4, sloppiness: 0.5 }) ?? [],
        500,
      )) {
        const text = (prompt + completion).replaceAll('<eos>', '');
        expect([...text].filter((character) => !alphabet.has(character))).toEqual([]);
      }
      for (const player of board.cells.split('').keys()) {
        const { observation } = await step({ slippery: true }, 'no move', at(player));
        expect([...observation].filter((character) => !alphabet.has(character))).toEqual([]);
      }
    },
  );
});
