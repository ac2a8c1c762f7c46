import { describe, expect, it } from 'vitest';
import { flawOf } from '#src/engine/admission.js';
import { Random } from '#src/lib/prng.js';
import { NO_LENGTHS, shareLonger, withEnded, type EndedRollout } from '#src/scheduler/lengths.js';
import { nestedKvTokens } from '#src/scheduler/policies/segment-cap-formulas.js';
import { admissionFor, type RuleOptions } from '#src/scheduler/policies/segment-cap-rule.js';
import { segmentCap } from '#src/scheduler/policies/segment-cap.js';
import type { Plan } from '#src/scheduler/plan.js';
import { decide } from '#src/scheduler/scheduler.js';
import type { Snapshot } from '#src/scheduler/state.js';
import { atRest, decided, expectSoundOverRandomWorlds, made } from './policy-worlds.js';
import { added, after, jobSpec, lanesUp, settled, wants } from './world.js';

const policy = made(segmentCap);
const KV = { tokens: 4096, sequenceTokensMax: 600 };
const SEGMENTS: RuleOptions = { rule: 'segments', fill: 1, segmentsMax: 6 };

const ended = (count: number, tokens: number): EndedRollout[] =>
  Array.from({ length: count }, () => ({ promptTokens: 16, tokens }));

/** 50 of 8 tokens, 30 of 64, 20 of 512. */
const LENGTHS = withEnded(NO_LENGTHS, [...ended(50, 8), ...ended(30, 64), ...ended(20, 512)]);

/** A job with a cache whose engine is awake. */
function generating(part = {}): Snapshot {
  const spec = jobSpec('a', { kv: KV, stepRollouts: 8, slotsMax: 64, ...part });
  return atRest(after(lanesUp(1), added(spec), wants('a', 200)), policy);
}

const told = (snapshot: Snapshot, rollouts: readonly EndedRollout[], count = 100): Snapshot =>
  after(snapshot, wants('a', count, count, rollouts));

const ordersOf = ({ admission }: Plan) => admission ?? [];

describe('lengths', () => {
  it('are counted by powers of two', () => {
    expect([2, 3, 5, 6, 8, 9].map((power) => shareLonger(LENGTHS, power))).toEqual([
      1, 0.5, 0.5, 0.2, 0.2, 0,
    ]);
  });

  it('stay bounded, and count less the older they are', () => {
    let lengths = withEnded(NO_LENGTHS, ended(4096, 8));
    for (let step = 0; step < 20; step++) lengths = withEnded(lengths, ended(1024, 64));
    expect(lengths.rollouts).toBeLessThanOrEqual(4096);
    expect(lengths.byTokens.reduce((sum, count) => sum + count, 0)).toBeCloseTo(lengths.rollouts, 6);
    expect(shareLonger(lengths, 4)).toBeGreaterThan(0.98);
  });
});

describe('the rule', () => {
  it('has segments where lengths end, and populations that fill the cache by the formula of Nested WAIT', () => {
    const { kvTokensMax, segments } = admissionFor(KV, LENGTHS, SEGMENTS);
    expect(kvTokensMax).toBe(4096);
    // Everybody passes 4; from 8 to 256 on somebody ends or lives on; of these the last five are kept.
    expect(segments.map(({ fromTokens }) => fromTokens)).toEqual([0, 16, 32, 64, 128, 256]);
  });

  it('asks for no more cache than it may fill, but for caps that are rounded', () => {
    const random = new Random(9);
    for (let draw = 0; draw < 200; draw++) {
      const rollouts = Array.from({ length: 64 }, (_, index) => ({
        promptTokens: 16,
        tokens: index === 0 ? 500 : Math.min(500, Math.ceil(60 * Math.exp(random.normal()))),
      }));
      const fill = 0.5 + 0.5 * random.uniform();
      const kv = { tokens: random.int(20_000, 200_000), sequenceTokensMax: 600 };
      const rule = admissionFor(kv, withEnded(NO_LENGTHS, rollouts), { ...SEGMENTS, fill });
      expect(flawOf(rule), `seed 9, draw ${draw}`).toBeNull();
      const starts = rule.segments.map(({ fromTokens }) => fromTokens);
      const boundaries = [...starts.slice(1), 512];
      const perStage = rule.segments.map(({ sequencesMax }, k) => {
        const stages = k === 0 ? (boundaries[0] ?? NaN) + 1 : (boundaries[k] ?? NaN) - (starts[k] ?? NaN);
        return sequencesMax / stages;
      });
      const kvTokens = nestedKvTokens({ promptTokens: 16, boundaries, sequences: perStage });
      // Half a sequence of each of six segments at most.
      expect(Math.abs(kvTokens - fill * kv.tokens), `seed 9, draw ${draw}`).toBeLessThan(
        6 * 0.5 * (16 + 384),
      );
    }
  });

  it('caps all together as much as the segments do, or nothing', () => {
    const segments = admissionFor(KV, LENGTHS, SEGMENTS).segments;
    const total = segments.reduce((sum, { sequencesMax }) => sum + sequencesMax, 0);
    const global = admissionFor(KV, LENGTHS, { ...SEGMENTS, rule: 'global' });
    expect(global).toEqual({ kvTokensMax: 4096, segments: [{ fromTokens: 0, sequencesMax: total }] });
    expect(admissionFor(KV, LENGTHS, { ...SEGMENTS, rule: 'none' })).toEqual({
      kvTokensMax: 4096,
      segments: [],
    });
  });
});

describe('segmentCap', () => {
  it('keeps what every policy must', () => expectSoundOverRandomWorlds(policy));

  it('gives no rule before a whole step has ended, then one, and another when there is news', () => {
    let snapshot = generating({ stepRollouts: 100 });
    snapshot = told(snapshot, [...ended(50, 8), ...ended(30, 64), ...ended(19, 512)]);
    expect(ordersOf(decided(snapshot, policy).plan)).toEqual([]);
    snapshot = told(snapshot, ended(1, 512), 99);
    const first = decided(snapshot, policy);
    expect(ordersOf(first.plan)).toMatchObject([
      { job: 'a', lane: 0, admission: admissionFor(KV, LENGTHS, { ...SEGMENTS, fill: 0.9 }) },
    ]);
    const next = told(first.next, ended(24, 512));
    const second = decided(next, policy);
    expect(ordersOf(second.plan)).toEqual([]);
    expect(ordersOf(decided(told(second.next, ended(1, 512), 98), policy).plan)).toHaveLength(1);
  });

  it('says nothing to engines whose cache nobody knows', () => {
    const spec = jobSpec('a', { slotsMax: 64, stepRollouts: 8 });
    const snapshot = atRest(after(lanesUp(1), added(spec), wants('a', 200)), policy);
    expect(ordersOf(decided(told(snapshot, ended(100, 64)), policy).plan)).toEqual([]);
  });

  it('plans 100 jobs with rules on 1,000 lanes in under 5 ms', () => {
    const lanes = Array.from({ length: 1000 }, (_, lane) => lane);
    let snapshot = lanesUp(1000, 1e12);
    for (let job = 0; job < 100; job++) {
      const where = { trainerLane: job * 10, engineLanes: lanes };
      const id = `job${job}`;
      const spec = jobSpec(id, { ...where, slotsMax: 8, engineBytes: 1e9, kv: KV });
      snapshot = after(snapshot, added(spec), wants(id, 80, 80, ended(100, 8 + job)));
    }
    for (let plans = 0; plans < 3; plans++) snapshot = settled(decided(snapshot, policy).next);
    const engines = [...snapshot.jobs.values()].flatMap((job) => job.engines);
    expect(engines.filter(({ admission }) => admission !== undefined).length).toBe(1000);
    const news = after(snapshot, wants('job7', 79, 79, ended(100, 300)));
    for (let warmUp = 0; warmUp < 30; warmUp++) decide(news, policy);
    const batches = Array.from({ length: 7 }, () => {
      const start = process.cpuUsage();
      for (let plans = 0; plans < 10; plans++) decide(news, policy);
      const { user, system } = process.cpuUsage(start);
      return (user + system) / 1000 / 10;
    });
    expect(batches.sort((a, b) => a - b)[3]).toBeLessThan(5);
  });
});
