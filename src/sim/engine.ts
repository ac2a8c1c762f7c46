import type { Admission } from '../engine/admission.js';
import { assert } from '../lib/assert.js';
import type { JobId, LaneId } from '../scheduler/state.js';
import { Timer } from './clock.js';
import { stepMs } from './cost-model.js';
import type { EngineLane, EngineOwner } from './engine-surroundings.js';
import { Heap } from './heap.js';
import { KvGate, STEP_SLACK, type GatedEngine } from './kv-gate.js';
import { LatencyHistogram } from './latency.js';
import type { Reporting } from './desk.js';
import type { Busy } from './records.js';
import { PrefillQueue } from './prefill.js';
import { turnTokensMax } from './scenario.js';
import type { KvHome, SimSequence } from './sequence.js';
import { TokenTimes } from './token-times.js';

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
  /** The present step alone on the lane, and how long its slices wait for others' whenever they do. */
  #aloneMs = 0;
  #waitMs = 0;
  #updatedMs: number;
  readonly #openedMs: number;
  #busySinceMs = 0;
  readonly #decoding = new Heap<SimSequence>();
  /** Of those that decode: sum of the steps they began at. */
  #startSum = 0;
  #tokens = 0;
  readonly #prefills: PrefillQueue;
  /** Sequences come and go all at once: what that changes is worked out at the end. */
  #isFiring = false;
  /** KV kept, no slot. */
  readonly #held: SimSequence[] = [];
  readonly #thinking = new Set<SimSequence>();
  readonly #times: TokenTimes;
  /** Null where the cache is not simulated. */
  readonly #gate: KvGate | null;

  constructor(
    readonly owner: EngineOwner<SimEngine>,
    readonly lane: EngineLane<SimEngine>,
    private readonly busy: Busy,
    public slots: number,
    private held: number,
  ) {
    this.#prefills = new PrefillQueue(lane.world.costs.decode.batchRows);
    this.#openedMs = this.#updatedMs = lane.world.clock.nowMs;
    this.latency = owner.spec.tokenLatencyMs === null ? null : new LatencyHistogram();
    this.#times = new TokenTimes([owner.latency, ...(this.latency === null ? [] : [this.latency])]);
    this.told.version = held;
    const { kvTokens } = owner.spec;
    this.#gate =
      kvTokens === undefined ? null : new KvGate(this.#gated(), kvTokens, turnTokensMax(owner.spec));
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
    return this.#decoding.size + this.#prefills.sequences.length;
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
    this.#advance();
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
      const newest = [...this.#decoding.items, ...this.#prefills.sequences]
        .sort((a, b) => b.id - a.id)
        .slice(0, excess);
      for (const sequence of newest) this.#stop(sequence);
      this.#held.unshift(...newest.reverse());
    }
    this.#update();
  }

  /** Nobody needs these any more, whatever they were doing: nothing of them stays here. */
  drop(sequences: readonly SimSequence[]): void {
    this.#advance();
    for (const sequence of sequences) {
      const held = this.#held.indexOf(sequence);
      if (held >= 0) this.#held.splice(held, 1);
      else if (!this.#thinking.has(sequence)) this.#stop(sequence);
      this.forget(sequence);
    }
    this.#update();
  }

  /** Ends: all it runs comes back, oldest first, without its KV; those in their environment lose theirs too. */
  evict(): SimSequence[] {
    this.#advance();
    const running = [...this.#decoding.items, ...this.#prefills.sequences];
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
    const active = [...this.#decoding.items, ...this.#prefills.sequences].sort((a, b) => a.id - b.id);
    for (const sequence of active) this.#stop(sequence);
    this.#held.unshift(...active);
    this.#update();
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

  /** Puts its next step together: what it has to do may have changed. */
  planStep(): void {
    this.#advance();
    this.#plan();
  }

  /** What its share of the lane's time comes to now, its step planned, and the length of a wait in between; 0 stops it. */
  setShare(share: number, waitMs = 0): void {
    const { clock, records, desk } = this.lane.world;
    this.#advance();
    const before = this.#rate;
    this.#share = share;
    this.#waitMs = waitMs;
    this.#setRate();
    if (before === 0 && this.#rate > 0) {
      this.#busySinceMs = clock.nowMs;
      desk.watch(this);
    }
    if (before > 0 && this.#rate === 0) {
      records.span(this.lane.id, this.owner.spec.id, 'generation', this.#busySinceMs, clock.nowMs);
    }
    clock.set(this.timer, clock.nowMs + this.#dueMs());
  }

  #plan(): void {
    this.#prefills.plan(this.#decoding.size, this.#steps);
    this.#aloneMs = this.#costMs(this.#decoding.size, this.#prefills.batch?.rows ?? 0);
  }

  #setRate(): void {
    this.#rate = this.isActive ? this.#share / this.#aloneMs : 0;
  }

  /** Until the next end of a turn, or of a batch that does not read all there is to read. */
  #dueMs(): number {
    if (this.#rate === 0) return Infinity;
    const turnEnd = this.#decoding.peek()?.key ?? Infinity;
    const { batch: prefill, isLastBatch } = this.#prefills;
    const msTo = (step: number): number => Math.max(0, step - this.#steps) / this.#rate;
    if (this.#gate !== null || this.lane.isAligned) {
      // What is read takes its place in the cache, or changes everybody's turns.
      const full = this.#steps + (this.#gate?.stepsUntilFull() ?? Infinity);
      return msTo(Math.min(turnEnd, prefill?.endStep ?? Infinity, full));
    }
    if (prefill === null || turnEnd <= prefill.endStep) return msTo(turnEnd);
    const readMs = msTo(prefill.endStep);
    if (!isLastBatch) return readMs;
    let first = turnEnd;
    for (const { sequence } of prefill.parts)
      first = Math.min(first, prefill.endStep - 1 + sequence.turnLeft);
    const nextMs = this.#costMs(this.#decoding.size + prefill.parts.length, 0) / this.#share;
    return readMs + (first - prefill.endStep) * nextMs;
  }

  #costMs(decodeRows: number, prefillRows: number): number {
    const ms = stepMs(this.lane.world.costs, decodeRows, prefillRows);
    return (ms * this.owner.spec.computeScale) / this.lane.speed;
  }

  #fire(): void {
    this.#advance();
    this.#gate?.measure();
    const ended: SimSequence[] = [];
    for (;;) {
      const next = this.#decoding.peek();
      if (next === undefined || next.key > this.#steps + STEP_SLACK) break;
      this.#stop(next);
      if (next.turnLeft > 0) {
        // It has come to its next segment.
        if (this.#gate === null) assert(false, `a turn ended with ${next.turnLeft} tokens to go`);
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
    const parts = { decoding: this.#decoding, prefilling: this.#prefills.sequences, held: this.#held };
    return { home: this, owner: this.owner, ...parts, thinking: this.#thinking, steps, slots, run, stop };
  }

  #run(sequence: SimSequence): void {
    if (sequence.prefillLeft > 0) this.#prefills.sequences.push(sequence);
    else this.#decode(sequence, this.#steps);
  }

  #decode(sequence: SimSequence, startStep: number): void {
    sequence.firstVersion ??= this.version;
    this.#times.gap(sequence, this.lane.world.clock.nowMs);
    sequence.startStep = startStep;
    const boundary = this.#gate?.boundaryAfter(sequence.tokens) ?? Infinity;
    sequence.key = startStep + Math.min(sequence.turnLeft, boundary - sequence.tokens);
    this.#startSum += startStep;
    this.#decoding.push(sequence);
  }

  /** Takes a sequence out of its slot, with all it has sampled. */
  #stop(sequence: SimSequence): void {
    if (sequence.place < 0) {
      this.#prefills.remove(sequence);
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
    for (;;) {
      const { batch } = this.#prefills;
      if (batch === null || this.#rate === 0 || this.#stepsAt(nowMs) + STEP_SLACK < batch.endStep) break;
      const readMs = Math.max(0, batch.endStep - this.#steps) / this.#rate;
      this.#elapse(Math.min(nowMs, this.#updatedMs + readMs));
      for (const sequence of this.#prefills.end()) this.#decode(sequence, this.#steps - 1);
      this.#plan();
      this.#setRate();
    }
    this.#elapse(nowMs);
  }

  #elapse(toMs: number): void {
    const ms = toMs - this.#updatedMs;
    if (ms <= 0) return;
    if (this.#rate > 0) {
      const step = {
        rows: this.#decoding.size,
        ms: 1 / this.#rate,
        aloneMs: this.#aloneMs,
        waitMs: this.#waitMs,
      };
      this.#times.pass(this.#rate * ms, step);
      this.#steps = this.#stepsAt(toMs);
      this.busy.ms += this.#share * ms;
    } else if (this.#decoding.size > 0) {
      this.#times.pause(ms);
    }
    this.#updatedMs = toMs;
  }
}
