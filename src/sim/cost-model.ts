import type { Distribution } from './distribution.js';

/** A time that grows with the size of the thing: `ms + amount · msPerUnit`. */
export interface LinearCost {
  readonly ms: number;
  readonly msPerUnit: number;
}

/**
 * What work takes on a lane of speed 1 for a job of compute scale 1, as plain data. Compute (decode, train, score) is
 * multiplied by the job's scale and divided by the lane's speed; bytes take the same time everywhere.
 */
export interface CostModel {
  readonly name: string;
  /** Where the numbers are from, in one line. */
  readonly source: string;
  /** Weights of the model it was taken from; 0 where nobody knows. */
  readonly modelBytes: number;
  readonly decode: {
    /** Of every step, however few its rows. */
    readonly stepMs: number;
    /** On top for each sequence that gets a token in it, and for each prompt token that it reads. */
    readonly rowMs: number;
    readonly prefillRowMs: number;
    /** Rows of one ragged batch: the decode rows, the rest prefill. */
    readonly batchRows: number;
  };
  /** Longest slice by which engines share a lane of speed 1; left out: as fine as can be. */
  readonly sliceMs?: number;
  /** A gradient step, per token of prompts and completions. */
  readonly train: LinearCost;
  /** Log-probabilities or values, per token. */
  readonly score: LinearCost;
  /** The trainer's way to its lane, per byte of weights. */
  readonly init: LinearCost;
  /** Making an engine, with the weights at hand; per byte of weights. */
  readonly wake: LinearCost;
  readonly sleep: LinearCost;
  /** Weights from the store to a lane, per byte. */
  readonly pull: LinearCost;
  /** New weights from the trainer to the store, per byte. */
  readonly publish: LinearCost;
  /** From the grant of a stage until generation has let go of the device. */
  readonly yieldMs: Distribution;
  /** From the end of a stage until generation goes on. */
  readonly resumeMs: number;
}

export function linear(cost: LinearCost, amount: number): number {
  return cost.ms + cost.msPerUnit * amount;
}

/** One step of an engine alone on its lane, in ms. */
export function stepMs(costs: CostModel, decodeRows: number, prefillRows: number): number {
  const { decode } = costs;
  return decode.stepMs + decode.rowMs * decodeRows + decode.prefillRowMs * prefillRows;
}
