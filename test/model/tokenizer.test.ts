import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { Tokenizer } from '#src/model/tokenizer.js';
import {
  STORIES,
  byteLevelTokenizer,
  expectUserError,
  fallbackTokenizer,
  temporaryFolder,
  writeJson,
} from './fixtures.js';

type Json = Record<string, unknown>;

async function loaded(json: unknown): Promise<Tokenizer> {
  const folder = await temporaryFolder();
  await writeJson(folder, 'tokenizer.json', json);
  return Tokenizer.load(folder);
}

function streamed(tokenizer: Tokenizer, ids: readonly number[], after: readonly number[] = []): string[] {
  const stream = tokenizer.createStream(after);
  return [...ids.map((id) => stream.push(id)), stream.end()];
}

const byteId = (byte: number) => 3 + byte;

/** The bytes of GPT-2's alphabet as its vocabulary orders them: the printable ones first. */
function gpt2Alphabet(): { characters: string[]; bytes: number[] } {
  const range = (first: number, last: number) =>
    Array.from({ length: last - first + 1 }, (_, index) => first + index);
  const printable = [...range(0x21, 0x7e), ...range(0xa1, 0xac), ...range(0xae, 0xff)];
  const others = range(0, 255).filter((byte) => !printable.includes(byte));
  return {
    bytes: [...printable, ...others],
    characters: [...printable, ...others.map((_, index) => 256 + index)].map((code) =>
      String.fromCharCode(code),
    ),
  };
}

describe('a tokenizer with byte fallback', () => {
  it('encodes with BOS, merges, fallback bytes; without special tokens on request', async () => {
    const tokenizer = await loaded(fallbackTokenizer());
    const { model } = fallbackTokenizer() as { model: { vocab: Record<string, number> } };
    const id = (token: string) => model.vocab[token];
    expect(tokenizer.vocabSize).toBe(269);
    // '▁ a' is the earliest merge, so it wins over 'a b'.
    expect(tokenizer.encode('ab é')).toEqual([1, id('▁a'), id('b'), id('▁'), id('é')]);
    expect(tokenizer.encode('a~', { specialTokens: false })).toEqual([id('▁a'), byteId(0x7e)]);
    expect(tokenizer.encode('')).toEqual([1]);
  });

  it('gives the text back', async () => {
    const tokenizer = await loaded(fallbackTokenizer());
    for (const text of ['ab a', ' two  spaces', 'né 🙂🙂', '\n\ttabs\u{feff} and 漢字', '</s> ab']) {
      const expected = text.replace('</s>', '');
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(expected);
    }
    expect(tokenizer.decode([])).toBe('');
  });

  it('keeps the space that stands between prompt and completion', async () => {
    const tokenizer = await loaded(fallbackTokenizer());
    const prompt = tokenizer.encode('ab');
    const completion = tokenizer.encode('b', { specialTokens: false });
    expect(tokenizer.decode(completion)).toBe('b');
    expect(tokenizer.decode(completion, prompt)).toBe(' b');
    expect(tokenizer.decode(prompt) + tokenizer.decode(completion, prompt)).toBe('ab b');
    expect(streamed(tokenizer, completion, prompt)).toEqual([' b', '']);
  });

  it('shows a character when its last byte is there, and U+FFFD only for what can never become one', async () => {
    const tokenizer = await loaded(fallbackTokenizer());
    const smile = [0xf0, 0x9f, 0x99, 0x82].map(byteId);
    expect(streamed(tokenizer, smile)).toEqual(['', '', '', '🙂', '']);
    const a = 260;
    expect(streamed(tokenizer, [...smile.slice(0, 2), a])).toEqual(['', '', '\ufffda', '']);
    expect(streamed(tokenizer, smile.slice(0, 3))).toEqual(['', '', '', '\ufffd']);
    expect(streamed(tokenizer, [byteId(0xff), a])).toEqual(['\ufffd', 'a', '']);
    expect(streamed(tokenizer, [byteId(0xef), byteId(0xbb), byteId(0xbf)])).toEqual(['', '', '\ufeff', '']);
  });

  it('strips one leading space once, even when it comes as a byte or after special tokens', async () => {
    const tokenizer = await loaded(fallbackTokenizer());
    const space = 259;
    expect(tokenizer.decode([1, space, space, 260])).toBe(' a');
    expect(tokenizer.decode([byteId(0x20), byteId(0x20)])).toBe(' ');
    expect(tokenizer.decode([2, 1])).toBe('');
    expect(streamed(tokenizer, [1, space, 260, space])).toEqual(['', '', 'a', ' ', '']);
  });

  it('adds nothing for ids that have no token: an embedding may have more rows', async () => {
    const tokenizer = await loaded(fallbackTokenizer());
    expect(streamed(tokenizer, [5000, 260, -1, 269])).toEqual(['', 'a', '', '', '']);
  });

  it('takes replacements literally', async () => {
    const replace = { type: 'Replace', pattern: { String: '▁' }, content: '$&' };
    const tokenizer = await loaded({ ...fallbackTokenizer(), decoder: replace });
    expect(tokenizer.decode([264, 261])).toBe('$&ab');
  });

  it('ends once', async () => {
    const stream = (await loaded(fallbackTokenizer())).createStream();
    stream.end();
    expect(() => stream.push(260)).toThrow('a text stream has ended');
    expect(() => stream.end()).toThrow('a text stream has ended');
  });
});

describe('a byte-level tokenizer', () => {
  const { characters, bytes } = gpt2Alphabet();

  it('reads every byte, added words and special tokens', async () => {
    const tokenizer = await loaded(byteLevelTokenizer(characters));
    const idOf = (byte: number) => bytes.indexOf(byte);
    expect(tokenizer.vocabSize).toBe(258);
    for (const text of ['plain words', '  né 🙂\n', 'the naïve tools here', '\u{feff}漢字\0']) {
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text);
      expect(streamed(tokenizer, ids).join('')).toBe(text);
    }
    expect(tokenizer.encode('é')).toEqual([0xc3, 0xa9].map(idOf));
    expect(tokenizer.encode('naïve tools<|end|>')).toEqual([256, 257]);
    expect(tokenizer.decode([256, 257])).toBe('naïve tools');
    expect(streamed(tokenizer, [idOf(0xc3), idOf(0xa9), idOf(0xc3), 256])).toEqual([
      '',
      'é',
      '',
      '\ufffdnaïve tools',
      '',
    ]);
  });
});

describe('streamed text is the text of all ids, and both are what the library decodes', () => {
  const decoders: [name: string, json: () => Json][] = [
    ['byte fallback', fallbackTokenizer],
    ['byte level', () => byteLevelTokenizer(gpt2Alphabet().characters)],
    ['Metaspace', () => ({ ...fallbackTokenizer(), decoder: { type: 'Metaspace', replacement: '▁' } })],
    ['no decoder', () => ({ ...fallbackTokenizer(), decoder: null })],
    [
      'two replacements and no strip',
      () => ({
        ...fallbackTokenizer(),
        decoder: {
          type: 'Sequence',
          decoders: [
            { type: 'Replace', pattern: { String: '▁' }, content: '|_' },
            { type: 'Replace', pattern: { String: 'b_' }, content: '-' },
            { type: 'Fuse' },
          ],
        },
      }),
    ],
    [
      'a strip of two',
      () => ({
        ...fallbackTokenizer(),
        decoder: {
          type: 'Sequence',
          decoders: [
            { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
            { type: 'Fuse' },
            { type: 'Strip', content: ' ', start: 2, stop: 0 },
          ],
        },
      }),
    ],
  ];

  /** Ids as a sampler might give them: any at all, runs of bytes that are or are not UTF-8, words, specials. */
  function randomIds(random: Random, vocabSize: number): number[] {
    const ids: number[] = [];
    for (let piece = random.int(0, 12); piece > 0; piece--) {
      const kind = random.int(0, 3);
      if (kind === 0) ids.push(random.int(0, vocabSize - 1));
      else if (kind === 1)
        ids.push(...Array.from({ length: random.int(1, 4) }, () => byteId(random.int(0x80, 0xff))));
      else if (kind === 2) {
        const characters = [random.int(1, 0xd7ff), random.int(0xe000, 0xfefe), random.int(0x10000, 0x10ffff)];
        const bytes = [...Buffer.from(String.fromCodePoint(random.pick(characters)))];
        ids.push(...bytes.slice(0, random.int(1, bytes.length)).map(byteId));
      } else ids.push(random.int(Math.max(0, vocabSize - 12), vocabSize - 1));
    }
    return ids;
  }

  function expectSame(tokenizer: Tokenizer, library: Library, seed: number, rounds: number): void {
    const random = new Random(seed);
    for (let round = 0; round < rounds; round++) {
      const ids = randomIds(random, tokenizer.vocabSize);
      const where = `seed ${seed}, round ${round}, ids ${ids.join(' ')}`;
      const text = tokenizer.decode(ids);
      expect(streamed(tokenizer, ids).join(''), where).toBe(text);
      const cut = random.int(0, ids.length);
      const head = tokenizer.createStream();
      const shown = ids.slice(0, cut).map((id) => head.push(id));
      expect(shown.join('') + tokenizer.decode(ids.slice(cut), ids.slice(0, cut)), where).toBe(text);
      if (ids.length === 0) continue;
      const options = { skip_special_tokens: true, clean_up_tokenization_spaces: false };
      expect(text, where).toBe(library.decode(ids, options));
    }
  }

  it.each(decoders)('%s', async (_name, json) => {
    expectSame(await loaded(json()), new Library(json(), {}), 51, 400);
  });

  it.runIf(existsSync(STORIES))('stories260K', async () => {
    const json = JSON.parse(await readFile(join(STORIES, 'tokenizer.json'), 'utf8')) as Json;
    expectSame(await Tokenizer.load(STORIES), new Library(json, {}), 52, 400);
  });
});

describe.runIf(existsSync(STORIES))('stories260K', () => {
  it('encodes a prompt with BOS in front and reads the completion on from it', async () => {
    const tokenizer = await Tokenizer.load(STORIES);
    expect(tokenizer.vocabSize).toBe(512);
    const prompt = tokenizer.encode('Once upon a time');
    expect(prompt).toEqual([1, 403, 407, 261, 378]);
    const whole = tokenizer.encode('Once upon a time, there was a little girl named Lily.');
    expect(whole.slice(0, prompt.length)).toEqual(prompt);
    const completion = whole.slice(prompt.length);
    expect(tokenizer.decode(completion, prompt)).toBe(', there was a little girl named Lily.');
    const afterComma = tokenizer.encode('Once upon a time,');
    expect(tokenizer.decode(whole.slice(afterComma.length), afterComma)).toBe(
      ' there was a little girl named Lily.',
    );
  });
});

describe('tokenizers it refuses, in one line', () => {
  const unsupported = (decoder: Json) =>
    `decoder ${JSON.stringify(decoder)} is not supported: use ByteLevel, Metaspace, or Replace, ByteFallback, Fuse, Strip in this order`;
  const refused = async (json: unknown, message: string) => {
    const folder = await temporaryFolder();
    await writeJson(folder, 'tokenizer.json', json);
    await expectUserError(Tokenizer.load(folder), `${join(folder, 'tokenizer.json')}: ${message}`);
  };

  it('none at all', async () => {
    const folder = await temporaryFolder();
    await expectUserError(
      Tokenizer.load(folder),
      `${join(folder, 'tokenizer.json')}: not found: save the model's fast tokenizer into the folder`,
    );
  });

  it('one that is not JSON', async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'tokenizer.json'), '{"model":');
    const error = await Tokenizer.load(folder).then(String, String);
    expect(error).toMatch(/tokenizer\.json: not valid JSON \(.*\): mend it or download it again$/);
    expect(error).not.toContain('\n');
  });

  it('a tokenizer_config.json that is no object', async () => {
    const folder = await temporaryFolder();
    await writeJson(folder, 'tokenizer.json', fallbackTokenizer());
    await writeJson(folder, 'tokenizer_config.json', [1]);
    const file = join(folder, 'tokenizer_config.json');
    await expectUserError(Tokenizer.load(folder), `${file}: not a JSON object: export the tokenizer again`);
  });

  const again = 'is not what a tokenizer.json has there: export the tokenizer again';
  it.each([
    ['a list', [], `the content ${again}`],
    ['no model', { added_tokens: [] }, `model ${again}`],
    [
      'an id that is a text',
      { model: { type: 'BPE', vocab: { a: '1' }, merges: [] } },
      `model.vocab ${again}`,
    ],
    ['a negative id', { model: { type: 'BPE', vocab: { a: -1 }, merges: [] } }, `model.vocab ${again}`],
    [
      'an id to run out of memory with',
      { model: { type: 'BPE', vocab: { a: 2 ** 40 } } },
      `model.vocab ${again}`,
    ],
    [
      'an added token without id',
      { ...fallbackTokenizer(), added_tokens: [{ content: 'a' }] },
      `added_tokens.0.id ${again}`,
    ],
    [
      'an unknown pre-tokenizer',
      { ...fallbackTokenizer(), pre_tokenizer: { type: 'Magic' } },
      'not supported (Unknown PreTokenizer type: Magic): export the tokenizer again',
    ],
  ])('%s', (_title, json, message) => refused(json, message));

  it.each<[string, Json]>([
    ['of another kind', { type: 'WordPiece', prefix: '##' }],
    ['with a pattern instead of a text', { type: 'Replace', pattern: { Regex: 'a' }, content: '' }],
    ['that strips at the end', { type: 'Strip', content: ' ', start: 0, stop: 1 }],
    ['that strips every token', { type: 'Strip', content: ' ', start: 1, stop: 0 }],
    ['in another order', { type: 'Sequence', decoders: [{ type: 'Fuse' }, { type: 'ByteFallback' }] }],
    ['that mixes two kinds', { type: 'Sequence', decoders: [{ type: 'ByteLevel' }, { type: 'Fuse' }] }],
  ])('a decoder %s', (_title, decoder) => refused({ ...fallbackTokenizer(), decoder }, unsupported(decoder)));

  it('text that has no id', async () => {
    const folder = await temporaryFolder();
    const model = { type: 'WordLevel', vocab: { a: 0 } };
    await writeJson(folder, 'tokenizer.json', { model, pre_tokenizer: { type: 'WhitespaceSplit' } });
    const tokenizer = await Tokenizer.load(folder);
    expect(tokenizer.encode('a a')).toEqual([0, 0]);
    expect(() => tokenizer.encode('a word')).toThrow(
      `${join(folder, 'tokenizer.json')}: has no id for "word": change the text or the tokenizer`,
    );
  });
});
