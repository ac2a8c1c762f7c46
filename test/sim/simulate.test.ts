import { describe, expect, it } from 'vitest';
import { Random } from '#src/lib/prng.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import { replay } from '#src/sim/replay.js';
import type { SimScenario } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { job, lanes, plainCosts, scenario } from './scenarios.js';

const priority = policyNamed('priority');

const only = ({ jobs }: SimOutcome) => {
  const [first] = jobs;
  if (first === undefined) throw new Error('no job');
  return first;
};

/** A count as a person would make it: five tokens are five steps of 10 ms, training is 100 ms and 1 ms a token. */
describe('one job on one lane', () => {
  it('takes exactly what its parts take', async () => {
    const outcome = await simulate(scenario([job('a')]), priority);
    // 50 ms for 5 steps of both rollouts, then 100 + 2·(3 + 5) ms.
    expect(outcome).toMatchObject({ ended: 'done', makespanMs: 166, violations: 0 });
    expect(only(outcome)).toMatchObject({ startedMs: 0, finishedMs: 166, steps: 1, rollouts: 2 });
    expect(only(outcome).tokens).toEqual({
      decoded: 10,
      trained: 10,
      served: 0,
      filtered: 0,
      expired: 0,
      aborted: 0,
      inFlight: 0,
    });
    expect(outcome.timeline.spans).toEqual([
      { lane: 0, job: 'a', kind: 'generation', fromMs: 0, toMs: expect.closeTo(50, 6) as number },
      { lane: 0, job: 'a', kind: 'actorTraining', fromMs: expect.closeTo(50, 6) as number, toMs: 166 },
    ]);
    expect(outcome.busy.map(({ kind, ms }) => [kind, Math.round(ms)])).toEqual([
      ['init', 0],
      ['generation', 50],
      ['actorTraining', 116],
    ]);
  });

  it('adds up init, waking, reading the prompt, every stage, yielding and publishing', async () => {
    const costs = plainCosts({
      decode: { stepMs: 10, rowMs: 1, prefillRowMs: 0.5, batchRows: 4 },
      init: { ms: 7, msPerUnit: 0.25 },
      wake: { ms: 20, msPerUnit: 0.5 },
      publish: { ms: 3, msPerUnit: 1 },
    });
    const stages = ['oldLogProbs', 'refLogProbs', 'actorTraining'] as const;
    const outcome = await simulate(scenario([job('a', { stages })], { costs }), priority);
    // 4 weight bytes: init 8, wake 22. Prompts of 3 and 3 in batches of 4: the first step reads 3 + 1 rows (12 ms) and
    // samples the first one's first token; the next reads the other 2 beside it (12 ms, its second). Then 3 steps of
    // both (12 ms each), after which the first is done, and one of the second alone (11 ms).
    const generation = 12 + 12 + 3 * 12 + 11;
    expect(outcome.makespanMs).toBeCloseTo(8 + 22 + generation + 50 + 50 + 116 + 7, 6);
    expect(only(outcome).queueWaitMs).toEqual({
      init: [0],
      oldLogProbs: [0],
      refLogProbs: [0],
      actorTraining: [0],
    });
  });

  it('waits for slots: six rollouts on two slots are three rounds', async () => {
    const outcome = await simulate(scenario([job('a', { groupSize: 6, slotsMax: 2 })]), priority);
    expect(outcome.makespanMs).toBeCloseTo(3 * 50 + 100 + 6 * 8, 6);
  });

  it('generates the next step beside training only as far as the staleness bound lets it', async () => {
    const strict = await simulate(scenario([job('a', { steps: 3 })]), priority);
    expect(strict.makespanMs).toBeCloseTo(3 * 166, 6);
    expect(only(strict).staleness).toEqual([6]);
    const costs = plainCosts({ decode: { stepMs: 10, rowMs: 0, prefillRowMs: 0, batchRows: 1000 } });
    const relaxed = await simulate(
      scenario([job('a', { steps: 3, stalenessVersionsMax: 1, engineLanes: [1] })], {
        lanes: lanes(2),
        costs,
      }),
      priority,
    );
    // Two lanes: generation (50 ms for each step's two, 8 slots hold both steps at once) hides behind training (116).
    expect(relaxed.makespanMs).toBeCloseTo(50 + 3 * 116, 6);
    expect(only(relaxed).staleness).toEqual([2, 4]);
  });

  it('gives the slot away while the environment thinks, and keeps the cache', async () => {
    const costs = plainCosts({ decode: { stepMs: 10, rowMs: 0, prefillRowMs: 1, batchRows: 1000 } });
    const turns = { turns: 2, environmentWaitMs: 30, observationTokens: 4, slotsMax: 1 };
    const outcome = await simulate(
      scenario([job('a', { ...turns, completionTokens: 2 })], { costs }),
      priority,
    );
    // First: reads 3 rows and samples (13), samples (10): 23. Second the same in its slot: 46. The first is back at 53:
    // 4 rows (14), 10: 77. The second's environment was done at 76: 77 to 101. Then training: 2·(3 + 4 + 4) tokens.
    expect(outcome.makespanMs).toBeCloseTo(101 + 100 + 22, 6);
    expect(only(outcome).tokensRecomputed).toBe(0);
  });

  it('scores after the reward has been computed', async () => {
    const outcome = await simulate(scenario([job('a', { rewardMs: 40 })]), priority);
    expect(outcome.makespanMs).toBeCloseTo(206, 6);
  });

  it('is slower on a slow lane and with a bigger model, by exactly as much', async () => {
    const slow = { lanes: [{ speed: 0.5, bytesCapacity: 100 }] };
    expect((await simulate(scenario([job('a')], slow), priority)).makespanMs).toBeCloseTo(332, 6);
    expect((await simulate(scenario([job('a', { computeScale: 3 })]), priority)).makespanMs).toBeCloseTo(
      498,
      6,
    );
  });

  it('a job without a trainer delivers', async () => {
    const outcome = await simulate(
      scenario([job('a', { trainerLane: null, stages: [], steps: 2, trainerBytes: 0 })]),
      priority,
    );
    expect(outcome.makespanMs).toBeCloseTo(100, 6);
    expect(only(outcome).tokens).toMatchObject({ decoded: 20, served: 20, trained: 0 });
  });
});

describe('jobs that share', () => {
  it('get time in proportion to their weights, and none while a stage holds their lane', async () => {
    const pair = [
      job('a', { weight: 3, trainerLane: null, stages: [], trainerBytes: 0 }),
      job('b', { weight: 1, trainerLane: null, stages: [], trainerBytes: 0 }),
    ];
    const outcome = await simulate(scenario(pair), priority);
    // a at 3/4 is done after 66.7 ms; b has done a third by then, and needs 33.3 ms more alone.
    expect(outcome.jobs[0]?.finishedMs).toBeCloseTo(200 / 3, 6);
    expect(outcome.jobs[1]?.finishedMs).toBeCloseTo(100, 6);
    const costs = plainCosts({ yieldMs: 2, resumeMs: 5 });
    const server = job('b', {
      trainerLane: null,
      stages: [],
      completionTokens: 40,
      trainerBytes: 0,
      tokenLatencyMs: 50,
    });
    const both = await simulate(scenario([job('a'), server], { costs }), priority);
    // Both start 5 ms after a's init. At half speed a is done at 105 and trains 116, with 2 ms of yielding. b has 5 of 40
    // tokens by then, and goes on 5 ms later, alone.
    expect(both.jobs[0]?.finishedMs).toBeCloseTo(223, 6);
    expect(both.jobs[1]?.finishedMs).toBeCloseTo(223 + 5 + 35 * 10, 6);
    expect(both.yieldMs).toEqual([2]);
    expect(both.jobs[1]?.tokenLatencyMs.p50).toBeCloseTo(10, -1);
    // Two tokens of 80 waited for the stage: less than a hundredth would not show.
    expect(both.jobs[1]?.tokenLatencyMs.p99).toBeGreaterThan(118);
  });
});

describe('engines elsewhere', () => {
  it('pull when they wake and when a version is published; bytes are counted', async () => {
    const costs = plainCosts({ pull: { ms: 6, msPerUnit: 1 } });
    const spec = job('a', { steps: 2, engineLanes: [1] });
    const outcome = await simulate(scenario([spec], { lanes: lanes(2), costs }), priority);
    // Wake and pull 10, step one 50 + 116, in which the idle engine goes to sleep; the same again.
    expect(outcome.makespanMs).toBeCloseTo(10 + 166 + 10 + 166, 6);
    expect(only(outcome)).toMatchObject({ weightBytes: 8, weightBytesBroadcast: 8, staleness: [4] });
    const busy = job('a', {
      steps: 3,
      stalenessVersionsMax: 1,
      completionTokens: 30,
      slotsMax: 2,
      engineLanes: [1],
    });
    const awake = await simulate(scenario([busy], { lanes: lanes(2), costs }), priority);
    // Rounds of 300 ms from 10 on, training of 166 ms beside the next; the first two versions find the engine at work.
    expect(awake.makespanMs).toBeCloseTo(10 + 3 * 300 + 166, 6);
    expect(only(awake)).toMatchObject({ weightBytes: 12, staleness: [2, 4] });
  });
});

describe('what goes wrong', () => {
  it('a lost lane gives its rollouts back from their last token, and takes a stage again', async () => {
    const spec = job('a', { promptTokens: 4, completionTokens: 10 });
    const faults = { losses: [{ lane: 0, atMs: 35, returnMs: 100 }] };
    const outcome = await simulate(scenario([spec], { faults }), priority);
    // 3 whole tokens by 35 ms; back at 135, the first step reads again and samples the fourth: 7 steps.
    expect(outcome.makespanMs).toBeCloseTo(135 + 70 + 100 + 28, 6);
    expect(only(outcome)).toMatchObject({ tokensRecomputed: 14, tokens: { decoded: 20, trained: 20 } });
    const midStage = { losses: [{ lane: 0, atMs: 150, returnMs: 10 }] };
    const again = await simulate(scenario([job('a')], { faults: midStage }), priority);
    expect(again).toMatchObject({ stagesRepeated: 1, lanesLost: 1 });
    expect(again.makespanMs).toBeCloseTo(160 + 116, 6);
  });

  it('a job given up aborts what it has and leaves the lane to others', async () => {
    const outcome = await simulate(
      scenario([job('a', { completionTokens: 100, leavesMs: 55 }), job('b', { arrivesMs: 60 })]),
      priority,
    );
    expect(outcome.jobs[0]).toMatchObject({
      finishedMs: 55,
      isGivenUp: true,
      tokens: { decoded: 10, aborted: 10 },
    });
    expect(outcome.jobs[1]?.finishedMs).toBeCloseTo(60 + 166, 6);
  });

  it('what can never run is called stuck, and a horizon ends anything', async () => {
    const tooBig = await simulate(scenario([job('a', { engineBytes: 1000 })]), priority);
    expect(tooBig).toMatchObject({ ended: 'stuck', makespanMs: null });
    const cut = await simulate(scenario([job('a')]), priority, { horizonMs: 25 });
    expect(cut).toMatchObject({ ended: 'horizon', endedMs: 25 });
    expect(only(cut).tokens).toMatchObject({ decoded: 4, inFlight: 4 });
  });

  it('a policy that breaks an invariant is counted, and the plan before stands', async () => {
    const wild = (snapshot: Parameters<typeof priority>[0]) => {
      const plan = priority(snapshot);
      return snapshot.timeMs < 60
        ? plan
        : { ...plan, grant: [...plan.grant, { request: 99, reason: 'wild' }] };
    };
    const outcome = await simulate(scenario([job('a', { steps: 2 })]), wild, { horizonMs: 1000 });
    expect(outcome.violations).toBeGreaterThan(0);
    expect(outcome.firstViolation).toContain('no request 99 waits');
  });

  it('bad scenarios are refused in one line', () => {
    const refused = (part: Parameters<typeof job>[1]) => () => simulate(scenario([job('a', part)]), priority);
    expect(refused({ groupSize: 0 })).toThrow('job "a": groupSize is 0, must be a whole number from 1');
    expect(refused({ engineLanes: [3] })).toThrow('job "a": no lane 3: there is one lane');
    expect(refused({ stages: ['refLogProbs'] })).toThrow('must hold a training stage');
  });
});

/** Jobs, lanes and faults of every kind, small enough to be done in a moment. */
function randomScenario(seed: number): SimScenario {
  const random = new Random(seed);
  const laneCount = random.int(1, 5);
  const all = Array.from({ length: laneCount }, (_, lane) => lane);
  const jobs = Array.from({ length: random.int(1, 4) }, (_, index) => {
    const trains = random.int(0, 3) > 0;
    const some = all.filter(() => random.int(0, 1) === 0);
    return job(`job${index}`, {
      arrivesMs: random.int(0, 300),
      ...(random.int(0, 5) === 0 ? { leavesMs: random.int(0, 2000) } : {}),
      promptTokens: { kind: 'uniform', low: 1, high: 40 },
      completionTokens: { kind: 'lognormal', median: 12, sigma: 1, max: 60 },
      turns: random.pick([1, 3, [1, 2, 5]]),
      environmentWaitMs: { kind: 'lognormal', median: 40, sigma: 1, max: 1000 },
      observationTokens: random.int(0, 5),
      rewardMs: random.pick([0, 25]),
      filteredShare: random.pick([0, 0.3]),
      computeScale: random.pick([1, 2.5]),
      weight: random.pick([0.5, 1, 4]),
      steps: random.int(1, 4),
      groupsPerStep: random.int(1, 3),
      groupSize: random.int(1, 6),
      stalenessVersionsMax: random.int(0, 2),
      stages: trains
        ? random.pick([['actorTraining'], ['oldLogProbs', 'criticTraining', 'actorTraining']])
        : [],
      slotsMax: random.int(1, 6),
      trainerLane: trains ? random.pick(all) : null,
      engineLanes: some.length > 0 ? some : all,
      engineBytes: random.int(1, 45),
      trainerBytes: trains ? random.int(0, 10) : 0,
      tokenLatencyMs: random.pick([null, 30]),
    });
  });
  const costs = plainCosts({
    decode: { stepMs: 3, rowMs: 0.3, prefillRowMs: 0.1, batchRows: random.int(1, 64) },
    wake: { ms: 15, msPerUnit: 1 },
    sleep: { ms: 2, msPerUnit: 1 },
    pull: { ms: 4, msPerUnit: 1 },
    publish: { ms: 4, msPerUnit: 0 },
    yieldMs: [1, 2, 5],
    resumeMs: 3,
  });
  const faults = {
    laneLoss: {
      perLaneDay: random.pick([0, 86_400]),
      returnMs: { kind: 'uniform', low: 5, high: 200 } as const,
    },
    stragglers: { share: 0.1, factor: 5 },
    slowLanes: { share: 0.3, factor: 0.4 },
  };
  return { seed, lanes: lanes(laneCount), jobs, costs, faults };
}

describe('any scenario', () => {
  it('ends, loses no token, keeps every invariant, and is decided the same again from its events', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = randomScenario(seed);
      const coalesceMs = seed % 3 === 0 ? 20 : 0;
      const options = { coalesceMs, progressMs: seed % 2 === 0 ? 50 : 0, horizonMs: 3_600_000 };
      const outcome = await simulate(random, priority, options);
      const about = `seed ${seed}`;
      expect(outcome.ended, about).toBe('done');
      expect(outcome.firstViolation, about).toBeNull();
      for (const { tokens, isGivenUp, rollouts, id } of outcome.jobs) {
        const { decoded, trained, served, filtered, expired, aborted, inFlight } = tokens;
        expect(decoded, `${about}, ${id}`).toBe(trained + served + filtered + expired + aborted + inFlight);
        expect(inFlight, `${about}, ${id}`).toBe(0);
        const spec = random.jobs.find((own) => own.id === id);
        if (!isGivenUp && spec !== undefined) {
          expect(rollouts, `${about}, ${id}`).toBe(spec.steps * spec.groupsPerStep * spec.groupSize);
          expect(aborted, `${about}, ${id}`).toBe(0);
        }
      }
      expect(outcome.plansDropped, about).toBe(0);
      expect(replay(outcome.plans, priority, random.lanes.length), about).toBeNull();
      for (const lane of random.lanes.keys()) {
        const busyMs = outcome.busy.filter((busy) => busy.lane === lane).reduce((sum, { ms }) => sum + ms, 0);
        expect(busyMs, `${about}, lane ${lane}`).toBeLessThanOrEqual(outcome.endedMs + 1e-6);
      }
    }
  });

  it('comes out the same again, and otherwise with another seed', async () => {
    const once = await simulate(randomScenario(7), priority);
    expect(await simulate(randomScenario(7), priority)).toEqual(once);
    expect((await simulate({ ...randomScenario(7), seed: 8 }, priority)).makespanMs).not.toBe(
      once.makespanMs,
    );
  });

  it('a replay under another policy shows where it parts', async () => {
    const { plans } = await simulate(scenario([job('a')]), priority);
    const lazy = (snapshot: Parameters<typeof priority>[0]) => ({ ...priority(snapshot), grant: [] });
    expect(replay(plans, lazy, 1)?.cycle).toBe(1);
  });
});
