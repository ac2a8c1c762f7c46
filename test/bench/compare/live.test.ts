import { describe, expect, test } from 'vitest';
import { scenarioOf } from '#src/bench/compare/contest.js';
import { LiveRunner, measuredOf, type LiveJobOutcome, type LiveOutcome } from '#src/bench/compare/live.js';
import type { SliceRecord, StageRecord } from '#src/telemetry/records.js';
import { preemptionSummary } from '#src/telemetry/preemption-summary.js';
import { RunRecords } from '#src/telemetry/run-records.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import { laneRecords, preemptionRecord } from '../../telemetry/synthetic.js';
import { scenario } from './fixtures.js';

/** Runs do not begin at 0 on lib/clock. */
const START_MS = 5000;
const BUDGETS = { slice_budget_us: 1, in_flight_budget_us: 1, largest_dispatch_us: 1 };
const NO_PREEMPTION = preemptionSummary(new RunRecords({ startMs: 0 }), BUDGETS);
const ADAPTER = { vendor: 'mesa', architecture: '', description: 'llvmpipe', software: true };

function slice(changes: Partial<SliceRecord>): SliceRecord {
  const times = { submittedMs: START_MS, startedMs: START_MS, finishedMs: START_MS + 10 };
  return { lane: 0, job: 'a', resident: 'engine', ...times, predictedUs: 1, dispatches: 2, ...changes };
}

function stage(job: string, name: string, waitMs: number | null): StageRecord {
  const requestedMs = START_MS + 7;
  const grantedMs = waitMs === null ? null : requestedMs + waitMs;
  return { job, stage: name, requestedMs, grantedMs, releasedMs: null };
}

function records(): RunRecords {
  const run = new RunRecords({ startMs: START_MS });
  run.addLane(0, 'llvmpipe');
  run.addLane(1, 'llvmpipe');
  const requestedMs = START_MS + 100;
  const yields = [
    ['a', 2],
    ['b', 3],
    ['a', 4],
  ] as const;
  run.add(
    laneRecords({
      slices: [
        slice({}),
        slice({ startedMs: START_MS + 30, finishedMs: START_MS + 45 }),
        slice({ resident: 'trainer', startedMs: START_MS + 50, finishedMs: START_MS + 90 }),
        slice({ lane: 1, job: 'b', finishedMs: START_MS + 60 }),
      ],
      preemptions: yields.map(([job, ms]) =>
        preemptionRecord({ job, asker: job, requestedMs, yieldedMs: requestedMs + ms }),
      ),
      slicesDropped: 3,
    }),
  );
  for (const each of [
    stage('a', 'init', 0),
    stage('a', 'actorTraining', 5),
    stage('b', 'actorTraining', 8),
  ]) {
    run.stages.push(each);
  }
  run.stages.push(stage('a', 'actorTraining', null));
  return run;
}

function jobOutcome(changes: Partial<LiveJobOutcome> = {}): LiveJobOutcome {
  return {
    id: 'a',
    arrivedMs: START_MS + 10,
    finishedMs: START_MS + 1010,
    summary: {
      adapter: ADAPTER,
      tokens: { decoded: 100, trained: 60, aborted: 5, expired: 10, filtered: 20, in_flight: 5 },
      weights: { publishes: 2, bytes_sent: 400, bytes_broadcast: 800, seconds: 1 },
      preemption: { ...NO_PREEMPTION, tokens_recomputed: 15 },
    },
    stalenessTokens: new Map([
      [2, 20],
      [0, 40],
    ]),
    tokenLatencyMs: { p99: 7 },
    ...changes,
  };
}

function outcome(changes: Partial<LiveOutcome> = {}): LiveOutcome {
  const second = jobOutcome({ id: 'b', arrivedMs: START_MS + 510, finishedMs: START_MS + 2010 });
  return { records: records(), endMs: START_MS + 2500, jobs: [jobOutcome(), second], ...changes };
}

describe('a live run', () => {
  const run = measuredOf(outcome());

  test('is counted from its beginning, its makespan from the first coming to the last end', () => {
    expect(run).toMatchObject({ endMs: 2500, makespanMs: 2000, lanes: 2, violations: null });
    expect(run.jobs.map(({ arrivedMs, finishedMs }) => [arrivedMs, finishedMs])).toEqual([
      [10, 1010],
      [510, 2010],
    ]);
  });

  test('has the tokens, bytes and ages of each job', () => {
    expect(run.jobs[0]).toMatchObject({
      tokensDecoded: 100,
      tokensTrained: 60,
      tokensWasted: { aborted: 5, expired: 10, filtered: 20, recomputed: 15 },
      tokenP99Ms: 7,
      weightBytes: 400,
      staleness: [40, 0, 20],
    });
    expect(run.stalenessUnit).toBe('tokens');
  });

  test('has the waits and yields of each job; a stage that never got its lane has no wait', () => {
    expect(run.jobs.map(({ queueWaitMs }) => queueWaitMs)).toEqual([
      { init: [0], actorTraining: [5] },
      { actorTraining: [8] },
    ]);
    expect(run.jobs.map(({ yieldMs }) => yieldMs)).toEqual([[2, 4], [3]]);
    expect(run.yieldMs).toEqual([2, 3, 4]);
  });

  test('has the device time of each resident, and its slices in the picture', () => {
    expect(run.busy).toEqual([
      { lane: 0, job: 'a', kind: 'training', ms: 40 },
      { lane: 0, job: 'a', kind: 'generation', ms: 25 },
      { lane: 1, job: 'b', kind: 'generation', ms: 60 },
    ]);
    expect(run.timeline.dropped).toBe(3);
    expect(run.timeline.spans).toContainEqual({
      lane: 0,
      job: 'a',
      kind: 'training',
      fromMs: 50,
      toMs: 90,
      busy: 1,
    });
    expect(run.timeline.spans).toHaveLength(4);
  });

  test('joins slices that are too many to draw, and loses no busy time', () => {
    const many = new RunRecords({ startMs: 0 });
    const slices = Array.from({ length: 20_000 }, (_, index) =>
      slice({ startedMs: 2 * index, finishedMs: 2 * index + 1 }),
    );
    many.add(laneRecords({ slices }));
    const { spans } = measuredOf({ records: many, endMs: 40_000, jobs: [] }).timeline;
    expect(spans.length).toBeLessThanOrEqual(2000);
    const busyMs = spans.reduce((sum, { fromMs, toMs, busy }) => sum + busy * (toMs - fromMs), 0);
    expect(busyMs).toBeCloseTo(20_000, 3);
  });

  test('of which a job did not end has no makespan', () => {
    const open = measuredOf(outcome({ jobs: [jobOutcome(), jobOutcome({ id: 'b', finishedMs: null })] }));
    expect(open.makespanMs).toBeNull();
    expect(open.jobs[1]?.finishedMs).toBeNull();
    expect(measuredOf({ ...outcome(), records: new RunRecords({ startMs: 0 }) }).busy).toBeNull();
  });
});

test('a live runner hands over the scenario, a policy made anew and the signal, and tells the adapter', async () => {
  const asked: unknown[] = [];
  const runner = new LiveRunner(
    (name) => policyNamed(name),
    (given, { policy, order, interrupted }) => {
      asked.push([given, policy.name, order, interrupted]);
      return Promise.resolve(outcome());
    },
  );
  const order = { repeat: 1, policy: 'fifo', solo: null };
  const given = scenarioOf(scenario(), order);
  const { signal } = new AbortController();
  const run = await runner.measure(given, order, signal);
  expect(asked).toEqual([[given, 'fifo', order, signal]]);
  expect(run.makespanMs).toBe(2000);
  expect(runner.machine).toEqual(ADAPTER);
});
