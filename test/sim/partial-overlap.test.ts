import { describe, expect, it } from 'vitest';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import type { SimJobSpec } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { job, lanes, scenario } from './scenarios.js';

const STEPS = 6;
const GROUP = 12;
const SLOTS = 4;
const LENGTH = { kind: 'uniform', low: 10, high: 60 } as const;

/** Twelve rollouts a step; generation may run one version ahead, unless the test says otherwise. */
function run(
  laneCount: number,
  part: Partial<SimJobSpec> = {},
  options: Record<string, unknown> = {},
): Promise<SimOutcome> {
  const engineLanes = Array.from({ length: laneCount }, (_, lane) => lane);
  const work = { steps: STEPS, groupSize: GROUP, completionTokens: LENGTH, slotsMax: SLOTS };
  const spec = job('a', { ...work, engineLanes, stalenessVersionsMax: 1, ...part });
  return simulate(scenario([spec], { lanes: lanes(laneCount) }), policyNamed('partialOverlap', options));
}

/** Time that a lane generates while the job trains, in ms. */
function besideTrainingMs({ timeline: { spans } }: SimOutcome, lane: number): number {
  const training = spans.filter(({ kind }) => kind === 'actorTraining');
  let ms = 0;
  for (const span of spans) {
    if (span.lane !== lane || span.kind !== 'generation') continue;
    for (const { fromMs, toMs } of training) {
      ms += Math.max(0, Math.min(toMs, span.toMs) - Math.max(fromMs, span.fromMs));
    }
  }
  return ms;
}

const only = ({ jobs }: SimOutcome) => {
  const [first] = jobs;
  if (first === undefined) throw new Error('no job');
  return first;
};

describe.each(['sleep', 'hold'])('three lanes, training on the first, give_way = %s', (give_way) => {
  it('generation goes on where the stage is not, and only there', async () => {
    const outcome = await run(3, {}, { give_way });
    expect(outcome).toMatchObject({ ended: 'done', violations: 0 });
    expect(besideTrainingMs(outcome, 0)).toBe(0);
    const trainingMs = outcome.busy.find(({ kind }) => kind === 'actorTraining')?.ms ?? NaN;
    for (const lane of [1, 2]) expect(besideTrainingMs(outcome, lane)).toBeGreaterThan(trainingMs / 2);
  });

  it('ends in two thirds of the time of strict alternation, with the very same tokens', async () => {
    const overlapping = await run(3, {}, { give_way });
    const strict = await run(3, { stalenessVersionsMax: 0 }, { give_way });
    for (const lane of [0, 1, 2]) expect(besideTrainingMs(strict, lane)).toBe(0);
    expect(overlapping.makespanMs).toBeLessThan((strict.makespanMs ?? NaN) * 0.68);
    // ROLL aborts a turn that it moves: its tokens would be sampled again, and these counts would differ.
    const { tokens } = only(overlapping);
    expect(tokens).toEqual(only(strict).tokens);
    expect(tokens.decoded).toBe(tokens.trained);
  });

  it('disturbs no sequence on the other lanes: only what left the first is read again', async () => {
    const { jobs, plans } = await run(3, {}, { give_way });
    const elsewhere = plans.flatMap(({ plan }) => plan.sleep.filter(({ lane }) => lane !== 0));
    expect(new Set(elsewhere.map(({ reason }) => reason))).toEqual(new Set(['nothing is left to generate']));
    const moved = plans.flatMap(({ plan }) => plan.sleep.filter(({ lane }) => lane === 0));
    expect(moved.length).toBeGreaterThan(0);
    const contextMax = 3 + LENGTH.high;
    for (const { tokensRecomputed } of jobs) {
      expect(tokensRecomputed).toBeGreaterThan(0);
      expect(tokensRecomputed).toBeLessThan(moved.length * SLOTS * contextMax);
    }
  });
});

describe('one lane', () => {
  it('is strict alternation: nothing beside training, nothing read again, however far it might run ahead', async () => {
    const ahead = await run(1);
    expect(ahead).toMatchObject({ ended: 'done', violations: 0 });
    expect(besideTrainingMs(ahead, 0)).toBe(0);
    expect(only(ahead).tokensRecomputed).toBe(0);
    const strict = await run(1, { stalenessVersionsMax: 0 });
    expect(only(ahead).tokens).toEqual(only(strict).tokens);
  });
});
