import { beforeAll, describe, expect, it } from 'vitest';
import type { FaultKind, FaultMoment, LaneFault } from '#src/lanes/faults.js';
import { at } from '#src/lib/assert.js';
import { Random } from '#src/lib/prng.js';
import { shuffled } from '../helpers/arrays.js';
import { seeds } from '../helpers/seeds.js';
import { type RolloutLine, type RunFiles, tokensOf } from './run-folders.js';
import { type RunFaults, smallRun } from './runs.js';

const STEPS = 5;
const ROLLOUTS = STEPS * 16;
/** Few slots, so that both lanes are busy for a while; without staleness a rollout depends on its step alone. */
const LOAD = [
  `steps=${STEPS}`,
  'lanes.count=2',
  'engine.slots=4',
  'algorithm.staleness_versions_max=0',
  'lanes.rebuilds_max=20',
];
/** Everything that a lane's loss can interrupt: two scores, two updates, a reference to be kept. */
const THOROUGH = [
  'algorithm.kl_coefficient=0.05',
  'algorithm.old_log_probs=recomputed',
  'algorithm.updates_per_step=2',
];

/** By lane, then by epoch: what goes wrong in it. */
type Script = readonly (readonly LaneFault[])[];
const faultsOf =
  (script: readonly Script[]): RunFaults =>
  (lane, epoch) =>
    script[lane]?.[epoch] ?? [];

function fault(random: Random, moment: FaultMoment, kind: FaultKind): LaneFault[] {
  const most = { beforeSubmit: 60, afterSubmit: 60, beforeCommit: 12, beforeAnswer: 1, midPublish: 1 };
  return [{ at: moment, after: random.int(0, most[moment]), do: kind }];
}

/** A rollout as it must be, wherever it was generated. */
const withoutLanes = (rollouts: readonly RolloutLine[]): object[] =>
  [...rollouts].sort((a, b) => a.id - b.id).map(({ lanes: _, ...rollout }) => rollout);

function expectWhole(run: RunFiles, label: string): void {
  const { summary, rollouts, metrics } = run;
  expect(summary.steps, label).toBe(STEPS);
  expect(metrics, label).toHaveLength(STEPS);
  expect(new Set(rollouts.map(({ id }) => id)).size, label).toBe(ROLLOUTS);
  expect(rollouts, label).toHaveLength(ROLLOUTS);
  const { decoded, trained, aborted, expired, filtered, in_flight } = summary.tokens;
  expect(decoded, label).toBe(tokensOf(rollouts));
  expect(trained, label).toBe(tokensOf(rollouts, 'trained'));
  expect(decoded, label).toBe(trained + aborted + expired + filtered);
  expect(in_flight, label).toBe(0);
}

function expectSame(run: RunFiles, undisturbed: RunFiles, label: string): void {
  expectWhole(run, label);
  expect(withoutLanes(run.rollouts), label).toEqual(withoutLanes(undisturbed.rollouts));
  const weights = 'model.safetensors';
  expect(run.model(weights).equals(undisturbed.model(weights)), `${label}: weights`).toBe(true);
}

describe('a run whose lanes die again and again', () => {
  let undisturbed: RunFiles;
  beforeAll(async () => {
    undisturbed = await smallRun(LOAD);
    expectWhole(undisturbed, 'undisturbed');
    expect(undisturbed.summary.lanes).toEqual({ rebuilt: 0, steps_repeated: 0 });
  });

  for (const seed of seeds()) {
    it.each(['throw', 'exit', 'destroyDevice'] as const)(
      `by %s, at any moment and on both lanes, comes to the same bits (seed ${seed})`,
      async (kind) => {
        const random = new Random(2100 + seed);
        const moments = ['beforeSubmit', 'afterSubmit', 'beforeCommit'] as const;
        const inAnyOrder = (of: readonly FaultMoment[]): LaneFault[][] =>
          shuffled(random, of.length).map((index) => fault(random, at(of, index), kind));
        const script = [inAnyOrder([...moments, 'beforeAnswer', 'midPublish']), inAnyOrder(moments)];
        const label = `seed ${seed}, ${kind}: ${JSON.stringify(script)}`;
        const run = await smallRun(LOAD, faultsOf(script));
        expectSame(run, undisturbed, label);
        // A replacement that dies while it is given what the lane before had counts with the one before.
        const { rebuilt } = run.summary.lanes;
        expect(rebuilt, label).toBeLessThanOrEqual(script.flat().length);
        expect(rebuilt, label).toBeGreaterThanOrEqual(script.flat().length - 3);
        const log = run.text('offbeat.log');
        expect(log.match(/"lane lost: /g), label).toHaveLength(rebuilt);
        expect(log.match(/"lane rebuilt"/g), label).toHaveLength(rebuilt);
      },
    );
  }

  it('takes a step again whose weights were published and whose end was not heard of', async () => {
    const lost: LaneFault[] = [{ at: 'beforeAnswer', after: 1, do: 'exit' }];
    const run = await smallRun(LOAD, faultsOf([[lost, lost]]));
    expectSame(run, undisturbed, 'beforeAnswer');
    expect(run.summary.lanes).toEqual({ rebuilt: 2, steps_repeated: 2 });
  });
});

it('a trainer with a reference, scores and several updates a step comes back with all of it', async () => {
  const set = [...LOAD, ...THOROUGH];
  const undisturbed = await smallRun(set);
  const lost = (moment: FaultMoment, after: number): LaneFault[] => [{ at: moment, after, do: 'throw' }];
  // Between the updates of a step; after both; in the middle of whatever comes first.
  const script = [[lost('beforeAnswer', 2), lost('beforeAnswer', 1), lost('beforeCommit', 3)]];
  const run = await smallRun(set, faultsOf(script));
  expectSame(run, undisturbed, JSON.stringify(script));
  expect(run.summary.lanes.rebuilt).toBe(3);
  expect(run.summary.lanes.steps_repeated).toBeGreaterThanOrEqual(2);
});

it('with the default staleness, and generation all the while, no rollout is lost or produced twice', async () => {
  const random = new Random(2201);
  const script = [0, 1].map(() =>
    (['afterSubmit', 'beforeCommit'] as const).map((moment) => fault(random, moment, 'destroyDevice')),
  );
  const set = [...LOAD, 'algorithm.staleness_versions_max=1'];
  const run = await smallRun(set, faultsOf(script));
  expectWhole(run, `seed 2201: ${JSON.stringify(script)}`);
  expect(run.summary.lanes.rebuilt).toBe(4);
  expect(run.text('report.html')).toContain('lost lanes rebuilt: 4');
  for (const { lanes, weight_versions: versions } of run.rollouts) {
    expect(lanes.length).toBeGreaterThan(0);
    versions.slice(1).forEach(({ version }, i) => expect(version).toBeGreaterThan(at(versions, i).version));
  }
});
