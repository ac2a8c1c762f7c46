import type { EngineUpdate } from '../engine/engine.js';
import type { Gpu } from '../gpu/device.js';
import type { Program } from '../gpu/ops.js';
import { assert } from '../lib/assert.js';
import { nowMs } from '../lib/clock.js';
import { UserError } from '../lib/errors.js';
import type { Buckets } from '../model/layout.js';
import type { VersionRecord } from '../telemetry/records.js';
import { WeightStore, type SharedStore } from '../weights/store.js';
import { calibrate } from './calibration.js';
import { CriticResident } from './critic-resident.js';
import { EngineResident } from './engine-resident.js';
import type { Learnable, LearnerResident, LearnerResidentParts } from './learner-resident.js';
import type { JobRequest, LaneAnswers } from './messages.js';
import { TrainerResident } from './trainer-resident.js';

/** What a job's residents find on a lane, and whom they tell. */
export interface TenantParts extends LearnerResidentParts {
  readonly gpu: Gpu;
  /** As which the lane publishes weights. */
  readonly epoch: number;
  /** What a slice may take at present, in µs. */
  readonly sliceUs: () => number;
  /** Called after each part of a version that is written to the store. */
  readonly onStorePart: () => void;
  readonly onUpdate: (update: EngineUpdate) => void;
  readonly onVersion: (record: VersionRecord) => void;
  readonly onEngineLeft: () => void;
}

type Request<K extends JobRequest['kind']> = Extract<JobRequest, { kind: K }>;

/**
 * One job on a lane: its trainer, its critic where it has one, its engine, and the weights that go from the trainer to the
 * engine. It knows of no other job.
 */
export class Tenant {
  #trainer: TrainerResident | null = null;
  #critic: CriticResident | null = null;
  #engine: EngineResident | null = null;

  constructor(private readonly parts: TenantParts) {}

  get engine(): EngineResident | null {
    return this.#engine;
  }

  /** All that is trained here. */
  get learners(): readonly LearnerResident<Learnable>[] {
    return [this.#trainer, this.#critic].filter((learner) => learner !== null);
  }

  /** Nothing of the job is on the lane. */
  get isGone(): boolean {
    return this.learners.length === 0 && this.#engine === null;
  }

  /** Carries out one request. */
  async handle(request: JobRequest): Promise<LaneAnswers[JobRequest['kind']]> {
    switch (request.kind) {
      case 'createTrainer':
        return this.#createTrainer(request);
      case 'removeTrainer':
        return this.#removeTrainer();
      case 'createCritic':
        return this.#createCritic(request);
      case 'removeCritic':
        await this.#needCritic().remove();
        this.#critic = null;
        return null;
      case 'loadCriticState':
        await this.#runInit(this.#needCritic(), (critic) => critic.loadState(request.state));
        return null;
      case 'values':
        return this.#needCritic().values(request);
      case 'trainCritic':
        return this.#needCritic().train(request);
      case 'createEngine':
        return this.#createEngine(request);
      case 'removeEngine':
        return this.#removeEngine();
      case 'loadState':
        await this.#runInit(this.#needTrainer(), (trainer) => trainer.loadState(request.state));
        return null;
      case 'keepReference':
        await this.#runInit(this.#needTrainer(), (trainer) => trainer.keepReference());
        return null;
      case 'train':
        return this.#train(request);
      case 'score':
        return this.#score(request);
      case 'publish':
        return this.#publish(request.version, request.store);
      case 'pull':
        return this.#pull();
      case 'exportWeights':
        return { weights: await this.#exportWeights() };
      case 'slots':
        this.#needEngine().engine.limitSlots(request.slots);
        this.parts.executor.wake();
        return null;
      case 'admission':
        this.#needEngine().engine.limitAdmission(request.admission);
        this.parts.executor.wake();
        return null;
      case 'add':
        for (const sequence of request.sequences) this.#needEngine().engine.add(sequence);
        this.parts.executor.wake();
        return null;
      case 'extend':
        for (const { id, turn } of request.turns) this.#needEngine().engine.extend(id, turn);
        this.parts.executor.wake();
        return null;
      case 'finish':
        for (const id of request.ids) this.#engine?.engine.finish(id);
        // The blocks they had may be what others wait for.
        this.parts.executor.wake();
        return null;
      case 'abort':
        for (const id of request.ids) this.#engine?.engine.abort(id);
        // Others may wait for their slots and blocks.
        this.parts.executor.wake();
        return null;
      default:
        return request satisfies never;
    }
  }

  /** Gives up all that is half done or waits. */
  abandon(reason: Error): void {
    for (const { queue } of this.learners) queue.abandon(reason);
    this.#engine?.queue.abandon(reason);
  }

  async #createTrainer(request: Request<'createTrainer'>): Promise<LaneAnswers['createTrainer']> {
    const { job, gpu } = this.parts;
    assert(this.#trainer === null, `job ${job} already has a trainer on this lane`);
    const before = gpu.bytesAllocated;
    const trainer = new TrainerResident(this.parts, request);
    this.#trainer = trainer;
    const bytes = gpu.bytesAllocated - before;
    await orRemove(trainer, this.#furnish(trainer, request.weights), () => (this.#trainer = null));
    return { bytes };
  }

  async #createCritic(request: Request<'createCritic'>): Promise<LaneAnswers['createCritic']> {
    const { job, gpu } = this.parts;
    assert(this.#critic === null, `job ${job} already has a critic on this lane`);
    const before = gpu.bytesAllocated;
    const critic = new CriticResident(this.parts, request);
    this.#critic = critic;
    const bytes = gpu.bytesAllocated - before;
    await orRemove(critic, this.#furnish(critic, request.weights), () => (this.#critic = null));
    return { bytes };
  }

  async #furnish<Model extends Learnable>(learner: LearnerResident<Model>, weights: Buckets): Promise<void> {
    const { make, outcome } = learner.warmUp();
    await this.#calibrate(make, async (program) => {
      await learner.run({ program, stage: 'init' });
      await this.parts.executor.idle(learner.queue);
      await outcome();
    });
    await this.#runInit(learner, (model) => model.loadWeights(weights));
  }

  async #removeTrainer(): Promise<null> {
    await this.#needTrainer().remove();
    this.#trainer = null;
    return null;
  }

  async #createEngine(request: Request<'createEngine'>): Promise<LaneAnswers['createEngine']> {
    const { job, gpu, executor } = this.parts;
    assert(this.#engine === null, `job ${job} already has an engine on this lane`);
    const before = gpu.bytesAllocated;
    const resident = new EngineResident(this.parts, request);
    this.#engine = resident;
    const bytes = gpu.bytesAllocated - before;
    const calibrated = this.#calibrate(
      () => resident.engine.warmUp(),
      async (program) => {
        const done = resident.queue.run(program);
        executor.wake();
        await done;
        await executor.idle(resident.queue);
      },
    );
    await orRemove(resident, calibrated, () => (this.#engine = null));
    return { bytes };
  }

  async #removeEngine(): Promise<LaneAnswers['removeEngine']> {
    const evicted = await this.#needEngine().remove();
    this.parts.onEngineLeft();
    this.#engine = null;
    return { evicted };
  }

  /** @throws UserError when the smallest piece of the resident's work is longer than a slice may be */
  async #calibrate(make: () => Program, runToEnd: (program: Program) => Promise<void>): Promise<void> {
    const { cost, executor, sliceUs } = this.parts;
    const run = async (program: Program): Promise<void> => {
      await runToEnd(program);
      await executor.timed();
    };
    await calibrate({ make, run, cost, sliceUs: sliceUs() });
  }

  async #runInit<Model extends Learnable>(
    learner: LearnerResident<Model>,
    program: (model: Model) => Program,
  ): Promise<void> {
    await learner.run({ program: program(learner.model), stage: 'init' });
  }

  #train(request: Request<'train'>): Promise<LaneAnswers['train']> {
    const detectedMs = nowMs();
    const trainer = this.#needTrainer();
    return trainer.orFail(() => this.#step(trainer, request, detectedMs));
  }

  async #step(
    trainer: TrainerResident,
    { requestedMs, sequences, options, publish, commit = false }: Request<'train'>,
    detectedMs: number,
  ): Promise<LaneAnswers['train']> {
    const { cost, gpu } = this.parts;
    const store = publish?.store ?? null;
    let handedOverMs = detectedMs;
    const { program, result } = trainer.owe(
      trainer.model.stepAndExport(sequences, cost, options, {
        handOver: () => {
          handedOverMs = nowMs();
          // Without a version to publish, no engine is behind.
          return this.#flip(trainer, publish?.version ?? -1);
        },
        exports: commit ? 'state' : store === null ? 'nothing' : 'weights',
      }),
    );
    const run = (): Promise<void> =>
      trainer.run({ program, stage: 'actorTraining', requestedMs, detectedMs });
    await (publish === undefined || this.#engine === null ? run() : this.#engine.receive(run));
    const { result: trained, weights, state } = await result;
    gpu.assertHealthy();
    if (publish !== undefined && store !== null && weights !== null)
      this.#write(publish.version, store, weights);
    return { ...trained, state, publishMs: publish === undefined ? 0 : nowMs() - handedOverMs };
  }

  async #score(request: Request<'score'>): Promise<LaneAnswers['score']> {
    const detectedMs = nowMs();
    const { stage, requestedMs, sequences, which } = request;
    const trainer = this.#needTrainer();
    const job = trainer.model.score(sequences, this.parts.cost, which);
    return { logprobs: await trainer.ask(job, { stage, requestedMs, detectedMs }) };
  }

  /** Trainer → this lane's engine by device copies, and → the store through the host when others may want it. */
  async #publish(version: number, shared: SharedStore | null): Promise<LaneAnswers['publish']> {
    const trainer = this.#needTrainer();
    const run = (): Promise<void> =>
      trainer.run({ program: this.#flip(trainer, version), stage: 'actorTraining' });
    await (this.#engine === null ? run() : this.#engine.receive(run));
    if (shared === null) return { storeBytes: 0 };
    return { storeBytes: this.#write(version, shared, await this.#exportWeights()) };
  }

  /** The trainer's weights into this lane's engine, unless it has them, is about to go or is not there. */
  *#flip({ model }: TrainerResident, version: number): Program {
    if (this.#engine === null) return;
    const startedMs = nowMs();
    const done = (): void => this.#record('flip', version, startedMs, 0);
    yield* this.#engine.flip(model.weights, version, done);
  }

  /** Into the store; returns the bytes. */
  #write(version: number, shared: SharedStore, weights: Buckets): number {
    const startedMs = nowMs();
    const store = WeightStore.attach(shared, this.parts.epoch);
    store.publish(version, weights, this.parts.onStorePart);
    this.#record('publish', version, startedMs, store.bytes);
    return store.bytes;
  }

  #pull(): Promise<LaneAnswers['pull']> {
    const startedMs = nowMs();
    return this.#needEngine().pull((version, bytes) => this.#record('pull', version, startedMs, bytes));
  }

  async #exportWeights(): Promise<Buckets> {
    const trainer = this.#needTrainer();
    return trainer.ask(trainer.model.exportWeights(), { stage: 'actorTraining' });
  }

  #record(kind: VersionRecord['kind'], version: number, startedMs: number, bytes: number): void {
    const { lane, job, onVersion } = this.parts;
    const atMs = nowMs();
    onVersion({ lane, job, version, kind, atMs, durationMs: atMs - startedMs, bytes });
  }

  #needTrainer(): TrainerResident {
    assert(this.#trainer !== null, `job ${this.parts.job} has no trainer on this lane`);
    return this.#trainer;
  }

  #needCritic(): CriticResident {
    assert(this.#critic !== null, `job ${this.parts.job} has no critic on this lane`);
    return this.#critic;
  }

  #needEngine(): EngineResident {
    assert(this.#engine !== null, `job ${this.parts.job} has no engine on this lane`);
    return this.#engine;
  }
}

/** A resident that the lane refuses leaves nothing behind: other jobs go on, and want its memory. */
async function orRemove(
  resident: Pick<EngineResident, 'remove'> | Pick<TrainerResident, 'remove'>,
  made: Promise<void>,
  onRemoved: () => void,
): Promise<void> {
  try {
    await made;
  } catch (error) {
    if (error instanceof UserError) {
      await resident.remove();
      onRemoved();
    }
    throw error;
  }
}
