import { blocksFor } from '../kernels/kv-cache.js';
import type { BatchEntry } from './batcher.js';
import { noTokens, Sequence } from './sequence.js';

/** No sequence is ever given this serial: what a warm-up leaves in its slot is nobody's. */
const SERIAL = 0xffffffff;

/**
 * The smallest step there is, at the far end of the longest context: one row that attends to all positions and samples
 * with every filter. Whatever stands in the cache will do; nothing that counts is written.
 */
export function warmUpBatch(contextTokensMax: number): BatchEntry[] {
  const sequence = new Sequence({
    id: -1,
    promptTokenIds: new Array<number>(contextTokensMax).fill(0),
    generated: noTokens(),
    tokensMax: 1,
    sampling: { temperature: 1, topK: 1, topP: 0.9, minP: 0 },
    key: [0, 0],
    stopTokenIds: [],
  });
  sequence.slot = 0;
  sequence.serial = SERIAL;
  // One block stands for all: only its first row is ever written, and whoever is given it writes before reading.
  sequence.blocks = new Array<number>(blocksFor(contextTokensMax)).fill(0);
  return [{ sequence, start: contextTokensMax - 1, count: 1, samples: true }];
}
