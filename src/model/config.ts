/** The numbers that define a Llama-family decoder. Lengths in elements. */
export interface ModelConfig {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** Stands alone: it need not be hiddenSize / heads. */
  readonly headDim: number;
  readonly vocabSize: number;
  /** Longest context in tokens. */
  readonly contextTokensMax: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** True when the output head is the token embedding. */
  readonly tieWordEmbeddings: boolean;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
}
