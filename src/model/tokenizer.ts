import { join } from 'node:path';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { z } from 'zod';
import { oneLine, UserError } from '../lib/errors.js';
import { readJson, readJsonIfPresent, shown } from './files.js';
import { TextStream, parseSpelling, tokenBytes, type Spelling } from './token-text.js';

export const TOKENIZER_FILE = 'tokenizer.json';
export const TOKENIZER_CONFIG_FILE = 'tokenizer_config.json';
/** The library keeps tokens in an array indexed by id, so a stray huge id would take all memory. */
const TOKEN_ID_MAX = 2 ** 24;
const NOTHING = new Uint8Array(0);

function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= TOKEN_ID_MAX;
}

/** A map from token to id, or a list whose indexes are the ids. */
function isVocabulary(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Array.isArray(value) || Object.values(value).every(isTokenId);
}

const tokenizerSchema = z.looseObject({
  // Checked in place: a copy would cost time, and lose a token that is spelt `__proto__`.
  model: z.looseObject({ vocab: z.custom<object>(isVocabulary) }),
  added_tokens: z.array(z.looseObject({ id: z.custom<number>(isTokenId), content: z.string() })).nullish(),
});

function parseTokenizer(file: string, json: unknown): z.infer<typeof tokenizerSchema> {
  const parsed = tokenizerSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const key = parsed.error.issues[0]?.path.join('.') ?? '';
  throw new UserError(
    `${file}: ${key === '' ? 'the content' : key} is not what a tokenizer.json has there: export the tokenizer again`,
  );
}

/** Text to token ids and back, as a Hugging Face `tokenizer.json` defines it. */
export class Tokenizer {
  /** Largest id + 1. */
  readonly vocabSize: number;
  readonly #library: Library;
  readonly #spelling: Spelling;
  readonly #added: ReadonlyMap<number, { readonly special: boolean }>;

  private constructor(
    private readonly file: string,
    library: Library,
    spelling: Spelling,
  ) {
    this.#library = library;
    this.#spelling = spelling;
    this.#added = library.get_added_tokens_decoder();
    let largest = -1;
    for (const id of library.get_vocab().values()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
  }

  /**
   * Loads tokenizer.json, and tokenizer_config.json where there is one, from a checkpoint folder.
   *
   * @throws UserError when tokenizer.json is missing, malformed or of a kind that is not supported.
   */
  static async load(folder: string): Promise<Tokenizer> {
    const file = join(folder, TOKENIZER_FILE);
    const json = parseTokenizer(
      file,
      await readJson(file, "save the model's fast tokenizer into the folder"),
    );
    const configFile = join(folder, TOKENIZER_CONFIG_FILE);
    const config = (await readJsonIfPresent(configFile)) ?? {};
    if (typeof config !== 'object' || Array.isArray(config)) {
      throw new UserError(`${configFile}: not a JSON object: export the tokenizer again`);
    }
    const spelling = parseSpelling(file, json.decoder);
    const absent = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
    let library: Library;
    try {
      library = new Library({ ...absent, ...json, added_tokens: json.added_tokens ?? [] }, config);
    } catch (error) {
      throw new UserError(`${file}: not supported (${oneLine(error)}): export the tokenizer again`);
    }
    return new Tokenizer(file, library, spelling);
  }

  /**
   * The ids of a text, with the special tokens the post-processor adds (for Llama: BOS in front) unless
   * `specialTokens` is false.
   *
   * @throws UserError when a part of the text has no id and the tokenizer no token for the unknown.
   */
  encode(text: string, { specialTokens = true }: { readonly specialTokens?: boolean } = {}): number[] {
    const { ids, tokens } = this.#library.encode(text, { add_special_tokens: specialTokens });
    return ids.map((id, index) => {
      if (id !== undefined) return id;
      throw new UserError(
        `${this.file}: has no id for ${shown(tokens[index])}: change the text or the tokenizer`,
      );
    });
  }

  /**
   * The text of ids; special tokens and ids without a token add nothing. With `after`, the text as it goes on behind
   * those ids: for SentencePiece-like tokenizers a leading space that only a whole text would lose stays.
   */
  decode(ids: Iterable<number>, after: Iterable<number> = []): string {
    const stream = this.createStream(after);
    let text = '';
    for (const id of ids) text += stream.push(id);
    return text + stream.end();
  }

  /**
   * A stream whose pushes and end, joined, are `decode(ids, after)`: give the prompt's ids as `after` and the
   * prompt's text followed by the streamed text reads right.
   */
  createStream(after: Iterable<number> = []): TextStream {
    const stream = new TextStream((id) => this.#bytes(id), this.#spelling.strip);
    for (const id of after) stream.push(id);
    return stream;
  }

  #bytes(id: number): Uint8Array {
    const token = this.#library.id_to_token(id);
    const added = this.#added.get(id);
    if (token === undefined || added?.special === true) return NOTHING;
    return tokenBytes(this.#spelling, token, added !== undefined);
  }
}
