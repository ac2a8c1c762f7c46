import { expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { paramLayout } from '#src/model/layout.js';
import { decayRuns } from '#src/train/optimizer.js';
import { awkwardConfig } from '../oracle/fixtures.js';

it.each([1, 2, 3])('decayRuns covers every tensor once, with its own decay (seed %i)', (seed) => {
  for (const bytesMax of [2560, 2 ** 20]) {
    const layout = paramLayout(awkwardConfig(new Random(seed), false), bytesMax);
    const runs = decayRuns(layout);
    const label = `seed ${seed}, buckets of ${bytesMax} bytes`;
    const covering = layout.tensors.map((tensor) => {
      const end = tensor.offset + tensor.rows * tensor.columns;
      const found = runs.filter(
        ({ bucket, start, count }) =>
          bucket === tensor.bucket && start < end && start + count > tensor.offset,
      );
      expect(found, label).toHaveLength(1);
      expect(found[0]!.start, label).toBeLessThanOrEqual(tensor.offset);
      expect(found[0]!.start + found[0]!.count, label).toBeGreaterThanOrEqual(end);
      expect(found[0]!.decay, label).toBe(tensor.decay);
      return found[0]!;
    });
    expect(new Set(covering).size, label).toBe(runs.length);
    // Fewer runs than tensors: neighbours are joined.
    expect(runs.length, label).toBeLessThan(layout.tensors.length);
  }
});
