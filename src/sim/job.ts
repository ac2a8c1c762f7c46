import type { Admission } from '../engine/admission.js';
import { assert, at } from '../lib/assert.js';
import { Random, seedKey } from '../lib/prng.js';
import type { SleepOrder, WakeOrder } from '../scheduler/plan.js';
import type { EndedRollout } from '../scheduler/lengths.js';
import type { RoundRule } from '../scheduler/rounds.js';
import type { ExclusiveStage } from '../scheduler/stages.js';
import type { Demand, LaneId } from '../scheduler/state.js';
import { JobAccount } from './account.js';
import { draw } from './distribution.js';
import type { SimEngine } from './engine.js';
import type { EngineOwner } from './engine-surroundings.js';
import { Engines } from './engines.js';
import type { SimLane } from './lane.js';
import type { SimJobOutcome } from './outcome.js';
import { jobSpecOf } from './job-spec.js';
import { type SimJobSpec, tokensMax } from './scenario.js';
import { EVALUATION, isEvaluationDue, type Evaluation } from './evaluation.js';
import { Rounds, type StepRound } from './rounds.js';
import type { SimSequence } from './sequence.js';
import { StageRun } from './stage.js';
import { stageMs, stagesOf } from './stage-costs.js';
import type { World } from './world.js';

/**
 * One job as a live one behaves: rollouts of step s start once step s − 1 − bound is done, a step's stages run in
 * order once its last rollout has its reward, the last of them publishes, and engines awake elsewhere pull.
 */
export class SimJob implements EngineOwner<SimEngine> {
  version = 0;
  startedMs: number | null = null;
  finishedMs: number | null = null;
  isGivenUp = false;
  readonly #account = new JobAccount();
  readonly #engines: Engines;
  readonly #stageRandom: Random;
  readonly #rounds: Rounds;
  /** By step. */
  readonly #open = new Map<number, StepRound>();
  #evaluation: Evaluation | null = null;
  #stepsDone = 0;
  /** Unfinished, and of these those in their environment. */
  #outstanding = 0;
  #thinking = 0;
  /** Committed tokens of the unfinished. */
  #outstandingTokens = 0;
  #stage: StageRun | null = null;
  /** Not told to the scheduler yet. */
  #ended: EndedRollout[] = [];
  readonly #tokensMax: number;

  constructor(
    readonly spec: SimJobSpec,
    private readonly world: World,
    private readonly lanes: readonly SimLane[],
    private readonly onOver: () => void,
  ) {
    const random = new Random(seedKey(world.seed)).fork(`job ${spec.id}`);
    this.#rounds = new Rounds(spec, world.faults, random.fork('sequences'));
    this.#stageRandom = random.fork('stages');
    this.#engines = new Engines(this, world, lanes, this.#account);
    this.#tokensMax = tokensMax(spec);
  }

  get id(): string {
    return this.spec.id;
  }

  get latency() {
    return this.#account.latency;
  }

  get isOver(): boolean {
    return this.finishedMs !== null;
  }

  get demand(): Demand {
    const rollouts = this.#outstanding;
    const sampled = this.#outstandingTokens + this.#engines.uncommitted;
    const tokensRemaining = Math.max(0, Math.round(rollouts * this.#tokensMax - sampled));
    const { deferredPrompts } = this.#rounds;
    const deferred = deferredPrompts > 0 ? { deferredPrompts } : {};
    return { rollouts, runnable: rollouts - this.#thinking, tokensRemaining, ...deferred };
  }

  /** It comes: its trainer is set up, then its first rollouts start. */
  arrive(): void {
    const { world, spec } = this;
    this.startedMs = world.clock.nowMs;
    const job = jobSpecOf(spec, world.faults);
    world.desk.tell(() => world.scheduler.dispatch({ kind: 'jobAdded', job }));
    if (spec.trainerLane === null) return this.#prepared();
    this.#runStage('init', stageMs(world.costs, spec, 'init', spec.weightBytes), () => this.#prepared());
  }

  /** Its time is up: what is unfinished is given up. */
  leave(): void {
    if (this.isOver) return;
    this.isGivenUp = true;
    this.#stage?.abandon();
    this.#engines.weightsExist();
    for (const engine of this.#engines.awake) engine.evict();
    for (const sequence of this.#live()) this.#account.settle(sequence, 'aborted');
    this.#open.clear();
    this.#evaluation = null;
    this.#outstanding = this.#thinking = this.#outstandingTokens = 0;
    this.#engines.clearQueue();
    this.#finish();
  }

  wake(order: WakeOrder, answer: (version: number) => void): void {
    this.#engines.wake(order, answer);
  }

  sleep(order: SleepOrder, answer: () => void): void {
    this.#engines.sleep(order, answer);
  }

  resize(lane: LaneId, slots: number): void {
    this.#engines.resize(lane, slots);
  }

  admit(lane: LaneId, admission: Admission | null): void {
    this.#engines.admit(lane, admission);
  }

  /** How its rounds begin from the next one on. */
  tellRounds(rule: RoundRule | null): void {
    this.#rounds.rule = rule;
  }

  laneLost(lane: LaneId): void {
    this.#engines.laneLost(lane);
  }

  cacheLost(tokens: number): void {
    this.#account.tokensRecomputed += tokens;
  }

  evicted(sequences: number, kvTokensPeak: number): void {
    this.#account.evictions += sequences;
    this.#account.kvTokensPeak = Math.max(this.#account.kvTokensPeak, kvTokensPeak);
  }

  takeEnded(): readonly EndedRollout[] {
    const ended = this.#ended;
    this.#ended = [];
    return ended;
  }

  decoded(tokens: number): void {
    this.#account.decoded += tokens;
    this.#outstandingTokens += tokens;
  }

  engineChanged(engine: SimEngine): void {
    this.world.desk.engineChanged(engine);
  }

  turnEnded(sequence: SimSequence): void {
    // Another one that ended at the same time has made it needless.
    if (sequence.status === 'aborted') return;
    const waitMs = sequence.nextTurn();
    if (waitMs === null) {
      sequence.engine?.forget(sequence);
      sequence.status = 'ended';
      this.#outstanding--;
      this.#outstandingTokens -= sequence.tokens;
      this.#account.rollouts++;
      const { tokens, contextTokens } = sequence;
      this.#ended.push({ promptTokens: contextTokens - tokens, tokens });
      this.#endInRound(sequence);
      const rewardMs = sequence.rewardMs ?? draw(this.spec.rewardMs, this.#stageRandom);
      if (rewardMs > 0) this.world.clock.after(rewardMs, () => this.#scored(sequence));
      else this.#scored(sequence);
    } else {
      this.#thinking++;
      sequence.status = 'thinking';
      this.world.clock.after(waitMs, () => {
        if (this.isOver || sequence.status === 'aborted') return;
        this.#thinking--;
        sequence.status = 'open';
        this.#engines.goOn(sequence);
        this.world.desk.demandChanged(this);
      });
    }
    if (this.isOver) return;
    this.#engines.place();
    this.world.desk.demandChanged(this);
  }

  /** The simulation is over: what stage it waits for or holds goes on record. */
  close(): void {
    this.#stage?.close();
  }

  /** Asserts that no token was lost. */
  outcome(): SimJobOutcome {
    const account = this.#account;
    return {
      id: this.id,
      startedMs: this.startedMs,
      finishedMs: this.finishedMs,
      isGivenUp: this.isGivenUp,
      steps: this.#stepsDone,
      rollouts: account.rollouts,
      tokens: account.tokens(this.#liveTokens()),
      rounds: this.#rounds.outcome,
      tokensRecomputed: account.tokensRecomputed,
      evictions: account.evictions,
      kvTokensPeak: account.kvTokensPeak,
      queueWaitMs: account.queueWaitMs,
      staleness: account.staleness,
      weightBytes: account.weightBytes,
      weightBytesBroadcast: account.weightBytesBroadcast,
      tokenLatencyMs: { p50: account.latency.quantile(0.5), p99: account.latency.quantile(0.99) },
    };
  }

  #prepared(): void {
    if (this.isOver) return;
    this.#stage = null;
    this.#engines.weightsExist();
    this.#evaluate(() => this.#startWhatMay());
  }

  #startWhatMay(): void {
    const { steps, stalenessVersionsMax } = this.spec;
    const last = Math.min(steps, this.#stepsDone + 1 + stalenessVersionsMax);
    for (let step = this.#stepsDone + 1; step <= last; step++) {
      if (this.#open.has(step)) continue;
      const round = this.#rounds.start(step, this.world.clock.nowMs);
      this.#open.set(step, round);
      this.#start(round.sequences);
    }
    this.#engines.place();
    this.world.desk.demandChanged(this);
  }

  #start(sequences: readonly SimSequence[]): void {
    this.#outstanding += sequences.length;
    this.#engines.add(sequences);
  }

  /** Measures the held-out reward, if it is time to: no step is taken meanwhile, and none begins. */
  #evaluate(onDone: () => void): void {
    const { evaluation, steps } = this.spec;
    if (evaluation === undefined || !isEvaluationDue(evaluation, this.#stepsDone, steps)) return onDone();
    const sequences = this.#rounds.heldout(evaluation);
    const onScored = (): void => {
      this.#evaluation = null;
      for (const sequence of sequences) this.#account.settle(sequence, 'served');
      onDone();
    };
    this.#evaluation = { sequences, unscored: sequences.length, onScored };
    this.#start(sequences);
    this.#engines.place();
    this.world.desk.demandChanged(this);
  }

  /** Whatever its round has no need of any more is discarded, and prompts that came too late wait for a long round. */
  #endInRound(sequence: SimSequence): void {
    const round = this.#open.get(sequence.step);
    if (round === undefined) return;
    const unneeded = round.ended(sequence);
    if (unneeded.length === 0) return;
    this.#engines.drop(unneeded);
    for (const other of unneeded) {
      if (other.status !== 'ended') {
        this.#outstanding--;
        this.#outstandingTokens -= other.tokens;
      }
      if (other.status === 'thinking') this.#thinking--;
      other.status = 'aborted';
      this.#account.settle(other, 'aborted');
    }
    this.#rounds.defer(round.deferred);
  }

  #scored(sequence: SimSequence): void {
    if (this.isOver) return;
    if (sequence.step === EVALUATION) return this.#scoredHeldout();
    const round = this.#open.get(sequence.step);
    if (round === undefined || sequence.status === 'aborted') return;
    round.scored(sequence);
    if (round.isScored) this.#trainIfDue();
  }

  #scoredHeldout(): void {
    const evaluation = this.#evaluation;
    if (evaluation === null) return;
    evaluation.unscored--;
    if (evaluation.unscored === 0) evaluation.onScored();
  }

  #trainIfDue(): void {
    const round = this.#open.get(this.#stepsDone + 1);
    if (round === undefined || !round.isScored || this.#stage !== null) return;
    if (this.#evaluation !== null) return;
    const { spec } = this;
    const { kept } = round;
    if (spec.trainerLane === null) {
      for (const sequence of kept) this.#account.settle(sequence, 'served');
      return this.#endStep();
    }
    const { version } = this;
    const isFresh = (sequence: SimSequence) =>
      this.#staleness(sequence, version) <= spec.stalenessVersionsMax;
    const usable = kept.filter((sequence) => !sequence.isFiltered && isFresh(sequence));
    const tokens = usable.reduce((sum, sequence) => sum + sequence.contextTokens, 0);
    // With nothing to learn from, the weights stay as they are.
    const stages = tokens > 0 ? stagesOf(spec, this.#stepsDone + 1) : [];
    this.#runStages(stages, tokens, () => {
      for (const sequence of kept) {
        const fate = sequence.isFiltered ? 'filtered' : 'trained';
        this.#account.settle(sequence, isFresh(sequence) ? fate : 'expired');
      }
      for (const sequence of usable) this.#account.stale(this.#staleness(sequence, version));
      if (stages.includes('actorTraining')) this.#publish();
      this.#endStep();
    });
  }

  /** How many versions ago its first token was sampled. */
  #staleness({ firstVersion }: SimSequence, version: number): number {
    assert(firstVersion !== null && firstVersion <= version, 'it was sampled under a version to come');
    return version - firstVersion;
  }

  #runStages(stages: readonly ExclusiveStage[], tokens: number, onDone: () => void): void {
    const [stage, ...rest] = stages;
    if (stage === undefined) return onDone();
    this.#runStage(stage, stageMs(this.world.costs, this.spec, stage, tokens), () => {
      this.#stage = null;
      this.#runStages(rest, tokens, onDone);
    });
  }

  #runStage(stage: ExclusiveStage, workMs: number, onDone: () => void): void {
    const { trainerLane, id } = this.spec;
    assert(trainerLane !== null, `${id} has no trainer`);
    this.#stage = new StageRun(this.world, {
      job: id,
      stage,
      lanes: [at(this.lanes, trainerLane)],
      workMs,
      random: this.#stageRandom,
      onGranted: (waitedMs) => this.#account.waited(stage, waitedMs),
      onDone,
    });
  }

  #publish(): void {
    const version = ++this.version;
    const { id, weightBytes, engineLanes } = this.spec;
    this.#account.weightBytesBroadcast += weightBytes * engineLanes.length;
    this.world.desk.tell(() => {
      this.world.scheduler.dispatch({ kind: 'versionPublished', job: id, version });
    });
    this.#engines.published();
  }

  #endStep(): void {
    const round = this.#open.get(++this.#stepsDone);
    if (round !== undefined) this.#rounds.stepEnded(round, this.world.clock.nowMs);
    this.#open.delete(this.#stepsDone);
    this.#account.tokens(this.#liveTokens());
    this.#evaluate(() => {
      if (this.#stepsDone === this.spec.steps) return this.#finish();
      this.#startWhatMay();
      this.#trainIfDue();
    });
  }

  #finish(): void {
    this.finishedMs = this.world.clock.nowMs;
    const { id } = this.spec;
    this.world.desk.tell(() => this.world.scheduler.dispatch({ kind: 'jobFinished', job: id }));
    this.onOver();
  }

  /** Of all sequences with no fate yet, with what their engines have sampled by now. */
  #liveTokens(): number {
    for (const engine of this.#engines.awake) engine.commit();
    return this.#live().reduce((sum, { tokens }) => sum + tokens, 0);
  }

  /** All sequences with no fate yet. */
  #live(): SimSequence[] {
    const training = [...this.#open.values()].flatMap(({ kept }) => kept);
    return [...training, ...(this.#evaluation?.sequences ?? [])];
  }
}
