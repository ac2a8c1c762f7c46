import type { Gpu } from '../gpu/device.js';
import type { Program } from '../gpu/ops.js';
import { blocksFor, type KvCache } from '../kernels/kv-cache.js';
import { nowMs } from '../lib/clock.js';
import type { KvCounts } from '../telemetry/records.js';
import type { Batcher } from './batcher.js';
import type { KvOnPreempt } from './engine.js';
import type { KvCosts } from './kv-costs.js';
import { KvSpill } from './kv-spill.js';
import { blocksMaxOf, type Candidate, chooseVictims } from './kv-victims.js';
import { Pending } from './pending.js';
import type { Sequence } from './sequence.js';

interface Traveller extends Candidate {
  readonly sequence: Sequence;
}

const NONE: KvCounts = { held: 0, spilled: 0, dropped: 0 };

/**
 * The caches of sequences that leave the device and come back. A spilled cache goes to the host and returns as it was;
 * a dropped one is computed again, by the same kernels and so to the same bits, from tokens that are all known. Either
 * way a sequence returns only when every token drawn for it is on the host: what its slot held is another's by then.
 */
export class KvTravel {
  /** Spills that hold memory, wherever they are on their way. */
  readonly #spills = new Set<KvSpill>();
  /** Those of sequences that are away. */
  readonly #away = new Map<Sequence, KvSpill>();
  readonly #pending: Pending;
  #counts = NONE;

  constructor(
    private readonly gpu: Gpu,
    private readonly kv: KvCache,
    private readonly batcher: Batcher,
    private readonly costs: KvCosts,
    private readonly spillBytesMax: number,
    private readonly onReady: () => void,
  ) {
    this.#pending = new Pending(onReady);
  }

  /** Bytes of host memory in use; `spillBytesMax` at most. */
  get spilledBytes(): number {
    let bytes = 0;
    for (const spill of this.#spills) bytes += spill.bytes;
    return bytes;
  }

  /** Of the leaves since the last call; `held` is that of the last one. */
  takeCounts(): KvCounts {
    const counts = this.#counts;
    this.#counts = NONE;
    return counts;
  }

  /** See `Engine.leave`. */
  leave(kv: KvOnPreempt): Program {
    this.batcher.limitBlocks(blocksMaxOf(kv));
    const { running } = this.batcher;
    const runningBefore = running.length;
    // Dropped again before it is where it was, a sequence whose rows take several steps would never get any further.
    const mayLeave = running.filter(({ isCatchingUp }) => kv.kind !== 'dropped' || !isCatchingUp);
    const candidates = mayLeave.map((sequence) => this.#traveller(sequence));
    const room = this.spillBytesMax - this.spilledBytes;
    const { unburdened, spilled, dropped } = chooseVictims(candidates, kv, room, this.costs);
    const spills = spilled.map(({ sequence, rows }) => {
      const spill = new KvSpill(this.gpu, this.kv, sequence.blocks, rows);
      this.#spills.add(spill);
      this.#away.set(sequence, spill);
      return spill;
    });
    for (const { sequence } of [...unburdened, ...spilled, ...dropped]) this.batcher.sendAway(sequence);
    this.#counts = {
      held: runningBefore - unburdened.length - spilled.length - dropped.length,
      spilled: this.#counts.spilled + spilled.length,
      dropped: this.#counts.dropped + dropped.length,
    };
    return this.#copyOut(spills);
  }

  /** Lets as many return as are ready and fit. The program brings their caches back, if there are any. */
  takeBack(): Program {
    const returned = this.batcher.takeBack((sequence) => this.#isReady(sequence));
    const loads: { spill: KvSpill; blocks: readonly number[] }[] = [];
    for (const sequence of returned) {
      const spill = this.#away.get(sequence);
      sequence.resumeAt(spill?.rows ?? 0);
      if (spill === undefined) continue;
      this.#away.delete(sequence);
      loads.push({ spill, blocks: sequence.blocks });
    }
    return this.#copyBack(loads);
  }

  /** The sequence has come to its end: what it left behind is freed. */
  forget(sequence: Sequence): void {
    const spill = this.#away.get(sequence);
    if (spill === undefined) return;
    this.#away.delete(sequence);
    spill.release();
    this.#prune(spill);
  }

  /** Resolves when no cache is on its way. */
  settled(): Promise<void> {
    return this.#pending.settled();
  }

  /** @throws the reason why a cache did not arrive */
  check(): void {
    this.#pending.check();
  }

  /** True while a cache is on its way. */
  get isBusy(): boolean {
    return this.#pending.count > 0;
  }

  destroy(): void {
    for (const spill of this.#spills) spill.destroy();
    this.#spills.clear();
    this.#away.clear();
  }

  #traveller(sequence: Sequence): Traveller {
    // One whose last row is planned only waits for the host: it never reads its cache again.
    const rows = sequence.rowsLeft > 0 ? sequence.nextPosition : 0;
    const bytes = blocksFor(rows) * this.kv.bytesPerBlock;
    return { sequence, blocks: sequence.blocks.length, rows, bytes };
  }

  #isReady(sequence: Sequence): boolean {
    return sequence.drawsInFlight === 0 && (this.#away.get(sequence)?.isHere ?? true);
  }

  *#copyOut(spills: readonly KvSpill[]): Program {
    if (spills.length === 0) return;
    const beganMs = nowMs();
    for (const spill of spills) yield* spill.copyOut();
    yield { kind: 'submitted', call: () => this.#pending.add(this.#map(spills, beganMs)) };
  }

  async #map(spills: readonly KvSpill[], beganMs: number): Promise<void> {
    await Promise.all(spills.map((spill) => spill.map()));
    this.costs.observeSpill(bytesOf(spills), beganMs, nowMs());
    for (const spill of spills) this.#prune(spill);
    this.onReady();
  }

  *#copyBack(loads: readonly { readonly spill: KvSpill; readonly blocks: readonly number[] }[]): Program {
    if (loads.length === 0) return;
    const beganMs = nowMs();
    for (const { spill, blocks } of loads) yield* spill.copyBack(blocks);
    const spills = loads.map(({ spill }) => spill);
    this.costs.observeRestore(bytesOf(spills), nowMs() - beganMs);
    const free = (): void => {
      for (const spill of spills) {
        spill.destroy();
        this.#prune(spill);
      }
    };
    yield { kind: 'submitted', call: free };
  }

  #prune(spill: KvSpill): void {
    if (spill.isFreed) this.#spills.delete(spill);
  }
}

function bytesOf(spills: readonly KvSpill[]): number {
  return spills.reduce((sum, { bytes }) => sum + bytes, 0);
}
