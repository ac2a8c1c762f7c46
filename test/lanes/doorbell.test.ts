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
});
