import { UserError } from '../lib/errors.js';
import type { Json } from './task.js';

/** Ids of the special tokens; the alphabet follows in its own order. */
export const CHAR_TOKEN_IDS = { pad: 0, bos: 1, eos: 2 } as const;

const SPECIAL_TOKENS = ['<pad>', '<bos>', '<eos>'] as const;

/** Written into a text, it is encoded as the end-of-sequence token: how a corpus shows where an earlier turn ended. */
export const EOS_TEXT = SPECIAL_TOKENS[CHAR_TOKEN_IDS.eos];

/** The content of a checkpoint's two tokenizer files, ready for `JSON.stringify`. */
export interface CharTokenizer {
  /** tokenizer.json */
  readonly tokenizer: { readonly [key: string]: Json };
  /** tokenizer_config.json */
  readonly tokenizerConfig: { readonly [key: string]: Json };
  /** Special tokens and characters together. */
  readonly vocabSize: number;
}

/**
 * A Hugging Face tokenizer with one token a character; `<bos>` is put in front of every encoded text, and decoding
 * joins the characters with nothing in between. There is no token for the unknown, on purpose: a character outside
 * the alphabet then is an error to its reader and never a token the model was not trained on.
 * Throws a `UserError` when the alphabet is empty or holds a character twice.
 */
export function buildCharTokenizer(alphabet: string): CharTokenizer {
  const characters = Array.from(alphabet);
  const repeated = characters.find((character, index) => characters.indexOf(character) !== index);
  if (characters.length === 0)
    throw new UserError('the task has an empty alphabet; list each character it uses');
  if (repeated !== undefined) {
    throw new UserError(`the alphabet holds ${JSON.stringify(repeated)} twice; list each character once`);
  }
  const vocabulary = [...SPECIAL_TOKENS, ...characters];
  const [pad, bos, eos] = SPECIAL_TOKENS;
  return {
    tokenizer: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: SPECIAL_TOKENS.map((content, id) => specialToken(content, id)),
      normalizer: null,
      pre_tokenizer: {
        type: 'Split',
        pattern: { Regex: '[\\s\\S]' },
        behavior: 'Isolated',
        invert: false,
      },
      post_processor: prependBos(bos),
      decoder: { type: 'Fuse' },
      model: {
        type: 'WordLevel',
        vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
        // The format wants a name here; that it is not in the vocabulary is what makes unknown characters an error.
        unk_token: '<unk>',
      },
    },
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      pad_token: pad,
      bos_token: bos,
      eos_token: eos,
      clean_up_tokenization_spaces: false,
    },
    vocabSize: vocabulary.length,
  };
}

function specialToken(content: string, id: number): Json {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

function prependBos(bos: string): Json {
  const first = { SpecialToken: { id: bos, type_id: 0 } };
  const text = { Sequence: { id: 'A', type_id: 0 } };
  const second = { Sequence: { id: 'B', type_id: 0 } };
  return {
    type: 'TemplateProcessing',
    single: [first, text],
    pair: [first, text, second],
    special_tokens: { [bos]: { id: bos, ids: [CHAR_TOKEN_IDS.bos], tokens: [bos] } },
  };
}
