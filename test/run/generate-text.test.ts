import { describe, expect, test } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { StopText } from '#src/run/generate-text.js';

/** What comes out of pieces, and whether a stop text was found. */
function pass(stops: readonly string[], pieces: readonly string[]): { text: string; stopped: boolean } {
  const stop = new StopText(stops);
  const text = pieces.map((piece) => stop.push(piece)).join('') + stop.end();
  return { text, stopped: stop.stopped };
}

/** The same by definition: of all places a stop text can end, the first; there, the longest one. */
function expected(stops: readonly string[], text: string): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (ending.length === 0) continue;
    const longest = Math.max(...ending.map((stop) => stop.length));
    return { text: text.slice(0, end - longest), stopped: true };
  }
  return { text, stopped: false };
}

describe('StopText', () => {
  test('whatever the pieces, it ends before the stop text that is complete first', () => {
    for (let seed = 1; seed <= 2000; seed++) {
      const random = new Random(seed);
      const letters = (most: number): string =>
        Array.from({ length: random.int(1, most) }, () => random.pick(['a', 'b', 'é'])).join('');
      const stops = Array.from({ length: random.int(0, 3) }, () => letters(4));
      const pieces = Array.from({ length: random.int(0, 8) }, () =>
        random.uniform() < 0.2 ? '' : letters(4),
      );
      const label = `seed ${seed}: stops ${JSON.stringify(stops)}, pieces ${JSON.stringify(pieces)}`;
      expect(pass(stops, pieces), label).toEqual(expected(stops, pieces.join('')));
    }
  });

  test('holds back no more than could still be a stop text', () => {
    const stop = new StopText(['END', 'ENTER']);
    expect(['so', ' E', 'N', 'TE', 'D E', 'N'].map((piece) => stop.push(piece))).toEqual([
      'so',
      ' ',
      '',
      '',
      'ENTED ',
      '',
    ]);
    expect(stop.end()).toBe('EN');
    expect(stop.stopped).toBe(false);
  });

  test('nothing comes out after a stop text', () => {
    const stop = new StopText(['.']);
    expect(stop.push('one. two')).toBe('one');
    expect([stop.push('three'), stop.end()]).toEqual(['', '']);
  });
});
