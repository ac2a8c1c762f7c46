import { describe, expect, it } from 'vitest';
import type { Op, Program } from '#src/gpu/ops.js';
import { ProgramQueue } from '#src/lanes/program-queue.js';

const queueOf = (fallback: () => Program | null = () => null): ProgramQueue =>
  new ProgramQueue('job', 'trainer', 1, fallback);

/** A program of `count` host calls that notes how far it came and how it ended. */
function noted(name: string, count: number, notes: string[]): Program {
  return (function* (): Program {
    try {
      for (let i = 0; i < count; i++) yield { kind: 'submitted', call: () => notes.push(`${name}${i}`) };
    } finally {
      notes.push(`${name} over`);
    }
  })();
}

/** Plays the executor: takes each op and calls what it holds. */
function runAll(program: Program | null): void {
  for (const op of program ?? []) call(op);
}

function call(op: Op): void {
  if (op.kind === 'submitted') op.call();
}

describe('ProgramQueue', () => {
  it('runs programs in order, each resolving when its last op is submitted, then its fallback', async () => {
    const notes: string[] = [];
    const queue = queueOf(() => noted('fallback ', 1, notes));
    const first = queue.run(noted('a', 2, notes)).then(() => notes.push('a resolved'));
    const second = queue.run(noted('b', 1, notes));
    runAll(queue.next());
    await first;
    expect(notes).toEqual(['a0', 'a1', 'a over', 'a resolved']);
    runAll(queue.next());
    await second;
    runAll(queue.next());
    expect(notes.slice(4)).toEqual(['b0', 'b over', 'fallback 0', 'fallback  over']);
  });

  it('when closed, gives up what waits and lets the program half done go on', async () => {
    const notes: string[] = [];
    const queue = queueOf();
    const half = queue.run(noted('a', 2, notes));
    const waiting = queue.run(noted('b', 2, notes));
    const program = queue.next();
    const op = program?.next();
    if (op?.done === false) call(op.value);
    queue.close(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    expect(queue.next()).toBeNull();
    await expect(queue.run(noted('c', 1, notes))).rejects.toThrow('enough');
    runAll(program);
    await half;
    expect(notes).toEqual(['a0', 'a1', 'a over']);
  });

  it.each([0, 1, 2])('when abandoned after %i ops, gives up the current program too', async (ops) => {
    const notes: string[] = [];
    const queue = queueOf();
    const running = queue.run(noted('a', 3, notes));
    const program = queue.next();
    for (let i = 0; i < ops; i++) program?.next();
    queue.abandon(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
    expect(program?.next().done).toBe(true);
    expect(notes).toEqual(ops === 0 ? [] : ['a over']);
  });

  it('tells a program that is given up before it began', async () => {
    const queue = queueOf();
    const program = noted('a', 1, []);
    let returned = 0;
    const end = program.return.bind(program);
    program.return = (value) => {
      returned++;
      return end(value);
    };
    const running = queue.run(program);
    queue.abandon(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
    expect(returned).toBe(1);
  });

  it('contains a program that throws: it closes, and the executor sees a program that ends', async () => {
    const notes: string[] = [];
    const queue = queueOf();
    const program = (function* (): Program {
      yield { kind: 'submitted', call: () => notes.push('begun') };
      throw new Error('a bug');
    })();
    const failing = queue.runContained(program);
    const behind = queue.runContained(noted('b', 1, notes));
    const settled = Promise.allSettled([failing, behind]);
    runAll(queue.next());
    expect(await settled).toEqual([1, 2].map(() => ({ status: 'rejected', reason: new Error('a bug') })));
    expect([queue.hasWork, queue.next()]).toEqual([false, null]);
    const late = noted('late', 1, notes);
    await expect(queue.run(late)).rejects.toThrow('a bug');
    expect(late.next().done, 'one that is refused is given up').toBe(true);
    expect(notes).toEqual(['begun']);
  });
});

describe('the steps of an engine', () => {
  const queue = queueOf(() => noted('step ', 1, []));

  it('are timed by its fallback only: copies of weights and caches are no steps', async () => {
    expect(queue.steps.decodeMs).toBeNull();
    const done = queue.run(noted('copy', 1, []));
    runAll(queue.next());
    queue.ended(10);
    await done;
    expect(queue.steps.decodeMs).toBeNull();
    queue.next();
    queue.ended(3000);
    queue.next();
    queue.ended(2000);
    expect(queue.steps.decodeMs).toBe(2);
  });

  it('are forgotten after a while, and count only where their length is known', () => {
    for (const us of [0, Infinity, NaN]) queue.ended(us);
    expect(queue.steps.decodeMs).toBe(2);
    for (let i = 0; i < 16; i++) queue.ended(5000);
    expect(queue.steps.decodeMs).toBe(5);
  });
});
