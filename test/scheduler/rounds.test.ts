import { describe, expect, it } from 'vitest';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { check } from '#src/scheduler/check.js';
import { commit, EMPTY_PLAN, isIdle, type Plan, type RoundOrder } from '#src/scheduler/plan.js';
import { planChanges } from '#src/scheduler/plan-words.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { isSameRule, nextRound, Round, type RoundRule, type Taken } from '#src/scheduler/rounds.js';
import { decide } from '#src/scheduler/scheduler.js';
import type { Snapshot } from '#src/scheduler/state.js';
import { added, after, jobSpec, lanesUp } from './world.js';

const STEP = { prompts: 4, samples: 2 };
const SHORT: RoundRule = { prompts: 5, samples: 3, isLongDue: false };

function round(prompts: number, samples: number, step = STEP): Round<number, string> {
  const all = Array.from({ length: prompts }, (_, prompt) => ({
    prompt,
    samples: Array.from({ length: samples }, (__, sample) => `${prompt}.${sample}`),
  }));
  return new Round('short', step, all);
}

describe('the next round', () => {
  it.each([
    [null, 0, { kind: 'plain', deferred: 0, fresh: 4, samples: 2 }],
    [null, 3, { kind: 'plain', deferred: 3, fresh: 1, samples: 2 }],
    [null, 9, { kind: 'plain', deferred: 4, fresh: 0, samples: 2 }],
    [SHORT, 9, { kind: 'short', deferred: 0, fresh: 5, samples: 3 }],
    [{ ...SHORT, isLongDue: true }, 4, { kind: 'long', deferred: 4, fresh: 0, samples: 2 }],
    // It was due when the plan was made; the round before it has taken some since.
    [{ ...SHORT, isLongDue: true }, 3, { kind: 'short', deferred: 0, fresh: 5, samples: 3 }],
  ])('under %j with %i deferred', (rule, deferred, start) => {
    expect(nextRound(rule, STEP, deferred)).toEqual(start);
  });
});

describe('a round', () => {
  it('takes the first samples of a prompt, and the first prompts; the others are not needed', () => {
    const short = round(3, 3, { prompts: 2, samples: 2 });
    expect(short.ended('2.1')).toEqual([]);
    expect(short.ended('0.2')).toEqual([]);
    expect(short.ended('0.0')).toEqual(['0.1']);
    expect(short.isDecided).toBe(false);
    expect(short.deferred).toEqual([]);
    expect(short.ended('1.1')).toEqual([]);
    expect(short.ended('1.0')).toEqual(['1.2', '2.0', '2.1', '2.2']);
    expect(short.isDecided).toBe(true);
    expect(short.taken).toEqual([
      { prompt: 0, samples: ['0.0', '0.2'] },
      { prompt: 1, samples: ['1.0', '1.1'] },
    ]);
    expect(short.deferred).toEqual([2]);
    expect(() => short.ended('2.1')).toThrow('nobody waits for');
  });

  it('with nothing to spare takes everything', () => {
    const whole = round(4, 2);
    for (const id of ['3.0', '0.1', '2.0', '1.0', '1.1', '3.1', '0.0', '2.1'])
      expect(whole.ended(id)).toEqual([]);
    expect(whole.taken.flatMap(({ samples }) => samples)).toHaveLength(8);
    expect(whole.deferred).toEqual([]);
  });

  it('refuses less than its step takes, and a sample that ends twice', () => {
    expect(() => round(3, 2)).toThrow('a round of 3 prompts for 4');
    expect(() => round(4, 1)).toThrow('1 samples of a prompt for 2');
    const whole = round(4, 2);
    whole.ended('0.0');
    expect(() => whole.ended('0.0')).toThrow('ended twice');
  });

  it('over whole cycles trains every prompt of the source once, whatever ends first', () => {
    for (let seed = 0; seed < 100; seed++) {
      const random = new Random(seed).fork('cycles');
      const step = { prompts: random.int(1, 8), samples: random.int(1, 4) };
      const spare = { prompts: step.prompts + random.int(1, step.prompts), samples: random.int(0, 2) };
      const rule = { prompts: spare.prompts, samples: step.samples + spare.samples };
      const { trained, deferred, fresh } = cycles(random, step, rule);
      const seen = [...trained, ...deferred].sort((a, b) => a - b);
      expect(seen, `seed ${seed}`).toEqual(Array.from({ length: fresh }, (_, prompt) => prompt));
    }
  });
});

/** 30 rounds by the rule, a long one as soon as one is due; samples end in any order. */
function cycles(random: Random, step: typeof STEP, { prompts, samples }: typeof STEP) {
  const trained: number[] = [];
  const deferred: number[] = [];
  let fresh = 0;
  for (let rounds = 0; rounds < 30; rounds++) {
    const isLongDue = deferred.length >= step.prompts;
    const start = nextRound({ prompts, samples, isLongDue }, step, deferred.length);
    const chosen = deferred.splice(0, start.deferred);
    for (let i = 0; i < start.fresh; i++) chosen.push(fresh++);
    const all: Taken<number, { id: number }>[] = chosen.map((prompt) => ({
      prompt,
      samples: Array.from({ length: start.samples }, (_, id) => ({ id })),
    }));
    const open = new Set(all.flatMap((each) => each.samples));
    const under = new Round(start.kind, step, all);
    while (!under.isDecided) {
      const sample = random.pick([...open]);
      open.delete(sample);
      for (const gone of under.ended(sample)) open.delete(gone);
    }
    expect(open.size).toBe(0);
    expect(under.taken.map((each) => each.samples.length)).toEqual(
      Array.from({ length: step.prompts }, () => step.samples),
    );
    trained.push(...under.taken.map(({ prompt }) => prompt));
    deferred.push(...under.deferred);
  }
  return { trained, deferred, fresh };
}

const TRAINS = jobSpec('a', { stepRollouts: 8, step: STEP });

function world(deferredPrompts = 0): Snapshot {
  const demand = { rollouts: 8, runnable: 8, tokensRemaining: 80, deferredPrompts };
  const serves = jobSpec('b', { trainerLane: null, stepRollouts: 0 });
  return after(lanesUp(1), added(TRAINS), added(serves), { kind: 'demandChanged', job: 'a', demand });
}

const told = (...orders: Omit<RoundOrder, 'reason'>[]): Plan => ({
  ...EMPTY_PLAN,
  rounds: orders.map((order) => ({ ...order, reason: 'test' })),
});

describe('an order about rounds', () => {
  it.each<[string, Plan, number]>([
    ['there is no such job', told({ job: 'nobody', rounds: null }), 0],
    ['it is told twice', told({ job: 'a', rounds: SHORT }, { job: 'a', rounds: null }), 0],
    ['nobody knows its steps', told({ job: 'b', rounds: SHORT }), 0],
    ['fewer prompts than a step takes', told({ job: 'a', rounds: { ...SHORT, prompts: 3 } }), 0],
    ['half a prompt', told({ job: 'a', rounds: { ...SHORT, prompts: 4.5 } }), 0],
    ['no number of samples', told({ job: 'a', rounds: { ...SHORT, samples: NaN } }), 0],
    ['more than four times a step', told({ job: 'a', rounds: { ...SHORT, samples: 9 } }), 0],
    ['too few deferred', told({ job: 'a', rounds: { ...SHORT, isLongDue: true } }), 3],
  ])('breaks invariant 17: %s', (_, plan, deferred) => {
    expect(check(world(deferred), plan).map(({ invariant }) => invariant)).toEqual([17]);
  });

  it('is in force from then on, and is a change in words', () => {
    const plan = told({ job: 'a', rounds: { ...SHORT, isLongDue: true } });
    const snapshot = world(4);
    expect(check(snapshot, plan)).toEqual([]);
    expect(isIdle(plan)).toBe(false);
    expect(commit(snapshot, plan).jobs.get('a')?.rounds).toEqual({ ...SHORT, isLongDue: true });
    expect(planChanges(plan)).toEqual(['a has a long round next, then short ones of 5 prompts by 3: test']);
  });
});

describe('tailBatch', () => {
  it('has short rounds until a whole step is deferred, then a long one, and says so once', () => {
    const policy = policyNamed('tailBatch');
    let snapshot = world();
    const rules: (RoundRule | null | undefined)[] = [];
    for (const deferredPrompts of [0, 1, 3, 4, 4, 0, 1]) {
      const demand = { rollouts: 8, runnable: 8, tokensRemaining: 80, deferredPrompts };
      snapshot = after(snapshot, { kind: 'demandChanged', job: 'a', demand });
      const { plan, violations, next } = decide(snapshot, policy);
      expect(violations).toEqual([]);
      expect((plan.rounds ?? []).map(({ job }) => job).filter((job) => job !== 'a')).toEqual([]);
      rules.push(plan.rounds === undefined ? undefined : at(plan.rounds, 0).rounds);
      snapshot = next;
    }
    const long = { ...SHORT, isLongDue: true };
    expect(rules).toEqual([SHORT, undefined, undefined, long, undefined, SHORT, undefined]);
  });

  it('starts as many more as its options say', () => {
    const ruleOf = (options: Record<string, number>, step: typeof STEP): RoundRule | null | undefined => {
      const job = jobSpec('a', { stepRollouts: step.prompts * step.samples, step });
      return decide(after(lanesUp(1), added(job)), policyNamed('tailBatch', options)).plan.rounds?.[0]
        ?.rounds;
    };
    const rule = { isLongDue: false };
    // A tenth of ten is one, though 10 × 1.1 is a little more than 11.
    expect(ruleOf({ prompts_spare: 0.1, samples_spare: 0 }, { prompts: 10, samples: 3 })).toEqual({
      ...rule,
      prompts: 11,
      samples: 3,
    });
    const most = ruleOf({ prompts_spare: 3, samples_spare: 3 }, STEP);
    expect(isSameRule(most ?? null, { ...rule, prompts: 16, samples: 8 })).toBe(true);
  });
});
