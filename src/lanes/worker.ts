import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { EngineUpdate } from '../engine/engine.js';
import { type Gpu, openGpu } from '../gpu/device.js';
import { assert } from '../lib/assert.js';
import { errorText, UserError } from '../lib/errors.js';
import { stateBuffers } from '../train/state.js';
import { Doorbell } from './doorbell.js';
import { Faults } from './faults.js';
import { Lane } from './lane.js';
import type { FromLane, LaneAnswers, LaneFailure, LaneRequestKind, OpenLane, ToLane } from './messages.js';

const RECORDS_EVERY_MS = 250;

/**
 * A lane's thread: turns messages into calls of `Lane` and its results into messages. It must never just die: Dawn
 * aborts the whole process when a thread goes with work of the device in flight. So every error, an uncaught one too,
 * and every wish to exit ends here: it is told, and the thread ends once the device is done.
 */
class LaneThread {
  readonly #lane: Lane;
  readonly #doorbell: Doorbell;
  readonly #faults: Faults;
  readonly #records: NodeJS.Timeout;
  #ending = false;
  #broken = false;

  constructor(
    private readonly open: OpenLane,
    private readonly port: MessagePort,
    private readonly gpu: Gpu,
  ) {
    this.#doorbell = new Doorbell(open.doorbell);
    this.#faults = new Faults(open.faults, gpu);
    const onStorePart = (): void => this.#orFail(() => this.#faults.reach('midPublish'));
    const options = { ...open, doorbell: this.#doorbell, onStorePart };
    this.#lane = new Lane(gpu, options, (...step) => this.#orFail(() => this.#tell(...step)));
    this.#records = setInterval(
      () => this.#post({ kind: 'records', records: this.#lane.takeRecords(false) }),
      RECORDS_EVERY_MS,
    );
  }

  run(): void {
    const { port, gpu, open } = this;
    process.on('uncaughtException', (error) => this.#fail(toFailure(error)));
    // Whoever calls it does not count on going on; what is thrown here is not heard of any more.
    process.exit = (code) => {
      const text = `the thread of lane ${open.lane} was told to exit with code ${code ?? 0}`;
      this.#fail({ code: 'bug', text });
      throw new Error(text);
    };
    this.#lane.running.catch((error: unknown) => this.#fail(toFailure(error)));
    void gpu.lost.then((reason) => this.#fail({ code: 'device', text: `the device was lost: ${reason}` }));
    port.on('message', (message: ToLane) => {
      this.#doorbell.take();
      void this.#answer(message);
    });
    this.#post({
      kind: 'opened',
      adapter: gpu.adapter,
      storageBindingBytesMax: gpu.limits.maxStorageBufferBindingSize,
      hasTimestamps: gpu.hasTimestamps,
    });
  }

  #post(message: FromLane, transfer: ArrayBuffer[] = []): void {
    this.port.postMessage(message, transfer);
  }

  #tell(update: EngineUpdate, job: string, stepMs: number | null): void {
    if (update.ids.length > 0) this.#faults.reach('beforeCommit');
    const { ids, tokenIds, logprobs, rawLogprobs } = update;
    this.#post({ kind: 'tokens', job, update, stepMs }, [
      ids.buffer,
      tokenIds.buffer,
      logprobs.buffer,
      rawLogprobs.buffer,
    ]);
  }

  /** What goes wrong in it is the lane's end, whoever called. */
  #orFail(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fail(toFailure(error));
      throw error;
    }
  }

  async #answer({ id, request }: ToLane): Promise<void> {
    if (request.kind === 'close') return this.#close(id);
    let answer: LaneAnswers[LaneRequestKind];
    try {
      answer = await this.#lane.handle(request);
    } catch (error) {
      return this.#refuse(id, error);
    }
    try {
      if (request.kind === 'train' || request.kind === 'trainCritic') this.#faults.reach('beforeAnswer');
      this.#post({ kind: 'done', id, answer }, movable(answer));
    } catch (error) {
      this.#fail(toFailure(error));
    }
  }

  /** The request failed. That is the job's affair, unless it is the lane that fails. */
  async #refuse(id: number, error: unknown): Promise<void> {
    const isMistake = error instanceof UserError;
    if (!isMistake && !this.#ending) {
      await news(this.gpu);
      try {
        this.gpu.assertHealthy();
      } catch (refused) {
        this.#fail(toFailure(refused));
      }
    }
    // If it is the lane, that has been told.
    if (!this.#broken) this.#post({ kind: 'failed', id, failure: toFailure(error) });
  }

  async #close(id: number): Promise<void> {
    if (this.#ending) return;
    try {
      await this.#end();
      this.#post({ kind: 'done', id, answer: null });
    } catch (error) {
      this.#post({ kind: 'failed', id, failure: toFailure(error) });
    }
    this.port.close();
  }

  #fail(failure: LaneFailure): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#broken = true;
    this.#post({ kind: 'broken', failure });
    // Whoever failed may be in the middle of what is about to be given up.
    setImmediate(() => void this.#end().finally(() => this.port.close()));
  }

  async #end(): Promise<void> {
    this.#ending = true;
    clearInterval(this.#records);
    await this.#lane.handle({ kind: 'close' });
  }
}

async function main(open: OpenLane): Promise<void> {
  const port = parentPort;
  assert(port !== null, 'a lane runs in a worker thread');
  const gpu = await openGpu(open.adapter === null ? {} : { adapter: open.adapter });
  new LaneThread(open, port, gpu).run();
}

/** Resolves once what the device has to say, its own loss included, is said. */
async function news({ device }: Gpu): Promise<void> {
  await device.queue.onSubmittedWorkDone().catch(() => undefined);
  await new Promise<void>((resolve) => {
    setImmediate(resolve);
  });
}

/** Memory of an answer that the lane has no more use for: it moves to the host. */
function movable(answer: LaneAnswers[LaneRequestKind]): ArrayBuffer[] {
  if (answer === null) return [];
  if ('state' in answer && answer.state !== null) return stateBuffers(answer.state);
  return 'weights' in answer ? answer.weights.map(({ buffer }) => buffer) : [];
}

function toFailure(error: unknown): LaneFailure {
  if (error instanceof UserError) return { code: 'user', text: error.message };
  return { code: 'bug', text: error instanceof Error ? (error.stack ?? error.message) : errorText(error) };
}

main(workerData as OpenLane).catch((error: unknown) => {
  parentPort?.postMessage({ kind: 'broken', failure: toFailure(error) } satisfies FromLane);
  parentPort?.close();
});
