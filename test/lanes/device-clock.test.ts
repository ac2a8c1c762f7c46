import { describe, expect, it } from 'vitest';
import { DeviceClock } from '#src/lanes/device-clock.js';
import { Random } from '#src/lib/prng.js';

describe('DeviceClock', () => {
  it('knows nothing before it has seen anything', () => {
    expect(new DeviceClock().hostMs(5n)).toBeNull();
  });

  it("finds the device's time on the host's clock to within the shortest delay of hearing, never too early", () => {
    for (let seed = 1600; seed < 1620; seed++) {
      const random = new Random(seed);
      const clock = new DeviceClock();
      const offsetMs = 1e6 * random.normal();
      // Two clocks of good quality drift apart by some ten millionths.
      const drift = 1e-5 * random.normal();
      const hostOf = (deviceMs: number): number => deviceMs * (1 + drift) + offsetMs;
      let deviceMs = 1e5 * random.uniform();
      const delays: number[] = [];
      for (let i = 0; i < 300; i++) {
        deviceMs += 20 * random.uniform();
        const delayMs = 0.03 + random.pick([0.05, 0.5, 20]) * random.uniform();
        delays.push(delayMs);
        clock.observe(BigInt(Math.round(deviceMs * 1e6)), hostOf(deviceMs) + delayMs);
        const shortest = Math.min(...delays.slice(-64));
        const error = (clock.hostMs(BigInt(Math.round(deviceMs * 1e6))) ?? NaN) - hostOf(deviceMs);
        expect(error, `seed ${seed}, ${i}`).toBeGreaterThan(-0.05);
        expect(error, `seed ${seed}, ${i}`).toBeLessThan(shortest + 0.05);
      }
    }
  });
});
