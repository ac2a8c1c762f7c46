import { parentPort, workerData } from 'node:worker_threads';
import { WeightStore } from '../../dist/weights/store.js';
import { fill, tornAt } from './pattern.mjs';

/**
 * One thread of the store's test under fire: publishes as fast as it can, or pulls as fast as it can and looks at
 * every element.
 */
const { role, shared, stop, distinctWanted } = workerData;
const stopped = new Int32Array(stop);
const store = WeightStore.attach(shared);
const seen = new Set();
const problems = [];
let newest = -1;
while (Atomics.load(stopped, 0) === 0 && problems.length === 0 && seen.size < distinctWanted) {
  if (role === 'publisher') {
    const version = store.newestVersion + 1;
    store.publish(version, fill(shared.layout, version));
    newest = version;
  } else if (store.newestVersion >= 0) {
    const announced = store.newestVersion;
    const { version, buckets } = store.pull();
    const torn = tornAt(version, buckets);
    if (torn >= 0) problems.push(`version ${version} is torn at element ${torn}`);
    if (version < announced) problems.push(`version ${version} came after ${announced} was announced`);
    if (version < newest) problems.push(`version ${version} came after ${newest}`);
    if (buckets.some(({ buffer }) => !(buffer instanceof ArrayBuffer)))
      problems.push('pulled into shared memory');
    newest = version;
    seen.add(version);
  }
}
parentPort.postMessage({ role, newest, distinct: seen.size, problems });
