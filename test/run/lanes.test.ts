import { beforeAll, describe, expect, test } from 'vitest';
import { type RunFiles, tokensOf, type TraceEvent } from './run-folders.js';
import { smallRun } from './runs.js';

const VERSION_BYTES = 112_064 * 4;
const STEPS = 9;
const ROLLOUTS = STEPS * 16;
/** Lane 1 is out of use from the start of step 2 to the start of step 5: two reservations that overlap. */
const RESERVED = { from: 2, until: 5 };

/**
 * Rollouts of four steps at once, and hardly a slot for them: every lane in use is busy. With two rows to a batch,
 * prompts are read one after the other, so that rollouts of a lane do not end together.
 */
const CROWDED = [
  'algorithm.staleness_versions_max=3',
  'engine.slots=2',
  'engine.batch_tokens=2',
  'engine.steps_ahead=1',
];

let run: RunFiles;
let pulls: TraceEvent[];
let awake: { from: number; to: number }[];
beforeAll(async () => {
  run = await smallRun([
    ...CROWDED,
    `steps=${STEPS}`,
    'lanes.count=2',
    'scheduler.reserve=[{lane=1, from_step=2, until_step=4}, {lane=1, from_step=3, until_step=5}]',
  ]);
  pulls = run.track('lane 1', 'weights');
  awake = run.track('lane 1', 'engine awake').map(({ ts = NaN, dur = NaN }) => ({ from: ts, to: ts + dur }));
});

/** When the step began, in µs of the trace. */
function startOf(step: number): number {
  return (run.metrics[step - 2]?.time_s ?? NaN) * 1e6;
}

/** The newest version when the step began. */
function versionAt(step: number): number {
  return run.metrics[step - 2]?.['weights/version'] ?? NaN;
}

describe('a lane out of use', () => {
  test('is asleep just then', () => {
    const before = awake.filter(({ from }) => from < startOf(RESERVED.from));
    expect(before.length).toBeGreaterThan(0);
    // What is in flight is waited for: less than a step.
    for (const { to } of before) expect(to).toBeLessThan(startOf(RESERVED.from + 1));
    const asleepFrom = Math.max(...before.map(({ to }) => to));
    const after = awake.filter(({ from }) => from >= startOf(RESERVED.from));
    expect(after.length).toBeGreaterThan(0);
    for (const { from } of after) expect(from).toBeGreaterThan(startOf(RESERVED.until));
    const slices = run.track('lane 1', 'engine').map(({ ts = NaN }) => ts);
    expect(slices.some((ts) => ts < asleepFrom)).toBe(true);
    expect(slices.filter((ts) => ts > asleepFrom && ts < startOf(RESERVED.until))).toEqual([]);
  });

  test('gets the newest version on waking, and none of those between', () => {
    expect(versionAt(RESERVED.until)).toBeGreaterThan(versionAt(RESERVED.from) + 1);
    const versions = pulls.map(({ args }) => Number(args?.['version']));
    expect(versions).toEqual([...versions].sort((a, b) => a - b));
    const missed = versions.filter(
      (version) => version > versionAt(RESERVED.from) && version < versionAt(RESERVED.until),
    );
    expect(missed).toEqual([]);
    const first = pulls.findIndex(({ ts = NaN }) => ts > startOf(RESERVED.until));
    expect(versions[first]).toBeGreaterThanOrEqual(versionAt(RESERVED.until));
    expect(versions[0]).toBe(0);
  });
});

describe('bytes', () => {
  test('sent are those of the pulls', () => {
    for (const { name, args } of pulls) {
      expect(name).toMatch(/^pull v\d$/);
      expect(args?.['bytes']).toBe(VERSION_BYTES);
    }
    expect(run.summary.weights.bytes_sent).toBe(pulls.length * VERSION_BYTES);
    expect(run.metrics.at(-1)?.['weights/bytes_sent']).toBe(run.summary.weights.bytes_sent);
  });

  test('of a broadcast are those of every version to both lanes', () => {
    const { publishes, bytes_broadcast } = run.summary.weights;
    expect(publishes).toBe((run.metrics.at(-1)?.['weights/version'] ?? NaN) + 1);
    expect(bytes_broadcast).toBe(publishes * 2 * VERSION_BYTES);
  });

  test('do not move for the engine beside the trainer', () => {
    const kinds = run
      .track('lane 0', 'weights')
      .map(({ name, args }) => [name.split(' ')[0], args?.['bytes']]);
    for (const [kind, bytes] of kinds) expect(bytes).toBe(kind === 'flip' ? 0 : VERSION_BYTES);
  });
});

describe('rollouts on a lane that falls asleep', () => {
  test('go on elsewhere and end, each once', () => {
    const { rollouts } = run;
    expect(rollouts).toHaveLength(ROLLOUTS);
    expect(new Set(rollouts.map(({ id }) => id)).size).toBe(ROLLOUTS);
    const moved = rollouts.filter(({ lanes }) => lanes.length > 1);
    expect(moved.length).toBeGreaterThan(0);
    expect(moved.map(({ lanes }) => lanes)).toContainEqual([1, 0]);
    for (const { token_ids, finish_reason, weight_versions } of rollouts) {
      expect(finish_reason).not.toBeNull();
      expect(token_ids.length).toBeGreaterThan(0);
      const versions = weight_versions.map(({ version }) => version);
      expect(versions).toEqual([...versions].sort((a, b) => a - b));
    }
  });

  test('lose no token', () => {
    const { tokens } = run.summary;
    expect(tokens.decoded).toBe(tokensOf(run.rollouts));
    expect(tokens.decoded).toBe(tokens.trained + tokens.aborted + tokens.expired + tokens.filtered);
    expect(run.metrics.at(-1)?.['tokens/decoded']).toBe(tokens.decoded);
  });
});
