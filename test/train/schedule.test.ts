import { describe, expect, it } from 'vitest';
import { learningRateAt, type LearningRateSchedule } from '#src/train/schedule.js';

describe('learningRateAt', () => {
  it('warms up in equal steps and stays', () => {
    const schedule: LearningRateSchedule = { peak: 8, warmupSteps: 4, decay: { kind: 'constant' } };
    expect([0, 1, 2, 3, 4, 1000].map((step) => learningRateAt(schedule, step))).toEqual([2, 4, 6, 8, 8, 8]);
  });

  it('starts at the peak without a warm-up', () => {
    expect(learningRateAt({ peak: 3, warmupSteps: 0, decay: { kind: 'constant' } }, 0)).toBe(3);
  });

  it('falls along half a cosine to its floor and stays there', () => {
    const schedule: LearningRateSchedule = {
      peak: 5,
      warmupSteps: 2,
      decay: { kind: 'cosine', steps: 12, floor: 1 },
    };
    expect(learningRateAt(schedule, 0)).toBe(2.5);
    expect(learningRateAt(schedule, 2)).toBe(5);
    expect(learningRateAt(schedule, 7)).toBeCloseTo(3, 12);
    expect(learningRateAt(schedule, 12)).toBe(1);
    expect(learningRateAt(schedule, 40)).toBe(1);
    const rates = Array.from({ length: 10 }, (_, step) => learningRateAt(schedule, step + 2));
    expect(rates).toEqual(rates.toSorted((a, b) => b - a));
  });
});
