import { parentPort, workerData } from 'node:worker_threads';
import { openGpu } from '../gpu/device.js';
import { assert } from '../lib/assert.js';
import { errorText, UserError } from '../lib/errors.js';
import { Doorbell } from './doorbell.js';
import { Lane } from './lane.js';
import type { FromLane, LaneFailure, OpenLane, ToLane } from './messages.js';

const RECORDS_EVERY_MS = 250;

/** A lane's thread: opens the device, then turns messages into calls of `Lane` and its results into messages. */
async function main(open: OpenLane): Promise<void> {
  const port = parentPort;
  assert(port !== null, 'a lane runs in a worker thread');
  const post = (message: FromLane, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);
  const gpu = await openGpu(open.adapter === null ? {} : { adapter: open.adapter });
  const doorbell = new Doorbell(open.doorbell);
  const lane = new Lane(
    gpu,
    { lane: open.lane, job: open.job, budgets: open.budgets, doorbell },
    (update) => {
      const { ids, tokenIds, logprobs, rawLogprobs } = update;
      post({ kind: 'tokens', update }, [ids.buffer, tokenIds.buffer, logprobs.buffer, rawLogprobs.buffer]);
    },
  );
  const records = setInterval(
    () => post({ kind: 'records', records: lane.takeRecords(false) }),
    RECORDS_EVERY_MS,
  );

  // The thread must never just die: Dawn aborts the whole process when it goes with work of the device in flight.
  // So every error, an uncaught one too, ends here: it is told, and the thread ends once the device is done.
  let ending = false;
  const end = async (): Promise<void> => {
    ending = true;
    clearInterval(records);
    await lane.handle({ kind: 'close' });
  };
  const fail = (failure: LaneFailure): void => {
    if (ending) return;
    post({ kind: 'broken', failure });
    void end().finally(() => port.close());
  };
  process.on('uncaughtException', (error) => fail(toFailure(error)));
  lane.running.catch((error: unknown) => fail(toFailure(error)));
  void gpu.lost.then((reason) => fail({ code: 'device', text: `the device was lost: ${reason}` }));

  const answer = async ({ id, request }: ToLane): Promise<void> => {
    const closes = request.kind === 'close';
    if (closes && ending) return;
    try {
      if (closes) post({ kind: 'done', id, answer: await end().then(() => null) });
      else post({ kind: 'done', id, answer: await lane.handle(request) });
    } catch (error) {
      post({ kind: 'failed', id, failure: toFailure(error) });
    }
    if (closes) port.close();
  };
  port.on('message', (message: ToLane) => {
    doorbell.take();
    void answer(message);
  });
  post({
    kind: 'opened',
    adapter: gpu.adapter,
    storageBindingBytesMax: gpu.limits.maxStorageBufferBindingSize,
    hasTimestamps: gpu.hasTimestamps,
  });
}

function toFailure(error: unknown): LaneFailure {
  if (error instanceof UserError) return { code: 'user', text: error.message };
  return { code: 'bug', text: error instanceof Error ? (error.stack ?? error.message) : errorText(error) };
}

main(workerData as OpenLane).catch((error: unknown) => {
  parentPort?.postMessage({ kind: 'broken', failure: toFailure(error) } satisfies FromLane);
  parentPort?.close();
});
