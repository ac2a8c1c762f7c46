// The package's own declarations leave out file extensions, which NodeNext resolution cannot follow. This is the part
// of its interface that Offbeat uses.
declare module '@huggingface/tokenizers' {
  export class Tokenizer {
    /** Parsed tokenizer.json and tokenizer_config.json; throws on anything it does not know. */
    constructor(tokenizer: object, config: object);
    encode(
      text: string,
      options?: { add_special_tokens?: boolean },
    ): { ids: (number | undefined)[]; tokens: string[] };
    decode(
      ids: number[],
      options?: { skip_special_tokens?: boolean; clean_up_tokenization_spaces?: boolean },
    ): string;
    id_to_token(id: number): string | undefined;
    get_vocab(withAddedTokens?: boolean): Map<string, number>;
    get_added_tokens_decoder(): Map<number, { content: string; special: boolean }>;
  }
}
