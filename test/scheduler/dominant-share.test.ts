import { describe, expect, it } from 'vitest';
import type { Policy } from '#src/scheduler/plan.js';
import { lanesToClaim, ledgerSchema } from '#src/scheduler/policies/dominant-share-ledger.js';
import { dominantShare } from '#src/scheduler/policies/dominant-share.js';
import type { Snapshot } from '#src/scheduler/state.js';
import { atRest, decided, expectSoundOverRandomWorlds, later, made } from './policy-worlds.js';
import { added, after, asks, awake, jobSpec, lanesUp, lines, settled, wants } from './world.js';

/** A block of 1,000 tokens that unlocks over its second; a claim wants at most 100 of it. */
const WINDOW = { unlock: 'time', window_ms: 1_000, tokens_per_window: 1_000, claim_share_max: 0.1 };
const policy = made(dominantShare, WINDOW);

const linesOf = (snapshot: Snapshot, by: Policy = policy): string[] => lines(decided(snapshot, by).plan);

const sampled = (snapshot: Snapshot, job: string, tokens: number, lane = 0, running = 1): Snapshot =>
  after(snapshot, { kind: 'progress', job, lane, running, version: 0, tokens });

const ledgerOf = (snapshot: Snapshot) => ledgerSchema.parse(snapshot.memory);

/** Jobs that want much on one lane, planned for once. */
function oneLane(ids: readonly string[], by: Policy = policy): Snapshot {
  const jobs = ids.map((id) => added(jobSpec(id, { trainerLane: null })));
  const busy = after(lanesUp(1), ...jobs, ...ids.map((id) => wants(id, 40)));
  return decided(busy, by).next;
}

describe('dominant share', () => {
  it('lets a job generate once its claim is unlocked, and asks to be called just then', () => {
    const start = oneLane(['a']);
    const { plan, next } = decided(start, policy);
    expect(lines(plan)).toEqual([]);
    expect(plan.reviewAtMs).toBe(100);
    expect(linesOf(later(next, 99))).toEqual([]);
    expect(linesOf(later(next, 100))).toEqual(['wake a on 0 with 4 at v0']);
  });

  it('holds a job that has sampled its tokens until more are unlocked', () => {
    const running = atRest(later(oneLane(['a']), 100), policy);
    expect(linesOf(sampled(running, 'a', 99))).toEqual([]);
    const spent = decided(sampled(running, 'a', 100), policy);
    expect(lines(spent.plan)).toEqual(['resize a on 0 to 0']);
    expect(spent.plan.reviewAtMs).toBe(200);
    expect(linesOf(later(spent.next, 100))).toEqual(['resize a on 0 to 4']);
  });

  it('never hands out more of a window than its budget, whatever jobs do with it', () => {
    let snapshot = oneLane(['a', 'b', 'c']);
    let tokens = 0;
    while (snapshot.timeMs < 990) {
      snapshot = atRest(later(snapshot, 10), policy);
      for (const { id, engines } of snapshot.jobs.values()) {
        if ((engines[0]?.slots ?? 0) === 0) continue;
        snapshot = sampled(snapshot, id, 50);
        tokens += 50;
      }
    }
    expect(tokens).toBeGreaterThan(800);
    expect(tokens).toBeLessThanOrEqual(1_000);
  });

  it('serves the smaller claim first, though it came later', () => {
    const both = after(oneLane(['elephant', 'mouse']), wants('mouse', 0));
    const mouse = decided(after(decided(both, policy).next, wants('mouse', 3)), policy).next;
    expect(linesOf(later(mouse, 30))).toEqual(['wake mouse on 0 with 4 at v0']);
    expect(linesOf(later(mouse, 29))).toEqual([]);
  });

  it('claims all lanes that a job needs or none', () => {
    const wide = jobSpec('wide', { trainerLane: null, engineLanes: [0, 1] });
    const other = jobSpec('other', { trainerLane: null, engineLanes: [1] });
    const start = decided(after(lanesUp(2), added(other), added(wide), wants('other', 40)), policy).next;
    const both = decided(after(start, wants('wide', 40)), policy).next;
    // At 100 ms both lanes have unlocked 100: the other has come first and takes lane 1, so lane 0 stays unused too.
    const first = decided(later(both, 100), policy);
    expect(lines(first.plan)).toEqual(['wake other on 1 with 4 at v0']);
    expect(linesOf(later(settled(first.next), 100))).toEqual([
      'wake wide on 0 with 4 at v0',
      'wake wide on 1 with 4 at v0',
    ]);
  });

  it('begins every window anew, those first who waited or got least of the one before', () => {
    let snapshot = atRest(later(oneLane(['a', 'b']), 100), policy);
    expect(ledgerOf(snapshot).dpf).toMatchObject({ granted: [{ id: 'a' }], waiting: [{ id: 'b' }] });
    snapshot = decided(later(snapshot, 900), policy).next;
    expect(ledgerOf(snapshot)).toMatchObject({
      window: 1,
      dpf: { waiting: [{ id: 'b' }, { id: 'a' }], blocks: { 0: { consumed: 0, allocated: 0 } } },
    });
    const both = sampled(atRest(later(snapshot, 200), policy), 'b', 50);
    expect(ledgerOf(both).dpf.granted.map(({ id }) => id)).toEqual(['b', 'a']);
    const third = decided(later(both, 800), policy).next;
    expect(ledgerOf(third).dpf.waiting.map(({ id }) => id)).toEqual(['a', 'b']);
  });

  it('gives back what a job does not want any more', () => {
    const running = sampled(atRest(later(oneLane(['a']), 100), policy), 'a', 30);
    const done = decided(after(running, wants('a', 0)), policy);
    expect(lines(done.plan)).toEqual(['sleep a on 0']);
    expect(ledgerOf(done.next).dpf.blocks['0']).toMatchObject({ allocated: 0, consumed: 30, unlocked: 100 });
    expect(done.plan.reviewAtMs).toBeUndefined();
  });

  it('unlocks a fair share with every arrival under DPF-N, and serves the first N at once', () => {
    const byArrivals = made(dominantShare, { ...WINDOW, unlock: 'arrivals', fair_shares: 2 });
    const jobs = ['a', 'b', 'c'].map((id) => added(jobSpec(id, { trainerLane: null })));
    const start = after(lanesUp(1), ...jobs, wants('a', 400), wants('b', 400), wants('c', 400));
    const { plan, next } = decided(start, byArrivals);
    expect(lines(plan)).toEqual(['wake a on 0 with 4 at v0', 'wake b on 0 with 4 at v0']);
    expect(linesOf(later(settled(next), 999), byArrivals)).toEqual([]);
    expect(linesOf(later(settled(next), 1_000), byArrivals)).toEqual([
      'resize b on 0 to 0',
      'wake c on 0 with 4 at v0',
    ]);
  });

  it('takes the lanes that hold sequences, then those awake, then those with most budget left', () => {
    const spec = jobSpec('a', { trainerLane: null, engineLanes: [0, 1, 2, 3] });
    let snapshot = after(lanesUp(4), added(spec), wants('a', 12));
    snapshot = awake(awake(snapshot, 'a', 1), 'a', 3, 2);
    const job = snapshot.jobs.get('a');
    if (job === undefined) throw new Error('no job');
    expect(lanesToClaim(job, [0, 1, 2, 3], (lane) => lane)).toEqual([1, 2, 3]);
    expect(lanesToClaim({ ...job, demand: { ...job.demand, runnable: 4 } }, [0, 1, 2, 3], () => 0)).toEqual([
      3,
    ]);
    expect(lanesToClaim({ ...job, demand: { ...job.demand, runnable: 17 } }, [0, 2], () => 0)).toEqual([
      0, 2,
    ]);
  });

  it('lets engines take turns where memory holds only one: the older grant has it', () => {
    const part = { trainerLane: null, engineBytes: 60 };
    const jobs = after(lanesUp(1, 100), added(jobSpec('a', part)), added(jobSpec('b', part)));
    const start = decided(after(jobs, wants('a', 40), wants('b', 40)), policy).next;
    const first = atRest(later(start, 200), policy);
    expect(first.jobs.get('a')?.engines).toHaveLength(1);
    expect(first.jobs.get('b')?.engines).toHaveLength(0);
    const swap = decided(sampled(first, 'a', 100), policy);
    expect(lines(swap.plan)).toEqual(['sleep a on 0']);
    expect(linesOf(settled(swap.next))).toEqual(['wake b on 0 with 4 at v0']);
  });

  it('ends claims on lanes that are lost or reserved, and those of finished jobs', () => {
    const running = atRest(later(oneLane(['a']), 100), policy);
    const lost = decided(after(running, { kind: 'laneLost', lane: 0, reason: 'test' }), policy).next;
    expect(ledgerOf(lost).dpf).toMatchObject({ granted: [], waiting: [] });
    expect(linesOf(after(running, { kind: 'laneReserved', lane: 0 }))).toEqual(['sleep a on 0']);
    expect(linesOf(after(running, { kind: 'jobFinished', job: 'a' }))).toEqual(['sleep a on 0']);
  });

  it('grants stages whatever the quotas are', () => {
    expect(linesOf(after(oneLane(['a']), asks('a', 'actorTraining', [0])))).toEqual(['grant 1']);
  });

  it.each(['time', 'arrivals'])('is sound over random worlds: unlock = %s', (unlock) => {
    expectSoundOverRandomWorlds(made(dominantShare, { ...WINDOW, unlock }));
  });
});
