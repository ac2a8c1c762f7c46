import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { runScenario } from '#src/run/runner.js';
import { loadScenario } from '#src/run/scenario.js';
import { EMPTY_PLAN, isIdle } from '#src/scheduler/plan.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { PlanRecord } from '#src/scheduler/scheduler.js';
import { replay } from '#src/sim/replay.js';
import { temporaryFolder } from './runs.js';

const LANES = 2;

/** Two jobs that generate on both lanes and train on one each, one of which comes late. */
const SCENARIO = `
seed = 7
[lanes]
count = ${LANES}
[defaults]
steps = 2
[defaults.rollout]
prompts_per_step = 3
samples_per_prompt = 4
[defaults.engine]
slots = 4
[defaults.evaluation]
heldout_prompts = 0
[[job]]
id = "first"
[[job]]
id = "late"
weight = 3
token_latency_ms = 40
arrives_s = 0.3
`;

/** Every record of a live run on the software adapter, as it would come out of a file. */
async function recordsOf(name: string, replaceFirst: boolean): Promise<PlanRecord[]> {
  const folder = temporaryFolder();
  const file = join(folder, 'scenario.toml');
  writeFileSync(file, SCENARIO);
  const { scenario } = loadScenario({ file });
  const jobs = scenario.jobs.map((job, index) => ({ ...job, lanes: [0, 1], trainerLane: index }));
  const records: PlanRecord[] = [];
  const silence = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    await runScenario(
      { ...scenario, jobs },
      {
        outFolder: join(folder, 'run'),
        interrupted: new AbortController().signal,
        policy: { name, plan: policyNamed(name) },
        onPlan: (record) => records.push(structuredClone(record)),
        // The first life of the second lane ends in the middle of things.
        faults: (lane, epoch) =>
          replaceFirst && lane === 1 && epoch === 0
            ? [{ at: 'afterSubmit', after: 60, do: 'destroyDevice' }]
            : [],
      },
    );
  } finally {
    silence.mockRestore();
  }
  return records;
}

test.each([
  ['priority', false],
  ['gapRatio', true],
  ['roundRobin', false],
  ['sloGuard', false],
])(
  'a live run under %s is decided the same again from its events alone (a lane lost: %s)',
  async (name, isLaneLost) => {
    const records = await recordsOf(name, isLaneLost);
    const kinds = new Set(records.flatMap(({ events }) => events.map(({ event }) => event.kind)));
    const expected = [
      'laneReady',
      'jobAdded',
      'demandChanged',
      'progress',
      'stageRequested',
      'stageReleased',
    ];
    for (const kind of [...expected, 'versionPublished', 'wokeUp', 'jobFinished'])
      expect([...kinds]).toContain(kind);
    expect(kinds.has('laneLost')).toBe(isLaneLost);
    expect(records.filter(({ plan }) => !isIdle(plan)).length).toBeGreaterThan(8);
    expect(records.flatMap(({ violations }) => violations)).toEqual([]);
    expect(replay(records, policyNamed(name), LANES)).toBeNull();

    // One plan that came out otherwise is found, and so is another policy.
    const index = records.findIndex(({ plan }) => plan.grant.length > 0);
    const forged = records.map((record, place) =>
      place === index ? { ...record, plan: EMPTY_PLAN } : record,
    );
    expect(replay(forged, policyNamed(name), LANES)?.cycle).toBe(records[index]?.cycle);
    expect(replay(records, policyNamed('serial'), LANES)).not.toBeNull();
  },
);
