import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { Doorbell } from '#src/lanes/doorbell.js';
import { nowMs } from '#src/lib/clock.js';

function napMs(bell: Doorbell, timeoutMs: number): number {
  const startedMs = nowMs();
  bell.nap(timeoutMs);
  return nowMs() - startedMs;
}

describe('Doorbell', () => {
  it('lets a thread sleep to the end when nobody rings', () => {
    const lane = new Doorbell(new SharedArrayBuffer(4));
    expect(napMs(lane, 30)).toBeGreaterThan(28);
  });

  it('lets nobody sleep while a message waits, and again once each is taken', () => {
    const shared = new SharedArrayBuffer(4);
    const [host, lane] = [new Doorbell(shared), new Doorbell(shared)];
    host.ring();
    host.ring();
    // Not even after having looked: the message is still in the event loop.
    expect(napMs(lane, 1000)).toBeLessThan(500);
    expect(napMs(lane, 1000)).toBeLessThan(500);
    lane.take();
    expect(napMs(lane, 1000)).toBeLessThan(500);
    lane.take();
    expect(napMs(lane, 30)).toBeGreaterThan(28);
  });

  it('wakes a thread that sleeps', async () => {
    const shared = new SharedArrayBuffer(4);
    const lane = new Doorbell(shared);
    const url = new URL('../../dist/lanes/doorbell.js', import.meta.url).href;
    const script = `
      const { parentPort, workerData } = require('node:worker_threads');
      import(${JSON.stringify(url)}).then(({ Doorbell }) => {
        parentPort.postMessage('ready');
        setTimeout(() => new Doorbell(workerData).ring(), 50);
      });`;
    const worker = new Worker(script, { eval: true, workerData: shared });
    await once(worker, 'message');
    expect(napMs(lane, 10_000)).toBeLessThan(5_000);
    await once(worker, 'exit');
  });
});
