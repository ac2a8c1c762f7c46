import { describe, expect, it } from 'vitest';
import { allTokens, lossMask, newEpisode, type Observation } from '#src/engine/episode.js';
import { noTokens, Sequence } from '#src/engine/sequence.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';

describe('the tokens of an episode and their loss mask', () => {
  it('follow each other as they came: 1 where one was sampled', () => {
    const observations = [
      { after: 0, tokenIds: [20] },
      { after: 2, tokenIds: [21, 22] },
      { after: 2, tokenIds: [23] },
      { after: 3, tokenIds: [24] },
    ];
    expect(allTokens([1, 2], [10, 11, 12], observations)).toEqual([1, 2, 20, 10, 11, 21, 22, 23, 12, 24]);
    expect([...lossMask(2, 3, observations)]).toEqual([0, 0, 0, 1, 1, 0, 0, 0, 1, 0]);
    expect(allTokens([1], [], [])).toEqual([1]);
    expect([...lossMask(1, 2, [])]).toEqual([0, 1, 1]);
  });

  it('are those written down one by one, whatever the turns', () => {
    for (let seed = 1100; seed < 1150; seed++) {
      const random = new Random(seed);
      const some = (): number[] => Array.from({ length: random.int(0, 5) }, () => random.int(0, 99));
      const prompt = some();
      const sampled: number[] = [];
      const observations: Observation[] = [];
      const written = prompt.map((token) => ({ token, mask: 0 }));
      for (let turn = random.int(1, 6); turn > 0; turn--) {
        const [drawn, observed] = [some(), some()];
        sampled.push(...drawn);
        observations.push({ after: sampled.length, tokenIds: observed });
        written.push(...drawn.map((token) => ({ token, mask: 1 })));
        written.push(...observed.map((token) => ({ token, mask: 0 })));
      }
      const tokens = allTokens(prompt, sampled, observations);
      const mask = lossMask(prompt.length, sampled.length, observations);
      expect(tokens, `seed ${seed}`).toEqual(written.map(({ token }) => token));
      expect([...mask], `seed ${seed}`).toEqual(written.map((each) => each.mask));
    }
  });
});

describe('a sequence of several turns', () => {
  it('keeps what it was evicted with, and is the same when made of it', () => {
    const request = {
      id: 3,
      promptTokenIds: [1, 2, 3],
      generated: noTokens(),
      tokensMax: 2,
      sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
      key: [0, 0],
      stopTokenIds: [],
      episode: newEpisode(),
    } as const;
    const sequence = new Sequence(request);
    const draw = (token: number, version: number): void =>
      sequence.append({ token, logprob: -1, rawLogprob: -2, flags: 0 }, version);
    draw(7, 0);
    expect(sequence.isFull).toBe(false);
    draw(8, 1);
    expect([sequence.isFull, sequence.tokenCount, sequence.tokensInCacheMax]).toEqual([true, 5, 4]);
    expect(() => sequence.beginTurn({ tokenIds: [9], tokensMax: 3 })).toThrow('in the middle of a turn');
    sequence.endTurn('length');
    expect(() => sequence.endTurn('stop')).toThrow('no turn to end');
    const parked = sequence.evicted();
    expect(parked).toMatchObject({ tokensMax: 2, episode: { observations: [], turnEnd: 'length' } });
    sequence.beginTurn({ tokenIds: [9, 9], tokensMax: 3 });
    expect([sequence.isFull, sequence.tokenCount, sequence.tokensInCacheMax]).toEqual([false, 7, 9]);
    draw(5, 1);
    const evicted = sequence.evicted();
    expect(evicted).toEqual({
      id: 3,
      generated: {
        tokenIds: [7, 8, 5],
        logprobs: [-1, -1, -1],
        rawLogprobs: [-2, -2, -2],
        versions: [0, 1, 1],
      },
      tokensMax: 5,
      episode: { observations: [{ after: 2, tokenIds: [9, 9] }], turnEnd: null },
    });
    const again = new Sequence({ ...request, ...evicted });
    expect(again.knownTokens).toEqual([1, 2, 3, 7, 8, 9, 9, 5]);
    expect([again.isFull, again.tokenCount, again.tokensInCacheMax]).toEqual([false, 8, 9]);
    expect(again.evicted()).toEqual(evicted);
    expect(at(again.knownTokens, again.tokenCount - 1)).toBe(5);
  });
});
