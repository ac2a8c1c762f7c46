import { assert } from '../lib/assert.js';
import type { TokenCounts } from '../telemetry/summary.js';

/** Where a rollout's tokens can end up. */
export type Fate = 'trained' | 'aborted' | 'expired' | 'filtered';

/** Counts every decoded token of a run to exactly one end; what has none yet is in flight. */
export class TokenLedger {
  readonly #ends: Record<Fate, number> = { trained: 0, aborted: 0, expired: 0, filtered: 0 };

  settle(fate: Fate, tokens: number): void {
    assert(Number.isInteger(tokens) && tokens >= 0, `${tokens} tokens ${fate}`);
    this.#ends[fate] += tokens;
  }

  get trained(): number {
    return this.#ends.trained;
  }

  /** The account as it stands, for `decoded` tokens heard of so far. */
  counts(decoded: number): TokenCounts {
    const { trained, aborted, expired, filtered } = this.#ends;
    const in_flight = decoded - trained - aborted - expired - filtered;
    assert(in_flight >= 0, `${-in_flight} tokens more were used than decoded`);
    return { decoded, trained, aborted, expired, filtered, in_flight };
  }
}
