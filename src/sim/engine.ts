import { assert } from '../lib/assert.js';
import type { JobId, LaneId } from '../scheduler/state.js';
import { Timer } from './clock.js';
import { stepMs } from './cost-model.js';
import { Heap } from './heap.js';
import { LatencyHistogram } from './latency.js';
import type { Reporting } from './desk.js';
import type { Busy } from './records.js';
import type { SimJobSpec } from './scenario.js';
import type { KvHome, SimSequence } from './sequence.js';
import type { World } from './world.js';

/** Steps are counted in doubles: this much short of a whole one is one. */
const STEP_SLACK = 1e-6;

/** The job an engine works for. */
export interface EngineOwner {
  readonly spec: SimJobSpec;
  readonly latency: LatencyHistogram;
  decoded(tokens: number): void;
  /** So many tokens will have to be read again. */
  cacheLost(tokens: number): void;
  /** A sequence has all tokens of its turn; it has left its slot, its KV is still here. */
  turnEnded(sequence: SimSequence): void;
  /** The number of sequences an engine runs may have changed, and with it the room it has. */
  engineChanged(engine: SimEngine): void;
}

/** The lane an engine is on. */
export interface EngineLane {
  readonly id: LaneId;
  readonly speed: number;
  readonly world: World;
  /** What the engine has to do has changed: gives it its share of the lane's time. */
  share(engine: SimEngine): void;
}

interface PrefillStep {
  readonly endStep: number;
  readonly rows: number;
  readonly parts: readonly { readonly sequence: SimSequence; readonly rows: number }[];
}

/**
 * A job's engine awake on a lane, as a fluid: all sequences that decode advance together, one token a step, at a rate
 * that changes only when a sequence comes or goes, a prompt is read, or the lane's time is shared out anew. So only
 * those moments are computed, never the single token. Prompts are read in ragged batches with the decode rows, first
 * come, first served; the step that reads the last of a prompt samples its first token. That changes nothing for anybody
 * else, so it is no event of its own: it is made up for when something is.
 */
export class SimEngine implements KvHome, Reporting {
  readonly timer = new Timer('world', () => this.#fire());
  /** The engine's own recent p99; only where somebody waits for its tokens. */
  readonly latency: LatencyHistogram | null;
  /** Weights on their way to it: nothing new starts until they are here. */
  pulling = 0;
  isOpen = true;
  readonly told = { running: 0, version: 0, atMs: -Infinity, tokens: 0 };
  #steps = 0;
  /** Steps a ms, and this engine's share of its lane. */
  #rate = 0;
  #share = 0;
  #updatedMs: number;
  readonly #openedMs: number;
  #pausedMs = 0;
  #busySinceMs = 0;
  readonly #decoding = new Heap<SimSequence>();
  /** Of those that decode: sum of the steps they began at. */
  #startSum = 0;
  #tokens = 0;
  readonly #prefilling: SimSequence[] = [];
  #prefill: PrefillStep | null = null;
  /** Sequences come and go all at once: what that changes is worked out at the end. */
  #isFiring = false;
  /** KV kept, no slot. */
  readonly #held: SimSequence[] = [];
  readonly #thinking = new Set<SimSequence>();

  constructor(
    readonly owner: EngineOwner,
    readonly lane: EngineLane,
    private readonly busy: Busy,
    public slots: number,
    private held: number,
  ) {
    this.#openedMs = this.#updatedMs = lane.world.clock.nowMs;
    this.latency = owner.spec.tokenLatencyMs === null ? null : new LatencyHistogram();
    this.told.version = held;
  }

  get jobId(): JobId {
    return this.owner.spec.id;
  }

  /** Of the weights it samples with. */
  get version(): number {
    return this.held;
  }

  /** It has new weights from now on. */
  set version(version: number) {
    this.#advance();
    this.held = version;
  }

  get laneId(): LaneId {
    return this.lane.id;
  }

  get #active(): number {
    return this.#decoding.size + this.#prefilling.length;
  }

  /** Has something to do for its lane. */
  get isActive(): boolean {
    return this.#active > 0;
  }

  /** Sequences it has that could run, with a slot or without. */
  get running(): number {
    return this.#active + this.#held.length;
  }

  /** New sequences it can take now. */
  get room(): number {
    return this.pulling > 0 ? 0 : Math.max(0, this.slots - this.running);
  }

  /** Tokens sampled and not committed to their sequences yet, about. */
  get uncommitted(): number {
    this.#advance();
    return Math.max(0, this.#decoding.size * this.#stepsAt(this.lane.world.clock.nowMs) - this.#startSum);
  }

  /** Tokens it has sampled so far, whole ones. */
  get tokens(): number {
    return Math.floor(this.#tokens + this.uncommitted);
  }

  /** Takes sequences whose KV is here, or that have none. */
  take(sequences: readonly SimSequence[]): void {
    this.#advance();
    for (const sequence of sequences) {
      sequence.engine = this;
      this.#thinking.delete(sequence);
      this.#held.push(sequence);
    }
    this.#update();
  }

  /** Fewer slots: the newest wait where they are, KV kept. */
  resize(slots: number): void {
    this.#advance();
    this.slots = slots;
    const excess = this.#active - slots;
    if (excess > 0) {
      const newest = [...this.#decoding.items, ...this.#prefilling]
        .sort((a, b) => b.id - a.id)
        .slice(0, excess);
      for (const sequence of newest) this.#stop(sequence);
      this.#held.unshift(...newest.reverse());
    }
    this.#update();
  }

  /** Ends: all it runs comes back, oldest first, without its KV; those in their environment lose theirs too. */
  evict(): SimSequence[] {
    this.#advance();
    const running = [...this.#decoding.items, ...this.#prefilling];
    for (const sequence of running) this.#stop(sequence);
    const evicted = [...running, ...this.#held.splice(0)].sort((a, b) => a.id - b.id);
    for (const sequence of [...evicted, ...this.#thinking]) this.owner.cacheLost(sequence.dropCache());
    this.#thinking.clear();
    this.slots = 0;
    this.#update();
    return evicted;
  }

  /** It stops, and its time on the lane is on record. */
  close(): void {
    this.setShare(0);
    const { clock, records } = this.lane.world;
    records.awoke({ lane: this.laneId, job: this.jobId, fromMs: this.#openedMs, toMs: clock.nowMs });
  }

  /** Every whole token sampled so far is committed to its sequence. */
  commit(): void {
    this.#advance();
    for (const sequence of this.#decoding.items) this.#commit(sequence);
  }

  /** What its share of the lane's time comes to now; 0 stops it. */
  setShare(share: number): void {
    const { clock, records } = this.lane.world;
    this.#advance();
    const before = this.#rate;
    this.#share = share;
    this.#setRate();
    if (before === 0 && this.#rate > 0) this.#busySinceMs = clock.nowMs;
    if (before > 0 && this.#rate === 0) {
      records.span(this.lane.id, this.owner.spec.id, 'generation', this.#busySinceMs, clock.nowMs);
    }
    clock.set(this.timer, clock.nowMs + this.#dueMs());
  }

  #setRate(): void {
    if (this.#prefill === null && this.#prefilling.length > 0) this.#prefill = this.#nextPrefill();
    this.#rate = this.isActive ? this.#rateOf(this.#decoding.size, this.#prefill?.rows ?? 0) : 0;
  }

  #rateOf(decodeRows: number, prefillRows: number): number {
    const aloneMs = stepMs(this.lane.world.costs, decodeRows, prefillRows) * this.owner.spec.computeScale;
    return (this.#share * this.lane.speed) / aloneMs;
  }

  /** Until the next end of a turn, or of a batch that does not read all there is to read. */
  #dueMs(): number {
    if (this.#rate === 0) return Infinity;
    const turnEnd = this.#decoding.peek()?.key ?? Infinity;
    const prefill = this.#prefill;
    if (prefill === null || turnEnd <= prefill.endStep)
      return Math.max(0, turnEnd - this.#steps) / this.#rate;
    const readMs = Math.max(0, prefill.endStep - this.#steps) / this.#rate;
    const last = prefill.parts.at(-1);
    if (prefill.parts.length < this.#prefilling.length || last === undefined) return readMs;
    if (last.rows < last.sequence.prefillLeft) return readMs;
    let first = turnEnd;
    for (const { sequence } of prefill.parts)
      first = Math.min(first, prefill.endStep - 1 + sequence.turnLeft);
    const rate = this.#rateOf(this.#decoding.size + prefill.parts.length, 0);
    return readMs + (first - prefill.endStep) / rate;
  }

  #fire(): void {
    this.#advance();
    const ended: SimSequence[] = [];
    for (;;) {
      const next = this.#decoding.peek();
      if (next === undefined || next.key > this.#steps + STEP_SLACK) break;
      this.#stop(next);
      if (next.turnLeft > 0) assert(false, `a turn ended with ${next.turnLeft} tokens to go`);
      this.#thinking.add(next);
      ended.push(next);
    }
    this.#isFiring = true;
    for (const sequence of ended) this.owner.turnEnded(sequence);
    this.#isFiring = false;
    this.#update();
  }

  /** The sequence's episode is over: nothing of it stays here. */
  forget(sequence: SimSequence): void {
    this.#thinking.delete(sequence);
    sequence.engine = null;
  }

  /** Free slots go to those that wait here; then the lane is shared out anew. */
  #update(): void {
    if (this.#isFiring) return;
    while (this.#active < this.slots) {
      const sequence = this.#held.shift();
      if (sequence === undefined) break;
      if (sequence.prefillLeft > 0) this.#prefilling.push(sequence);
      else this.#decode(sequence, this.#steps);
    }
    this.lane.share(this);
    this.owner.engineChanged(this);
  }

  #decode(sequence: SimSequence, startStep: number): void {
    sequence.firstVersion ??= this.version;
    sequence.startStep = startStep;
    sequence.key = startStep + sequence.turnLeft;
    this.#startSum += startStep;
    this.#decoding.push(sequence);
  }

  #nextPrefill(): PrefillStep {
    let rows = 0;
    const rowsMax = Math.max(1, this.lane.world.costs.decode.batchRows - this.#decoding.size);
    const parts: { sequence: SimSequence; rows: number }[] = [];
    for (const sequence of this.#prefilling) {
      const part = Math.min(sequence.prefillLeft, rowsMax - rows);
      if (part <= 0) break;
      parts.push({ sequence, rows: part });
      rows += part;
    }
    return { endStep: this.#steps + 1, rows, parts };
  }

  #endPrefill(prefill: PrefillStep): void {
    this.#prefill = null;
    for (const { sequence, rows } of prefill.parts) {
      sequence.prefillLeft -= rows;
      if (sequence.prefillLeft > 0) continue;
      this.#prefilling.splice(this.#prefilling.indexOf(sequence), 1);
      this.#decode(sequence, this.#steps - 1);
    }
  }

  /** Takes a sequence out of its slot, with all it has sampled. */
  #stop(sequence: SimSequence): void {
    if (sequence.place < 0) {
      this.#prefilling.splice(this.#prefilling.indexOf(sequence), 1);
      // The batch is put together anew, without it.
      this.#prefill = null;
      return;
    }
    this.#commit(sequence);
    this.#decoding.remove(sequence);
    this.#startSum = this.#decoding.size === 0 ? 0 : this.#startSum - sequence.startStep;
  }

  #commit(sequence: SimSequence): void {
    const tokens = Math.min(sequence.turnLeft, Math.floor(this.#steps - sequence.startStep + STEP_SLACK));
    sequence.tokens += tokens;
    sequence.turnTokens += tokens;
    sequence.startStep += tokens;
    this.#startSum += tokens;
    this.#tokens += tokens;
    this.owner.decoded(tokens);
  }

  #stepsAt(nowMs: number): number {
    return this.#steps + this.#rate * (nowMs - this.#updatedMs);
  }

  #advance(): void {
    const { nowMs } = this.lane.world.clock;
    for (let prefill = this.#prefill; prefill !== null && this.#rate > 0; prefill = this.#prefill) {
      if (this.#stepsAt(nowMs) + STEP_SLACK < prefill.endStep) break;
      const readMs = Math.max(0, prefill.endStep - this.#steps) / this.#rate;
      this.#elapse(Math.min(nowMs, this.#updatedMs + readMs));
      this.#endPrefill(prefill);
      this.#setRate();
    }
    this.#elapse(nowMs);
  }

  #elapse(toMs: number): void {
    const ms = toMs - this.#updatedMs;
    if (ms <= 0) return;
    if (this.#rate > 0) {
      this.#timeTokens(this.#rate * ms);
      this.#steps = this.#stepsAt(toMs);
      this.busy.ms += this.#share * ms;
    } else if (this.#decoding.size > 0) {
      this.#pausedMs += ms;
    }
    this.#updatedMs = toMs;
  }

  /** The step that a pause fell into took so much longer. */
  #timeTokens(steps: number): void {
    const rows = this.#decoding.size;
    if (rows === 0) return;
    const ms = 1 / this.#rate;
    const late = this.#pausedMs > 0 ? Math.min(1, steps) : 0;
    const lateMs = ms + this.#pausedMs;
    this.#addLatency(this.owner.latency, ms, lateMs, rows, steps, late);
    if (this.latency !== null) this.#addLatency(this.latency, ms, lateMs, rows, steps, late);
    this.#pausedMs = 0;
  }
  #addLatency(
    histogram: LatencyHistogram,
    ms: number,
    lateMs: number,
    rows: number,
    steps: number,
    late: number,
  ): void {
    if (late > 0) histogram.add(lateMs, rows * late);
    if (steps > late) histogram.add(ms, rows * (steps - late));
  }
}
