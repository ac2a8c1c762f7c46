import { expect, it } from 'vitest';
import { GenerationFloor } from '#src/lanes/generation-floor.js';

it('owes generation its share of the time others use, spent as it runs', () => {
  const floor = new GenerationFloor(0, 0.2);
  let generationUs = 0;
  let othersUs = 0;
  for (let i = 0; i < 10_000; i++) {
    if (floor.owedUs >= 300) {
      floor.ran('job', 300, i);
      generationUs += 300;
    } else {
      floor.earn(500);
      othersUs += 500;
    }
  }
  expect(generationUs / (generationUs + othersUs)).toBeCloseTo(0.2, 2);
});

it('owes nothing without a floor, and never saves up for one long piece', () => {
  const none = new GenerationFloor(0, 0);
  none.earn(1e9);
  expect(none.owedUs).toBe(0);
  const much = new GenerationFloor(0, 0.5);
  much.earn(1e9);
  expect(much.owedUs).toBeLessThanOrEqual(20_000);
  much.configure(0.1);
  expect(much.owedUs).toBe(0);
});

it('records that generation starved once it has waited for over a second with work to do', () => {
  const floor = new GenerationFloor(3, 0);
  floor.waits(['job'], 100);
  floor.waits(['job'], 900);
  floor.ran('job', 10, 1000);
  expect(floor.take()).toEqual([]);
  floor.waits(['job'], 2000);
  floor.waits(['job'], 2900);
  floor.rests(3500);
  floor.rests(9000);
  expect(floor.take()).toEqual([{ lane: 3, job: 'job', fromMs: 2000, toMs: 3500 }]);
  expect(floor.take()).toEqual([]);
});

it('counts what generation really took, not what was predicted', () => {
  const floor = new GenerationFloor(0, 0.5);
  floor.earn(1000);
  expect(floor.owedUs).toBe(1000);
  floor.ran('job', 400, 0);
  expect(floor.owedUs).toBe(600);
  floor.took(900, 400);
  expect(floor.owedUs).toBe(100);
  floor.took(100, 400);
  expect(floor.owedUs).toBe(400);
});
