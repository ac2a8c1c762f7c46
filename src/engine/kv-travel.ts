import type { Gpu } from '../gpu/device.js';
import type { Program } from '../gpu/ops.js';
import { blocksFor, type KvCache } from '../kernels/kv-cache.js';
import { nowMs } from '../lib/clock.js';
import type { KvCounts } from '../telemetry/records.js';
import type { Batcher, BatchEntry } from './batcher.js';
import type { DisplacedCounts, KvOnPreempt } from './engine.js';
import type { KvCosts } from './kv-costs.js';
import { KvSpill } from './kv-spill.js';
import { blocksMaxOf, type Candidate, chooseVictims, type Leaving, type Urgency } from './kv-victims.js';
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
 * Caches leave when a stage takes the device, and when a sequence that is next in line lacks the blocks of those that
 * have no slot.
 */
export class KvTravel {
  /** Spills that hold memory, wherever they are on their way. */
  readonly #spills = new Set<KvSpill>();
  /** Those of sequences that are away or parked. */
  readonly #away = new Map<Sequence, KvSpill>();
  readonly #pending: Pending;
  #counts = NONE;
  #displaced: DisplacedCounts = NONE;

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

  /** See `Engine.takeDisplacedCounts`. */
  takeDisplacedCounts(): DisplacedCounts {
    const { spilled, dropped } = this.#displaced;
    this.#displaced = NONE;
    return { spilled, dropped: dropped + this.batcher.takeEvictions() };
  }

  /** See `Engine.leave`. */
  leave(kv: KvOnPreempt): Program {
    this.batcher.limitBlocks(blocksMaxOf(kv));
    const all = this.#travellers();
    // Dropped again before it is where it was, a sequence whose rows take several steps would never get any further.
    const mayLeave = all.filter(
      ({ sequence, urgency }) => kv.kind !== 'dropped' || urgency < 2 || !sequence.isCatchingUp,
    );
    const room = this.spillBytesMax - this.spilledBytes;
    const leaving = chooseVictims(mayLeave, kv, room, this.costs);
    const { unburdened, spilled, dropped } = leaving;
    this.#counts = {
      held: all.length - unburdened.length - spilled.length - dropped.length,
      spilled: this.#counts.spilled + spilled.length,
      dropped: this.#counts.dropped + dropped.length,
    };
    return this.#copyOut(this.#sendAway(leaving));
  }

  /**
   * The next batch. As many return as are ready and fit, before any is admitted; for whom there are too few blocks,
   * those of others that have no slot are taken. The program moves the caches, if there are any, and comes before the
   * batch's own work: first those that leave, for the others go where they were.
   */
  plan(): { readonly entries: readonly BatchEntry[]; readonly caches: Program } {
    const displaced: KvSpill[] = [];
    const makeRoom = (sequence: Sequence, blocks: number): boolean => {
      const spills = this.#displace(sequence, blocks);
      displaced.push(...(spills ?? []));
      return spills !== null;
    };
    const returned = this.batcher.takeBack((sequence) => this.#isReady(sequence), makeRoom);
    const loads: { spill: KvSpill; blocks: readonly number[] }[] = [];
    for (const sequence of returned) {
      sequence.resume();
      const spill = this.#away.get(sequence);
      if (spill === undefined) continue;
      this.#away.delete(sequence);
      loads.push({ spill, blocks: sequence.blocks });
    }
    const entries = this.batcher.plan(makeRoom);
    return { entries, caches: inOrder(this.#copyOut(displaced), this.#copyBack(loads)) };
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

  /** All sequences that have blocks, oldest first. */
  #travellers(): Traveller[] {
    const { running, away, parked } = this.batcher;
    return [
      ...parked.map((each) => this.#traveller(each, 0)),
      ...away.map((each) => this.#traveller(each, 1)),
      ...running.map((each) => this.#traveller(each, 2)),
    ]
      .filter(({ blocks }) => blocks > 0)
      .toSorted((a, b) => a.sequence.arrival - b.sequence.arrival);
  }

  #traveller(sequence: Sequence, urgency: Urgency): Traveller {
    // One whose last row is planned only waits for the host. Unless another turn may come it never reads its cache again.
    const rows = sequence.rowsLeft > 0 || sequence.isEpisode ? sequence.nextPosition : 0;
    const bytes = blocksFor(rows) * this.kv.bytesPerBlock;
    return { sequence, urgency, blocks: sequence.blocks.length, rows, bytes };
  }

  /**
   * Sends caches away so that a sequence can take so many more blocks: of the parked, and then of those behind it in
   * the line, each the cheaper way. Nobody leaves in vain: null when all of them together would not do.
   */
  #displace(newcomer: Sequence, blocks: number): KvSpill[] | null {
    const candidates = this.#travellers().filter(
      ({ sequence, urgency }) => urgency === 0 || (urgency === 1 && sequence.arrival > newcomer.arrival),
    );
    const inUse = candidates.reduce((sum, each) => sum + each.blocks, 0);
    if (inUse < blocks) return null;
    const room = this.spillBytesMax - this.spilledBytes;
    const kv: KvOnPreempt = { kind: 'pressure', blocksMax: inUse - blocks };
    const leaving = chooseVictims(candidates, kv, room, this.costs);
    this.#displaced = {
      spilled: this.#displaced.spilled + leaving.spilled.length,
      dropped: this.#displaced.dropped + leaving.dropped.length,
    };
    return this.#sendAway(leaving);
  }

  /** Takes their blocks. What is spilled is yet to be copied. */
  #sendAway({ unburdened, spilled, dropped }: Leaving<Traveller>): KvSpill[] {
    const spills = spilled.map(({ sequence, rows }) => {
      const spill = new KvSpill(this.gpu, this.kv, sequence.blocks, rows);
      this.#spills.add(spill);
      this.#away.set(sequence, spill);
      return spill;
    });
    for (const { sequence } of [...unburdened, ...dropped]) sequence.loseCache();
    for (const { sequence } of [...unburdened, ...spilled, ...dropped]) this.batcher.sendAway(sequence);
    return spills;
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

function* inOrder(...programs: readonly Program[]): Program {
  for (const program of programs) yield* program;
}

function bytesOf(spills: readonly KvSpill[]): number {
  return spills.reduce((sum, { bytes }) => sum + bytes, 0);
}
