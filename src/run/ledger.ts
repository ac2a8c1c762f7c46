import { assert } from '../lib/assert.js';
import type { TokenCounts } from '../telemetry/summary.js';
import type { Fate, Rollout } from './rollouts.js';

/** Counts every decoded token of a run to exactly one end; what has none yet is in flight. */
export class TokenLedger {
  readonly #ends: Record<Fate, number> = { trained: 0, aborted: 0, expired: 0, filtered: 0 };

  /** A rollout's one end: all its tokens are counted there. */
  settle(rollout: Rollout, fate: Fate): void {
    assert(rollout.fate === null, `rollout ${rollout.id} was ${rollout.fate} and is ${fate}`);
    rollout.fate = fate;
    this.#ends[fate] += rollout.generated.tokenIds.length;
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
