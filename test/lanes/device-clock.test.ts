import { describe, expect, it } from 'vitest';
import { DeviceClock } from '#src/lanes/device-clock.js';
import { Random } from '#src/lib/prng.js';

describe('DeviceClock', () => {
  it('knows nothing before it has seen anything', () => {
    const clock = new DeviceClock();
    expect(clock.hostMs(5n)).toBeNull();
    expect(clock.errorMs).toBe(Infinity);
  });

  it("finds the device's time on the host's clock to within what it says, and no worse than the shortest delays", () => {
    for (let seed = 1600; seed < 1620; seed++) {
      const random = new Random(seed);
      const clock = new DeviceClock();
      const offsetMs = 1e6 * random.normal();
      // Two clocks of good quality drift apart by some ten millionths.
      const drift = 1e-5 * (2 * random.uniform() - 1);
      const hostOf = (deviceMs: number): number => deviceMs * (1 + drift) + offsetMs;
      let deviceMs = 1e5 * random.uniform();
      let [waited, heard] = [Infinity, Infinity];
      for (let i = 0; i < 300; i++) {
        deviceMs += 20 * random.uniform();
        const delayMs = (): number => 0.03 + random.pick([0.05, 0.5, 20]) * random.uniform();
        const [waitedMs, heardMs, tookMs] = [delayMs(), delayMs(), 5 * random.uniform()];
        const [beganNs, endedNs] = [nsOf(deviceMs), nsOf(deviceMs + tookMs)];
        const submittedMs = hostOf(deviceMs) - waitedMs;
        deviceMs += tookMs;
        clock.observe({ submittedMs, beganNs, endedNs, heardMs: hostOf(deviceMs) + heardMs });
        [waited, heard] = [Math.min(waited, waitedMs), Math.min(heard, heardMs)];
        const error = Math.abs((clock.hostMs(endedNs) ?? NaN) - hostOf(deviceMs));
        expect(error, `seed ${seed}, ${i}`).toBeLessThan(clock.errorMs + 0.001);
        expect(clock.errorMs, `seed ${seed}, ${i}`).toBeLessThan((waited + heard) / 2 + 0.2);
      }
    }
  });

  it('begins anew when one of the clocks is set', () => {
    const clock = new DeviceClock();
    clock.observe({ submittedMs: 10, beganNs: nsOf(0.5), endedNs: nsOf(1), heardMs: 11.5 });
    expect(clock.hostMs(nsOf(1))).toBeCloseTo(11);
    clock.observe({ submittedMs: 20, beganNs: nsOf(1000), endedNs: nsOf(1001), heardMs: 21 });
    expect(clock.hostMs(nsOf(1001))).toBeCloseTo(21);
  });
});

function nsOf(ms: number): bigint {
  return BigInt(Math.round(ms * 1e6));
}
