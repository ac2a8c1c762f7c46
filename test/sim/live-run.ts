import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '#src/lib/prng.js';
import { policyNamed } from '#src/scheduler/policies/index.js';
import type { CostModel } from '#src/sim/cost-model.js';
import type { SimOutcome } from '#src/sim/outcome.js';
import { profileNamed } from '#src/sim/profiles.js';
import type { Span } from '#src/sim/records.js';
import { runRecordsOf } from '#src/sim/run-records.js';
import type { RecordedRollout, SimJobSpec } from '#src/sim/scenario.js';
import { simulate } from '#src/sim/simulate.js';
import { runTrace } from '#src/telemetry/run-trace.js';
import { job, scenario } from './scenarios.js';

export const STEPS = 6;

/** A run of which all is known: what it took, and the costs that it was made with. */
export interface RecordedRun {
  readonly outcome: SimOutcome;
  readonly specs: readonly SimJobSpec[];
  readonly policy: string;
}

/** Training takes 60 ms and 0.5 ms a token; decoding, twice the base profile's time. */
const base = profileNamed('llvmpipe-2-cores');
export const COSTS: CostModel = {
  ...base,
  decode: { stepMs: 5, rowMs: 0.24, prefillRowMs: 0.2, batchRows: 512 },
  train: { ms: 60, msPerUnit: 0.5 },
  score: { ms: 10, msPerUnit: 0.1 },
  yieldMs: [2, 3],
  publish: { ms: 0, msPerUnit: 0 },
  resumeMs: 0,
};

export async function recordedRun(part: Partial<SimJobSpec> = {}): Promise<RecordedRun> {
  return run([recordedJob('main', part)], 'priority');
}

/** A small model with episodes that wait, and one that takes three times as long for a token and comes later. */
export async function recordedRunOfTwo(policy = 'priority'): Promise<RecordedRun> {
  const turns = recordedJob('turns', { recorded: rollouts(5, true) });
  const large = recordedJob('large', { arrivesMs: 700, computeScale: 3 });
  return run([turns, large], policy);
}

async function run(specs: readonly SimJobSpec[], policy: string): Promise<RecordedRun> {
  const outcome = await simulate(scenario(specs, { costs: COSTS }), policyNamed(policy));
  return { outcome, specs, policy };
}

function recordedJob(id: string, part: Partial<SimJobSpec>): SimJobSpec {
  const recorded = rollouts(3, false);
  const size = {
    steps: STEPS,
    groupsPerStep: 4,
    groupSize: 4,
    slotsMax: 64,
    engineBytes: 0,
    trainerBytes: 0,
  };
  return job(id, { recorded, ...size, completionTokens: 120, weightBytes: 448_256, ...part });
}

function rollouts(seed: number, areEpisodes: boolean): RecordedRollout[] {
  const random = new Random(seed);
  return Array.from({ length: STEPS * 16 }, (_, index) => {
    const isFiltered = Math.floor(index / 4) % 5 === 0;
    const promptTokens = random.int(5, 9);
    if (!areEpisodes) return { promptTokens, tokens: random.int(10, 40), isFiltered, rewardMs: 7 };
    const turns = Array.from({ length: random.int(1, 4) }, (_turn, i) => ({
      tokens: random.int(4, 20),
      waitMs: 20 + 10 * i,
      observationTokens: 3,
    }));
    const last = { tokens: 5, waitMs: 0, observationTokens: 0 };
    const tokens = turns.reduce((sum, turn) => sum + turn.tokens, last.tokens);
    return { promptTokens, tokens, isFiltered, rewardMs: 7, turns: [...turns, last] };
  });
}

const jsonl = (records: readonly object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join('');
const json = (value: object) => `${JSON.stringify(value)}\n`;

/** The files of a run that took what a simulation of it says, as a live run writes them. */
export function writeRun(folder: string, { outcome, specs, policy }: RecordedRun): void {
  const timeline = { ...outcome.timeline, spans: inTurns(outcome.timeline.spans) };
  const records = runRecordsOf({ ...outcome, timeline }, 1);
  for (const { id, recorded = [] } of specs) {
    for (const [index, { rewardMs }] of recorded.entries()) {
      const startedMs = 1000 + 10 * index;
      const rollout = String(index + 1);
      const finishedMs = startedMs + (rewardMs ?? 0);
      records.rewards.push({ job: id, rollout, startedMs, finishedMs, failure: null });
    }
  }
  const trace = runTrace(records, { endMs: outcome.endedMs });
  writeFileSync(join(folder, 'trace.json'), [...trace.chunks()].join(''));
  const isShared = specs.length > 1;
  for (const spec of specs) writeJob(isShared ? join(folder, 'jobs', spec.id) : folder, spec, outcome);
  const head = ['[lanes]', 'count = 1', '[scheduler]', `policy = "${policy}"`];
  writeFileSync(
    join(folder, 'config.toml'),
    [...head, ...specs.flatMap((spec) => configOf(spec)), ''].join('\n'),
  );
  if (!isShared) return;
  const jobs = outcome.jobs.map(({ id, startedMs }) => [id, { arrived_s: (startedMs ?? 0) / 1000 }]);
  writeFileSync(join(folder, 'summary.json'), json({ jobs: Object.fromEntries(jobs) as object }));
}

function writeJob(folder: string, spec: SimJobSpec, outcome: SimOutcome): void {
  mkdirSync(folder, { recursive: true });
  const { id, recorded = [], steps } = spec;
  const own = outcome.jobs.find((one) => one.id === id);
  writeFileSync(join(folder, 'rollouts.jsonl'), jsonl(recorded.map((each, i) => lineOf(each, i, steps))));
  const trained = outcome.timeline.spans.filter((span) => span.job === id && isTraining(span));
  const ends = trained.map(({ toMs }) => toMs);
  ends[steps - 1] = own?.finishedMs ?? 0;
  const metrics = ends.map((endMs, index) => ({
    step: index + 1,
    time_s: endMs / 1000,
    'time/step_s': (endMs - (ends[index - 1] ?? 0)) / 1000,
  }));
  writeFileSync(join(folder, 'metrics.jsonl'), jsonl(metrics));
  const weights = { publishes: steps, bytes_broadcast: steps * spec.weightBytes };
  const told = { tokens: { decoded: own?.tokens.decoded ?? 0 }, weights };
  writeFileSync(join(folder, 'summary.json'), json(told));
}

function lineOf({ promptTokens, tokens, isFiltered, turns }: RecordedRollout, index: number, steps: number) {
  let end = 0;
  const ids = (count: number) => Array<number>(count).fill(1);
  const lines = (turns ?? []).map((turn) => {
    const start = end;
    end += turn.tokens;
    const read = { observation_token_ids: ids(turn.observationTokens), environment_ms: turn.waitMs };
    return { start, end, ...read };
  });
  return {
    id: index + 1,
    step: 1 + Math.floor((index * steps) / (steps * 16)),
    prompt_token_ids: ids(promptTokens),
    token_ids: ids(tokens),
    fate: isFiltered ? 'filtered' : 'trained',
    ...(turns === undefined ? {} : { episode: { opening_token_ids: [], turns: lines } }),
  };
}

function configOf(spec: SimJobSpec): string[] {
  const { id, arrivesMs, steps, groupsPerStep, groupSize, computeScale, stages, evaluation } = spec;
  const has = (stage: SimJobSpec['stages'][number]): boolean => stages.includes(stage);
  return [
    ...['[[job]]', `id = "${id}"`, 'weight = 1', `arrives_s = ${arrivesMs / 1000}`, `steps = ${steps}`],
    ...['trainer_lane = 0', 'lanes = [0]', '[job.model]', `path = "models/${computeScale}"`],
    ...['[job.rollout]', `prompts_per_step = ${groupsPerStep}`, `samples_per_prompt = ${groupSize}`],
    ...['max_tokens = 120', '[job.algorithm]', `name = "${has('valueCompute') ? 'ppo' : 'grpo'}"`],
    `kl_coefficient = ${has('refLogProbs') ? '0.1' : '0.0'}`,
    `old_log_probs = "${has('oldLogProbs') ? 'recomputed' : 'recorded'}"`,
    ...['staleness_versions_max = 0', '[job.engine]', 'slots = 64', 'batch_tokens = 512'],
    ...['[job.critic]', `warmup_steps = ${spec.criticSteps ?? 0}`, `epochs = ${spec.criticEpochs ?? 1}`],
    ...['[job.evaluation]', `heldout_prompts = ${evaluation?.prompts ?? 0}`],
    `every_steps = ${evaluation?.everySteps ?? 0}`,
  ];
}

function isTraining({ kind }: Span): boolean {
  return kind === 'actorTraining';
}

/** Engines that share the lane, one after the other: a device does one thing at a time. */
function inTurns(spans: readonly Span[]): Span[] {
  const engines = spans.filter(({ kind }) => kind === 'generation');
  const edges = [...new Set(engines.flatMap(({ fromMs, toMs }) => [fromMs, toMs]))].sort((a, b) => a - b);
  const slices = edges.slice(1).flatMap((toMs, i) => {
    const fromMs = edges[i] ?? 0;
    const active = engines.filter((span) => span.fromMs < toMs && span.toMs > fromMs);
    const each = (toMs - fromMs) / Math.max(1, active.length);
    return active.map((span, k) => ({ ...span, fromMs: fromMs + k * each, toMs: fromMs + (k + 1) * each }));
  });
  return [...spans.filter(({ kind }) => kind !== 'generation'), ...slices];
}
