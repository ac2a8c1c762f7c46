import { assert } from '../lib/assert.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import { LatencyHistogram } from './latency.js';
import type { SimTokens } from './outcome.js';
import type { SimSequence } from './sequence.js';

/** Samples of waiting that are kept for each stage. */
const SAMPLES_MAX = 10_000;

export type Fate = 'trained' | 'served' | 'filtered' | 'expired' | 'aborted';

/** What one job has done so far. */
export class JobAccount {
  readonly latency = new LatencyHistogram();
  readonly queueWaitMs: Partial<Record<ExclusiveStage, number[]>> = {};
  readonly staleness: number[] = [];
  rollouts = 0;
  decoded = 0;
  tokensRecomputed = 0;
  evictions = 0;
  kvTokensPeak = 0;
  weightBytes = 0;
  weightBytesBroadcast = 0;
  readonly #fates = { trained: 0, served: 0, filtered: 0, expired: 0, aborted: 0 };

  settle(sequence: SimSequence, fate: Fate): void {
    this.#fates[fate] += sequence.tokens;
  }

  waited(stage: ExclusiveStage, ms: number): void {
    const samples = (this.queueWaitMs[stage] ??= []);
    if (samples.length < SAMPLES_MAX) samples.push(ms);
  }

  stale(versions: number): void {
    while (this.staleness.length <= versions) this.staleness.push(0);
    this.staleness[versions] = (this.staleness[versions] ?? 0) + 1;
  }

  /**
   * Where its tokens are.
   *
   * @param live committed tokens of all its sequences without a fate; with their fates they must make up `decoded`,
   * which its engines counted by themselves.
   */
  tokens(live: number): SimTokens {
    const { trained, served, filtered, expired, aborted } = this.#fates;
    const settled = trained + served + filtered + expired + aborted;
    assert(
      this.decoded === settled + live,
      `tokens were lost: ${this.decoded} decoded, ${settled} settled, ${live} in flight`,
    );
    return { decoded: this.decoded, ...this.#fates, inFlight: live };
  }
}
