import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { RemoteLane } from '#src/lanes/remote-lane.js';
import { UserError } from '#src/lib/errors.js';
import { DurableTrainer } from '#src/run/durable-trainer.js';
import { Fleet } from '#src/run/fleet.js';
import { JobFleet } from '#src/run/job-fleet.js';
import { runScenario, type RunOptions, type ScenarioOutcome } from '#src/run/runner.js';
import { loadScenario } from '#src/run/scenario.js';
import { EMPTY_PLAN, type Policy } from '#src/scheduler/plan.js';
import { RunFolder } from '#src/telemetry/run-folder.js';
import { WeightStore } from '#src/weights/store.js';
import { RunFiles } from './run-folders.js';
import { temporaryFolder } from './runs.js';

const HEAD = `
seed = 7
[output]
checkpoint = false
[defaults]
steps = 2
[defaults.rollout]
prompts_per_step = 2
samples_per_prompt = 4
[defaults.engine]
slots = 6
[defaults.evaluation]
heldout_prompts = 0
`;
const YEAR_S = 31_536_000;

/** What a run tells the user, and what a test does about it. */
class Said {
  readonly notes: string[] = [];
  readonly #hooks: { readonly text: string; readonly then: () => void }[] = [];

  when(text: string, then: () => void): void {
    this.#hooks.push({ text, then });
  }

  readonly progress: NonNullable<RunOptions['progress']> = {
    phase: (text) => this.#hear(text),
    step: () => undefined,
    note: (text) => this.#hear(text),
    close: () => Promise.resolve(),
  };

  #hear(text: string): void {
    this.notes.push(text);
    for (const hook of this.#hooks) if (text.includes(hook.text)) hook.then();
  }
}

interface Wishes extends Partial<RunOptions> {
  /** TOML before the jobs. */
  readonly lanes?: string;
  readonly jobs: Readonly<Record<string, string>>;
}

class Try {
  readonly folder = join(temporaryFolder(), 'run');
  readonly said = new Said();
  readonly controller = new AbortController();

  go({ lanes = '', jobs, ...options }: Wishes): Promise<ScenarioOutcome> {
    const file = join(temporaryFolder(), 'scenario.toml');
    const tables = Object.entries(jobs).map(([id, more]) => `[[job]]\nid = "${id}"\n${more}\n`);
    writeFileSync(file, `${HEAD}${lanes}${tables.join('')}`);
    const { progress } = this.said;
    const { signal: interrupted } = this.controller;
    const { scenario } = loadScenario({ file });
    return runScenario(scenario, { outFolder: this.folder, interrupted, progress, ...options });
  }

  files(id: string): RunFiles {
    return new RunFiles(join(this.folder, 'jobs', id));
  }
}

const TWO_LANES = '[lanes]\ncount = 2\n';

/** Calls back once the first trainer to go has gone. */
function whenTrainerLeft(then: () => void): void {
  vi.spyOn(DurableTrainer.prototype, 'remove').mockImplementationOnce(async function (this: DurableTrainer) {
    // Once only: this is the method itself.
    await this.remove();
    setImmediate(then);
  });
}

/** The lane's thread has an error that nobody caught, and ends. */
function breakThread(lane: unknown): void {
  const worker: unknown = lane instanceof RemoteLane ? Reflect.get(lane, 'worker') : null;
  if (!(worker instanceof Worker)) throw new Error('no lane to break');
  worker.emit('error', new Error('its thread is gone'));
  worker.postMessage({ id: 0, request: { kind: 'close' } });
}

afterEach(() => void vi.restoreAllMocks());

describe('jobs that have not arrived', () => {
  test('a run that is interrupted before the first arrives has no summary, and a folder that is whole', async () => {
    const run = new Try();
    run.said.when('running 2 jobs', () => setTimeout(() => run.controller.abort(), 50));
    const late = 'arrives_s = 60';
    const outcome = await run.go({ jobs: { a: late, b: late } });
    expect(outcome.summary).toBeNull();
    expect(outcome.jobs).toEqual([]);
    expect(readdirSync(run.folder).sort()).toEqual(['config.toml', 'jobs', 'offbeat.log', 'trace.json']);
    expect(existsSync(join(run.folder, 'jobs/b/config.toml'))).toBe(true);
  });

  test('one that is to arrive in months does not come at once; the run goes on without it', async () => {
    const run = new Try();
    run.said.when('a: done', () => setTimeout(() => run.controller.abort(), 50));
    const outcome = await run.go({ jobs: { b: `arrives_s = ${YEAR_S / 4}`, a: '' } });
    expect(outcome.jobs.map(({ id, summary }) => [id, summary.steps])).toEqual([['a', 2]]);
    expect(run.files('a').summary.steps).toBe(2);
  });

  test('a lane that is lost for good while the others wait fails the run', async () => {
    const run = new Try();
    const open = vi.spyOn(Fleet, 'open');
    run.said.when('a: done', () => {
      const [[, events] = []] = open.mock.calls;
      events?.onBroken(0, new Error('lane 0 is gone'));
    });
    const going = run.go({ jobs: { a: '', b: 'arrives_s = 60' } });
    await expect(going).rejects.toThrow(/^lane 0 is gone$/);
    expect(run.files('a').summary.steps).toBe(2);
  });
});

describe('a job that cannot begin', () => {
  test('ends alone: there is no memory for the second one', async () => {
    const run = new Try();
    const original = WeightStore.create.bind(WeightStore);
    let made = 0;
    vi.spyOn(WeightStore, 'create').mockImplementation((layout) => {
      if (made++ > 0) throw new RangeError('Array buffer allocation failed');
      return original(layout);
    });
    const going = run.go({ lanes: TWO_LANES, jobs: { a: 'steps = 4', b: 'arrives_s = 0.2' } });
    await expect(going).rejects.toThrow(/^job b: Array buffer allocation failed$/);
    expect(run.said.notes).toContain('b: could not begin: Array buffer allocation failed');
    expect(run.files('a').summary.steps).toBe(4);
  });

  test('gives back its place on the lanes when its trainer is refused', async () => {
    const run = new Try();
    const start = vi.spyOn(DurableTrainer.prototype, 'start');
    start.mockRejectedValueOnce(new UserError('no such budget'));
    // Room for one engine at a time.
    const lanes = '[lanes]\nmemory_mib = 5\n';
    const going = run.go({ lanes, jobs: { a: '', b: 'arrives_s = 0.3\nsteps = 3' } });
    await expect(going).rejects.toThrow(/^job a: no such budget$/);
    expect(run.files('b').summary.steps).toBe(3);
  });

  test('costs the others nothing when its engine is refused', async () => {
    const run = new Try();
    const createEngine = vi.spyOn(JobFleet.prototype, 'createEngine');
    createEngine.mockRejectedValueOnce(new UserError('no such engine'));
    const going = run.go({ jobs: { a: '', b: 'steps = 3' } });
    await expect(going).rejects.toThrow(/^job [ab]: no such engine$/);
    const whole = ['a', 'b'].filter((id) => run.said.notes.some((text) => text.startsWith(`${id}: done`)));
    expect(whole).toHaveLength(1);
  });
});

test('a job that ends while its engine wakes takes no lane from the others', async () => {
  const run = new Try();
  let isOver: () => void = () => undefined;
  const over = new Promise<void>((resolve) => (isOver = resolve));
  let held = '';
  // The first engine, at home, comes when its trainer is gone already.
  vi.spyOn(JobFleet.prototype, 'createEngine').mockImplementationOnce(async function (this: JobFleet, lane) {
    held = `${this.job} on ${lane}`;
    await over;
    return this.createEngine(lane);
  });
  whenTrainerLeft(isOver);
  const jobs = { a: 'trainer_lane = 0', b: 'trainer_lane = 0\nlanes = [0]\nsteps = 12' };
  const outcome = await run.go({ lanes: TWO_LANES, jobs });
  expect(held).toBe('a on 0');
  expect(outcome.jobs.map(({ summary }) => summary.steps)).toEqual([2, 12]);
});

test('without recovery, a lane is replaced when the jobs that trained there are done', async () => {
  const run = new Try();
  const open = vi.spyOn(RemoteLane, 'open');
  whenTrainerLeft(() => {
    const index = open.mock.calls.findIndex(([{ lane }]) => lane === 0);
    const opened: unknown = open.mock.results[index]?.value;
    void Promise.resolve(opened).then(breakThread);
  });
  const jobs = { a: 'trainer_lane = 0\nsteps = 1', b: 'trainer_lane = 1\nsteps = 14' };
  const outcome = await run.go({ lanes: '[lanes]\ncount = 2\nrecover = false\n', jobs });
  expect(outcome.summary?.lanes.rebuilt).toBe(1);
  expect(outcome.jobs.map(({ summary }) => summary.steps)).toEqual([1, 14]);
});

test('a run that cannot write its folder stops planning', async () => {
  const run = new Try();
  vi.spyOn(RunFolder.prototype, 'writeConfig').mockRejectedValueOnce(new UserError('the disk is full'));
  let asked = 0;
  const plan: Policy = ({ timeMs }) => {
    asked++;
    return { ...EMPTY_PLAN, reviewAtMs: timeMs + 2 };
  };
  const going = run.go({ jobs: { a: '', b: '' }, policy: { name: 'restless', plan } });
  await expect(going).rejects.toThrow('the disk is full');
  const before = asked;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(asked).toBe(before);
});
