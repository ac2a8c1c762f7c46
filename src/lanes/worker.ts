import { parentPort, workerData } from 'node:worker_threads';
import { openGpu } from '../gpu/device.js';
import { assert } from '../lib/assert.js';
import { errorText, UserError } from '../lib/errors.js';
import { Lane } from './lane.js';
import type { FromLane, LaneFailure, OpenLane, ToLane } from './messages.js';

const RECORDS_EVERY_MS = 250;

/** A lane's thread: opens the device, then turns messages into calls of `Lane` and its results into messages. */
async function main(open: OpenLane): Promise<void> {
  const port = parentPort;
  assert(port !== null, 'a lane runs in a worker thread');
  const post = (message: FromLane, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);
  const gpu = await openGpu(open.adapter === null ? {} : { adapter: open.adapter });
  const doorbell = new Int32Array(open.doorbell);
  const lane = new Lane(
    gpu,
    { lane: open.lane, job: open.job, budgets: open.budgets, doorbell },
    (update) => {
      const { ids, tokenIds, logprobs, rawLogprobs } = update;
      post({ kind: 'tokens', update }, [ids.buffer, tokenIds.buffer, logprobs.buffer, rawLogprobs.buffer]);
    },
  );
  let closing = false;
  void gpu.lost.then((reason) => {
    if (!closing) post({ kind: 'broken', failure: { code: 'device', text: reason } });
  });
  lane.running.catch((error: unknown) => {
    post({ kind: 'broken', failure: toFailure(error) });
  });
  const records = setInterval(
    () => post({ kind: 'records', records: lane.takeRecords(false) }),
    RECORDS_EVERY_MS,
  );

  const answer = async ({ id, request }: ToLane): Promise<void> => {
    if (request.kind === 'close') {
      closing = true;
      clearInterval(records);
    }
    try {
      const result = await lane.handle(request);
      post({ kind: 'done', id, answer: result });
    } catch (error) {
      post({ kind: 'failed', id, failure: toFailure(error) });
    }
    // Never terminate() a lane from outside: Dawn aborts the process when a map is pending.
    if (request.kind === 'close') port.close();
  };
  port.on('message', (message: ToLane) => void answer(message));
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
