import type { Admission } from '../engine/admission.js';
import { assert } from '../lib/assert.js';
import type { JobId, LaneId } from '../scheduler/state.js';
import { Timer } from './clock.js';
import { stepMs } from './cost-model.js';
import { Heap } from './heap.js';
import { KvGate, STEP_SLACK, type GatedEngine } from './kv-gate.js';
import { LatencyHistogram } from './latency.js';
import type { Reporting } from './desk.js';
import type { Busy } from './records.js';
import { turnTokensMax, type SimJobSpec } from './scenario.js';
import type { KvHome, SimSequence } from './sequence.js';
import type { World } from './world.js';

/** The job an engine works for. */
export interface EngineOwner {
  readonly spec: SimJobSpec;
  readonly latency: LatencyHistogram;
  decoded(tokens: number): void;
  /** So many tokens will have to be read again. */
  cacheLost(tokens: number): void;
  /** A sequence has lost its cache to others of the engine; the engine's cache held so many tokens at most so far. */
  evicted(sequences: number, kvTokensPeak: number): void;
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
 * come, first served; the step that reads the last of a prompt samples its first token.
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
  /** The present step alone on the lane, and how long its slices wait for others' whenever they do. */
  #aloneMs = 0;
  #waitMs = 0;
  #updatedMs: number;
  #pausedMs = 0;
  #busySinceMs = 0;
  readonly #decoding = new Heap<SimSequence>(
    (a, b) => a.finishStep < b.finishStep || (a.finishStep === b.finishStep && a.id < b.id),
  );
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
  /** Null where the cache is not simulated. */
  readonly #gate: KvGate | null;

  constructor(
    readonly owner: EngineOwner,
    readonly lane: EngineLane,
    private readonly busy: Busy,
    public slots: number,
    public version: number,
  ) {
    this.#updatedMs = lane.world.clock.nowMs;
    this.latency = owner.spec.tokenLatencyMs === null ? null : new LatencyHistogram();
    this.told.version = version;
    const { kvTokens } = owner.spec;
    this.#gate =
      kvTokens === undefined ? null : new KvGate(this.#gated(), kvTokens, turnTokensMax(owner.spec));
  }

  get jobId(): JobId {
    return this.owner.spec.id;
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

  get isSampling(): boolean {
    return this.#rate > 0;
  }

  /** New sequences it can take now. */
  get room(): number {
    return this.pulling > 0 ? 0 : Math.max(0, this.slots - this.running);
  }

  /** Tokens sampled and not committed to their sequences yet, about. */
  get uncommitted(): number {
    return Math.max(0, this.#decoding.size * this.#stepsAt(this.lane.world.clock.nowMs) - this.#startSum);
  }

  /** Tokens it has sampled so far, whole ones. */
  get tokens(): number {
    return Math.floor(this.#tokens + this.uncommitted);
  }

  /** Its present step, with what it reads of prompts, if it had the lane for itself. */
  get stepAloneMs(): number {
    return this.#aloneMs;
  }

  /** A decode step of all its sequences with a slot if it had the lane for itself; null when there are none. */
  get decodeStepMs(): number | null {
    return this.#active === 0 ? null : this.#costMs(this.#active, 0);
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
    if (this.#gate !== null) return this.#update();
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
    this.#gate?.clear();
    for (const sequence of [...evicted, ...this.#thinking]) this.owner.cacheLost(sequence.dropCache());
    this.#thinking.clear();
    this.slots = 0;
    this.#update();
    return evicted;
  }

  /** How it admits sequences from now on. Where the cache is not simulated there is always room. */
  admit(admission: Admission | null): void {
    if (this.#gate === null) return;
    this.#advance();
    this.#gate.admission = admission;
    // Their next boundaries are others now.
    const active = [...this.#decoding.items, ...this.#prefilling].sort((a, b) => a.id - b.id);
    for (const sequence of active) this.#stop(sequence);
    this.#held.unshift(...active);
    this.#update();
  }

  /** Every whole token sampled so far is committed to its sequence. */
  commit(): void {
    this.#advance();
    for (const sequence of this.#decoding.items) this.#commit(sequence);
  }

  /** Puts its next step together: what it has to do may have changed. */
  planStep(): void {
    this.#advance();
    if (this.#prefill === null && this.#prefilling.length > 0) this.#prefill = this.#nextPrefill();
    this.#aloneMs = this.#costMs(this.#decoding.size, this.#prefill?.rows ?? 0);
  }

  /** What its share of the lane's time comes to now, its step planned, and the length of a wait in between; 0 stops it. */
  setShare(share: number, waitMs = 0): void {
    const { clock, records, desk } = this.lane.world;
    this.#advance();
    const before = this.#rate;
    this.#share = share;
    this.#waitMs = waitMs;
    this.#rate = this.isActive ? share / this.#aloneMs : 0;
    if (before === 0 && this.#rate > 0) {
      this.#busySinceMs = clock.nowMs;
      desk.watch(this);
    }
    if (before > 0 && this.#rate === 0) {
      records.span(this.lane.id, this.owner.spec.id, 'generation', this.#busySinceMs, clock.nowMs);
    }
    const endStep = Math.min(
      this.#decoding.peek()?.finishStep ?? Infinity,
      this.#prefill?.endStep ?? Infinity,
      this.#steps + (this.#gate?.stepsUntilFull() ?? Infinity),
    );
    const dueMs = this.#rate > 0 ? Math.max(0, endStep - this.#steps) / this.#rate : Infinity;
    clock.set(this.timer, clock.nowMs + dueMs);
  }

  #costMs(decodeRows: number, prefillRows: number): number {
    const ms = stepMs(this.lane.world.costs, decodeRows, prefillRows);
    return (ms * this.owner.spec.computeScale) / this.lane.speed;
  }

  #fire(): void {
    this.#advance();
    this.#gate?.measure();
    const ended: SimSequence[] = [];
    if (this.#prefill !== null && this.#prefill.endStep <= this.#steps + STEP_SLACK)
      this.#endPrefill(this.#prefill);
    for (;;) {
      const next = this.#decoding.peek();
      if (next === undefined || next.finishStep > this.#steps + STEP_SLACK) break;
      this.#stop(next);
      if (next.turnLeft > 0) {
        // It has come to its next segment.
        assert(this.#gate !== null, `a turn ended with ${next.turnLeft} tokens to go`);
        this.#held.unshift(next);
        continue;
      }
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
    this.#gate?.remove(sequence);
    sequence.engine = null;
  }

  /** Free slots go to those that wait here; then the lane is shared out anew. */
  #update(): void {
    if (this.#isFiring) return;
    this.#gate?.regulate();
    while (this.#gate === null && this.#active < this.slots) {
      const sequence = this.#held.shift();
      if (sequence === undefined) break;
      this.#run(sequence);
    }
    this.lane.share(this);
    this.owner.engineChanged(this);
  }

  /** As the gate sees it. */
  #gated(): GatedEngine {
    const steps = (): number => this.#steps;
    const slots = (): number => this.slots;
    const run = (sequence: SimSequence): void => this.#run(sequence);
    const stop = (sequence: SimSequence): void => this.#stop(sequence);
    const parts = { decoding: this.#decoding, prefilling: this.#prefilling, held: this.#held };
    return { home: this, owner: this.owner, ...parts, thinking: this.#thinking, steps, slots, run, stop };
  }

  #run(sequence: SimSequence): void {
    if (sequence.prefillLeft > 0) this.#prefilling.push(sequence);
    else this.#decode(sequence, this.#steps);
  }

  #decode(sequence: SimSequence, startStep: number): void {
    sequence.firstVersion ??= this.version;
    this.#timeGap(sequence);
    sequence.startStep = startStep;
    const boundary = this.#gate?.boundaryAfter(sequence.tokens) ?? Infinity;
    sequence.finishStep = startStep + Math.min(sequence.turnLeft, boundary - sequence.tokens);
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
    if (sequence.turnTokens > 0 && sequence.turnLeft > 0) sequence.stoppedMs = this.lane.world.clock.nowMs;
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
    const ms = nowMs - this.#updatedMs;
    if (ms <= 0) return;
    if (this.#rate > 0) {
      this.#timeTokens(this.#rate * ms);
      this.#steps = this.#stepsAt(nowMs);
      this.busy.ms += this.#share * ms;
    } else if (this.#decoding.size > 0) {
      this.#pausedMs += ms;
    }
    this.#updatedMs = nowMs;
  }

  /**
   * The step that a pause fell into took so much longer. What a step waits for others comes in pieces: where it is less
   * than one on average, some steps wait for a whole one and the others not at all.
   */
  #timeTokens(steps: number): void {
    const rows = this.#decoding.size;
    if (rows === 0) return;
    const ms = 1 / this.#rate;
    const late = this.#pausedMs > 0 ? Math.min(1, steps) : 0;
    const lateMs = ms + this.#pausedMs;
    const onTime = steps - late;
    const waiting = this.#waitMs > 0 ? Math.min(1, Math.max(0, ms - this.#aloneMs) / this.#waitMs) : 1;
    for (const histogram of [this.owner.latency, this.latency]) {
      if (late > 0) histogram?.add(lateMs, rows * late);
      if (onTime <= 0) continue;
      if (waiting === 1) histogram?.add(ms, rows * onTime);
      else {
        if (waiting > 0) histogram?.add(this.#aloneMs + this.#waitMs, rows * onTime * waiting);
        histogram?.add(this.#aloneMs, rows * onTime * (1 - waiting));
      }
    }
    this.#pausedMs = 0;
  }

  /** Without a slot, here or anywhere, its next token is late by that long. */
  #timeGap(sequence: SimSequence): void {
    if (sequence.stoppedMs === null) return;
    const ms = this.lane.world.clock.nowMs - sequence.stoppedMs;
    sequence.stoppedMs = null;
    if (ms <= 0) return;
    this.owner.latency.add(ms, 1);
    this.latency?.add(ms, 1);
  }
}
