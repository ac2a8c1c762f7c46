import { Tokenizer as Library } from '@huggingface/tokenizers';
import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { buildCharTokenizer, CHAR_TOKEN_IDS } from '#src/tasks/char-tokenizer.js';
import { buildTranscript, Transcript, type TextEncoding } from '#src/tasks/transcript.js';

const { bos, eos } = CHAR_TOKEN_IDS;

function encodingOf(alphabet: string): TextEncoding {
  const { tokenizer, tokenizerConfig } = buildCharTokenizer(alphabet);
  const library = new Library({ ...tokenizer }, { ...tokenizerConfig });
  return {
    encode: (text, { specialTokens }) =>
      library.encode(text, { add_special_tokens: specialTokens }).ids.map((id) => id ?? -1),
  };
}

const encoding = encodingOf('0123456789+=;');

describe('a transcript', () => {
  it('joins prompt, completions and observations, and masks all but what was sampled', () => {
    const prompt = encoding.encode('4+8=', { specialTokens: true });
    const call = encoding.encode('4+8+0=', { specialTokens: false });
    const answer = [...encoding.encode('12', { specialTokens: false }), eos];
    const transcript = buildTranscript(
      {
        promptTokenIds: prompt,
        opening: '',
        turns: [
          { completionTokenIds: call, observation: '12;' },
          { completionTokenIds: answer, observation: '' },
        ],
      },
      encoding,
    );
    const observed = encoding.encode('12;', { specialTokens: false });
    expect(transcript.tokenIds).toEqual([...prompt, ...call, ...observed, ...answer]);
    expect(transcript.tokenIds.filter((id) => id === bos)).toHaveLength(1);
    expect(transcript.lossMask.join('')).toBe('00000' + '111111' + '000' + '111');
    expect(transcript.sampledTokens).toBe(9);
    expect(transcript.promptTokens).toBe(5);
  });

  it('keeps sampled ids that no encoding would give', () => {
    const transcript = new Transcript([bos]);
    transcript.addCompletion([bos, 3, eos, eos]);
    expect(transcript.addObservation('1;', encoding)).toEqual([4, 15]);
    expect(transcript.tokenIds).toEqual([bos, bos, 3, eos, eos, 4, 15]);
  });

  it('only grows, whatever is added, and says where something else does not fit', () => {
    const seed = 31;
    const random = new Random(seed);
    const transcript = new Transcript([bos, 7]);
    for (let round = 0; round < 100; round++) {
      const before = [...transcript.tokenIds];
      if (random.uniform() < 0.5) transcript.addCompletion([random.int(0, 15), random.int(0, 15)]);
      else transcript.addObservation('5;'.slice(random.int(0, 2)), encoding);
      transcript.assertExtends(before);
      expect(transcript.lossMask, `seed ${seed}`).toHaveLength(transcript.tokenIds.length);
      const place = random.int(0, before.length - 1);
      const other = before.with(place, (before[place] ?? 0) + 1);
      expect(() => transcript.assertExtends(other), `seed ${seed}`).toThrow(
        `token ${place} of the transcript`,
      );
    }
    expect(() => transcript.assertExtends([...transcript.tokenIds, 1])).toThrow('not append-only');
  });

  it('refuses what is no token id', () => {
    expect(() => new Transcript([]).addCompletion([-1])).toThrow('token id -1');
    expect(() => new Transcript([]).addCompletion([0.5])).toThrow('token id 0.5');
  });
});
