import { z } from 'zod';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import { shown } from './files.js';

/**
 * From token ids to text, one id at a time.
 *
 * A token stands for bytes, not characters: one character may be spread over several tokens. So each id is turned
 * into its bytes, and a streaming UTF-8 decoder gives back whatever characters they complete. Reading a whole list
 * and reading it id by id then agree by construction. Bytes that can never become a character read as U+FFFD.
 */

/** How a tokenizer's spellings map to text: what its `decoder` section says, in one form. */
export interface Spelling {
  /** Every character of a token is one byte, in GPT-2's alphabet. */
  readonly byteLevel: boolean;
  /** Tokens spelt `<0x41>` are bytes. */
  readonly byteFallback: boolean;
  /** Applied in turn to each token. */
  readonly replacements: readonly (readonly [from: string, to: string])[];
  /** Put before every token. */
  readonly prefix: string;
  /** Up to `count` times this character is dropped from the start of a text. */
  readonly strip: { readonly character: string; readonly count: number };
}

const PLAIN: Spelling = {
  byteLevel: false,
  byteFallback: false,
  replacements: [],
  prefix: '',
  strip: { character: '', count: 0 },
};

const stepSchema = z.discriminatedUnion('type', [
  z.looseObject({ type: z.literal('ByteLevel') }),
  z.looseObject({ type: z.literal('ByteFallback') }),
  z.looseObject({ type: z.literal('Fuse') }),
  z.looseObject({
    type: z.literal('Replace'),
    pattern: z.object({ String: z.string().min(1) }),
    content: z.string(),
  }),
  z.looseObject({
    type: z.literal('Strip'),
    content: z.string().length(1),
    start: z.int().min(0),
    stop: z.literal(0),
  }),
  z.looseObject({
    type: z.literal('Metaspace'),
    replacement: z.string().min(1).default('▁'),
    prepend_scheme: z.enum(['always', 'first', 'never']).default('always'),
  }),
]);
type Step = z.infer<typeof stepSchema>;
const decoderSchema = z.union([
  stepSchema.transform((step) => [step]),
  z
    .looseObject({ type: z.literal('Sequence'), decoders: z.array(stepSchema) })
    .transform(({ decoders }) => decoders),
]);

/** The order in which the steps of a SentencePiece-like decoder must come for reading id by id to be the same. */
const SEQUENCE: readonly Step['type'][] = ['Replace', 'ByteFallback', 'Fuse', 'Strip'];

function sequenceSpelling(steps: readonly Step[]): Spelling | undefined {
  const order = steps.map(({ type }) => SEQUENCE.indexOf(type));
  if (order.some((place, index) => place < (order[index - 1] ?? 0))) return undefined;
  const strips = steps.filter((step) => step.type === 'Strip');
  // Without fusing first, it would strip every token.
  if (strips.length > 1 || (strips.length === 1 && !steps.some(({ type }) => type === 'Fuse')))
    return undefined;
  return {
    ...PLAIN,
    byteFallback: steps.some(({ type }) => type === 'ByteFallback'),
    replacements: steps.flatMap((step) =>
      step.type === 'Replace' ? [[step.pattern.String, step.content]] : [],
    ),
    strip: { character: strips[0]?.content ?? '', count: strips[0]?.start ?? 0 },
  };
}

function spellingOf(steps: readonly Step[]): Spelling | undefined {
  const [first] = steps;
  if (steps.length === 1 && first?.type === 'ByteLevel') return { ...PLAIN, byteLevel: true };
  if (steps.length === 1 && first?.type === 'Metaspace') {
    const strip = { character: ' ', count: first.prepend_scheme === 'never' ? 0 : 1 };
    return { ...PLAIN, replacements: [[first.replacement, ' ']], strip };
  }
  return sequenceSpelling(steps);
}

/**
 * Reads the `decoder` section of the tokenizer.json called `file`. No decoder means words joined by spaces.
 *
 * @throws UserError when it is of a kind that text cannot be read from id by id.
 */
export function parseSpelling(file: string, decoder: unknown): Spelling {
  if (decoder === null || decoder === undefined)
    return { ...PLAIN, prefix: ' ', strip: { character: ' ', count: 1 } };
  const parsed = decoderSchema.safeParse(decoder);
  const spelling = parsed.success ? spellingOf(parsed.data) : undefined;
  if (spelling === undefined) {
    throw new UserError(
      `${file}: decoder ${shown(decoder)} is not supported: use ByteLevel, Metaspace, or Replace, ByteFallback, Fuse, Strip in this order`,
    );
  }
  return spelling;
}

/**
 * GPT-2's alphabet for bytes: a byte that prints as one Latin-1 character is that character, the others are numbered
 * from U+0100 (Radford et al. 2019, `bytes_to_unicode`).
 */
function byteAlphabet(): Map<string, number> {
  const bytes = new Map<string, number>();
  let unprintable = 0;
  for (let byte = 0; byte < 256; byte++) {
    const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    bytes.set(String.fromCharCode(prints ? byte : 256 + unprintable++), byte);
  }
  return bytes;
}

const BYTE_OF = byteAlphabet();
const utf8 = new TextEncoder();

/** The bytes a token adds to a text. `literal` tokens were added beside the vocabulary, in plain characters. */
export function tokenBytes(spelling: Spelling, token: string, literal: boolean): Uint8Array {
  if (spelling.byteLevel) {
    const bytes = Array.from(token, (character) => BYTE_OF.get(character) ?? -1);
    return literal || bytes.includes(-1) ? utf8.encode(token) : Uint8Array.from(bytes);
  }
  const text = spelling.replacements.reduce((spelt, [from, to]) => spelt.replaceAll(from, () => to), token);
  const hex = spelling.byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1] : undefined;
  return hex === undefined ? utf8.encode(spelling.prefix + text) : Uint8Array.of(Number.parseInt(hex, 16));
}

/** Text that arrives token by token. All `push`es and the final `end`, joined, are the text of all ids. */
export class TextStream {
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  readonly #bytesOf: (id: number) => Uint8Array;
  readonly #stripped: string;
  #stripsLeft: number;
  #ended = false;

  constructor(bytesOf: (id: number) => Uint8Array, strip: Spelling['strip']) {
    this.#bytesOf = bytesOf;
    this.#stripped = strip.character;
    this.#stripsLeft = strip.count;
  }

  /** The characters this id completes; none while a character still lacks bytes. */
  push(id: number): string {
    assert(!this.#ended, 'a text stream has ended');
    return this.#strip(this.#utf8.decode(this.#bytesOf(id), { stream: true }));
  }

  /** U+FFFD when the last character never got its bytes, otherwise nothing. */
  end(): string {
    assert(!this.#ended, 'a text stream has ended');
    this.#ended = true;
    return this.#strip(this.#utf8.decode());
  }

  #strip(text: string): string {
    let start = 0;
    while (this.#stripsLeft > 0 && start < text.length) {
      if (text[start] === this.#stripped) {
        start++;
        this.#stripsLeft--;
      } else this.#stripsLeft = 0;
    }
    return text.slice(start);
  }
}
