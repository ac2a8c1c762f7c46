import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { describe, expect, it } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import { Tokenizer } from '#src/model/tokenizer.js';
import { createEnvironment } from '#src/tasks/arithmetic.js';
import { buildCharTokenizer, CHAR_TOKEN_IDS } from '#src/tasks/char-tokenizer.js';

const { pad, bos, eos } = CHAR_TOKEN_IDS;

/** Through text and back, as a reader of the files sees it. */
function load(alphabet: string): Library {
  const { tokenizer, tokenizerConfig } = buildCharTokenizer(alphabet);
  const reread = (content: unknown): object => {
    const parsed: unknown = JSON.parse(JSON.stringify(content));
    if (typeof parsed !== 'object' || parsed === null) throw new Error('not an object');
    return parsed;
  };
  return new Library(reread(tokenizer), reread(tokenizerConfig));
}

function encode(library: Library, text: string, specialTokens = true): number[] {
  return library.encode(text, { add_special_tokens: specialTokens }).ids.map((id) => id ?? -1);
}

describe('the character tokenizer', () => {
  const { alphabet } = createEnvironment({});
  const library = load(alphabet);
  const idOf = (character: string): number => 3 + alphabet.indexOf(character);

  it('has the special tokens first and then the alphabet in order', () => {
    const tokens = ['<pad>', '<bos>', '<eos>', ...alphabet];
    expect([pad, bos, eos]).toEqual([0, 1, 2]);
    expect(tokens.map((_, id) => library.id_to_token(id))).toEqual(tokens);
    expect(library.get_vocab().size).toBe(buildCharTokenizer(alphabet).vocabSize);
  });

  it('puts <bos> in front, one token a character', () => {
    const ids = [...'47+85='].map(idOf);
    expect(encode(library, '47+85=')).toEqual([bos, ...ids]);
    expect(encode(library, '47+85=', false)).toEqual(ids);
    expect(encode(library, '')).toEqual([bos]);
  });

  it('decodes without spaces and without special tokens', () => {
    const ids = [bos, ...encode(library, '7+5+0=12;', false), eos, pad];
    expect(library.decode(ids, { skip_special_tokens: true })).toBe('7+5+0=12;');
    expect(library.decode(ids)).toBe('<bos>7+5+0=12;<eos><pad>');
  });

  it('understands special tokens written out in text', () => {
    expect(encode(library, '1<eos>')).toEqual([bos, idOf('1'), eos]);
  });

  it.each([alphabet, ' ab\n\r\t"\\\'.,!?^-]', 'äß→😀é中\u2028'])(
    'gives every text over %j back',
    (letters) => {
      const own = load(letters);
      const seed = 17;
      const random = new Random(seed);
      const characters = Array.from(letters);
      for (let round = 0; round < 200; round++) {
        const text = Array.from({ length: random.int(1, 400) }, () => random.pick(characters)).join('');
        const ids = encode(own, text);
        expect(ids.length, `seed ${seed}, round ${round}`).toBe(Array.from(text).length + 1);
        expect(own.decode(ids, { skip_special_tokens: true }), `seed ${seed}, round ${round}`).toBe(text);
      }
    },
  );

  it('serves as the tokenizer of a checkpoint folder, where an unknown character is an error', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'offbeat-tokenizer-'));
    try {
      const files = buildCharTokenizer(alphabet);
      await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(files.tokenizer));
      await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify(files.tokenizerConfig));
      const tokenizer = await Tokenizer.load(folder);
      expect(tokenizer.vocabSize).toBe(files.vocabSize);
      expect(tokenizer.decode([...tokenizer.encode('12+34='), eos])).toBe('12+34=');
      expect(() => tokenizer.encode('12 + 34=')).toThrow(UserError);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('refuses an alphabet that is empty or repeats itself', () => {
    expect(() => buildCharTokenizer('')).toThrow(UserError);
    expect(() => buildCharTokenizer('abca')).toThrow(
      'the alphabet holds "a" twice; list each character once',
    );
  });
});
