import { workerData } from 'node:worker_threads';
import { WeightStore } from '../../dist/weights/store.js';
import { fill } from './pattern.mjs';

/** Publishes as fast as it can, and ends in the middle of a version: after that many parts, however far it has got. */
const { shared, epoch, parts } = workerData;
const store = WeightStore.attach(shared, epoch);
let written = 0;
// What the publisher before it did last may be done again, as by a trainer whose step did not count.
let version = Math.max(0, store.newestVersion);
for (;;) {
  store.publish(version, fill(shared.layout, version), () => {
    if (++written === parts) process.exit(0);
  });
  version++;
}
