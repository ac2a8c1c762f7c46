import { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { createProgress, type Progress, type StepProgress } from '#src/telemetry/progress.js';
import { screenOf } from './screen.js';

function fakeStream(
  isTTY: boolean,
  columns: number,
): { readonly stream: NodeJS.WriteStream; readonly text: () => string } {
  let text = '';
  const stream = new Writable({
    decodeStrings: false,
    write(chunk: string, _encoding, done) {
      text += chunk;
      done();
    },
  });
  // A double for a terminal: the parts of it that progress may use.
  const double = Object.assign(stream, { isTTY, columns, rows: 40, fd: 2 }) as unknown as NodeJS.WriteStream;
  return { stream: double, text: () => text };
}

const step = (index: number): StepProgress => ({
  step: index,
  steps: 3,
  reward: index / 4,
  tokensPerSecond: 812.4,
  loss: -0.0123,
  kl: 0.0021,
  entropy: 1.234,
  timeToYieldMs: index === 1 ? null : 2.125,
  version: index,
});

async function show(progress: Progress, outcome?: 'done' | 'failed'): Promise<void> {
  progress.note('before anything');
  progress.phase('load model');
  progress.phase('train');
  for (let index = 1; index <= 3; index++) {
    progress.step(step(index));
    if (index === 2) progress.note('lane 1 was replaced:\r\ndevice lost');
    await sleep(5);
  }
  progress.phase('measure held-out');
  await progress.close(outcome);
}

describe('without a terminal', () => {
  test('writes one plain line for each event', async () => {
    const { stream, text } = fakeStream(false, 0);
    await show(createProgress(stream));
    const lines = text().split('\n');
    expect(lines.pop()).toBe('');
    expect(lines.map((line) => line.replace(/after .*/, 'after …'))).toEqual([
      'before anything',
      'load model',
      'load model: done after …',
      'train',
      'step 1/3  reward 0.25  812 tokens/s  loss -0.0123  KL 0.0021  entropy 1.23  yield –  v1',
      'step 2/3  reward 0.50  812 tokens/s  loss -0.0123  KL 0.0021  entropy 1.23  yield 2.13 ms  v2',
      'lane 1 was replaced: device lost',
      'step 3/3  reward 0.75  812 tokens/s  loss -0.0123  KL 0.0021  entropy 1.23  yield 2.13 ms  v3',
      'train: done after …',
      'measure held-out',
      'measure held-out: done after …',
    ]);
    expect(text()).not.toContain('\r');
    expect(text()).not.toContain('\x1b');
  });

  test('says that the last phase failed', async () => {
    const { stream, text } = fakeStream(false, 0);
    await show(createProgress(stream), 'failed');
    expect(text()).toMatch(/measure held-out: failed after [^\n]+\n$/);
  });

  test('a terminal of unknown width is treated the same', async () => {
    const { stream, text } = fakeStream(true, 0);
    await show(createProgress(stream));
    expect(text()).not.toContain('\r');
    expect(text()).not.toContain('\x1b');
  });
});

describe('on a terminal', () => {
  test('ends with every phase ticked, the newest step and the notes under theirs', async () => {
    const { stream, text } = fakeStream(true, 120);
    await show(createProgress(stream));
    const screen = screenOf(text()).join('\n');
    expect(screen).toMatch(/^before anything\n✔ load model .*\n✔ train/);
    expect(screen).toContain('✔ measure held-out');
    expect(screen.replaceAll(/\s+/g, ' ')).toContain('step 3/3 reward 0.75 812 tokens/s');
    expect(screen).not.toContain('step 2/3');
    expect(screen).toContain('lane 1 was replaced:');
  });

  test('updates in place while a phase runs', async () => {
    const { stream, text } = fakeStream(true, 120);
    const progress = createProgress(stream);
    progress.phase('train');
    for (let index = 1; index <= 3; index++) {
      progress.step(step(index));
      await sleep(150);
      const seen = screenOf(text()).filter((line) => line.includes('step '));
      expect(seen, `after step ${index}`).toHaveLength(1);
      expect(seen[0]).toContain(`step ${index}/3`);
    }
    await progress.close();
    expect(
      text().endsWith('\x1b[?25h') || text().lastIndexOf('\x1b[?25h') > text().lastIndexOf('\x1b[?25l'),
    ).toBe(true);
  });

  test('marks the last phase as failed, also when it fails at once', async () => {
    for (const pauseMs of [0, 30]) {
      const { stream, text } = fakeStream(true, 120);
      const progress = createProgress(stream);
      progress.phase('load model');
      progress.phase('train');
      if (pauseMs > 0) await sleep(pauseMs);
      await progress.close('failed');
      const screen = screenOf(text()).join('\n');
      expect(screen).toContain('✔ load model');
      expect(screen).toContain('✖ train');
    }
  });
});
