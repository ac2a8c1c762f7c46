import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Script } from 'node:vm';
import { beforeAll, describe, expect, test } from 'vitest';
import { loadCheckpoint, loadWeights } from '#src/model/checkpoint.js';
import { paramLayout } from '#src/model/layout.js';
import { formatConfig, resolveConfig } from '#src/run/config.js';
import { type RolloutLine, type RunFiles, type TraceEvent, tokensOf } from './run-folders.js';
import { offbeat, sets, SHIPPED_MODEL, SMALL, smallRun } from './runs.js';

const STEPS = 4;
const ROLLOUTS = STEPS * 4 * 4;

let run: RunFiles;
beforeAll(async () => {
  run = await smallRun();
});

test('the folder holds these files and no other', () => {
  const files = ['config.toml', 'metrics.jsonl', 'model', 'offbeat.log', 'report.html', 'rollouts.jsonl'];
  expect(readdirSync(run.path).sort()).toEqual([...files, 'summary.json', 'trace.json']);
});

describe('config.toml', () => {
  test('is the configuration as resolved', () => {
    const again = resolveConfig({ file: join(run.path, 'config.toml') });
    expect(again).toEqual(resolveConfig({ set: SMALL }));
    expect(formatConfig(again)).toBe(run.text('config.toml'));
  });

  test('runs again from the command line', async () => {
    const args = ['run', join(run.path, 'config.toml'), '--out', 'again', ...sets(['steps=1'])];
    const cwd = join(run.path, '..');
    const { code, stdout } = await offbeat(args, { cwd }).ended;
    expect(code).toBe(0);
    expect(stdout).toContain('again/report.html');
    expect(existsSync(join(cwd, 'again', 'summary.json'))).toBe(true);
  });
});

describe('metrics.jsonl', () => {
  test('has a line a step, in order', () => {
    const { metrics } = run;
    expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
    for (const [i, line] of metrics.entries()) {
      expect(line.time_s).toBeGreaterThan(metrics[i - 1]?.time_s ?? 0);
      expect(line['time/step_s']).toBeGreaterThan(0);
      expect(line['rollout/prompt_length/mean']).toBe(7);
      expect(line['reward/failed']).toBe(0);
    }
  });

  test('measures held-out reward on the last step only', () => {
    const heldout = run.metrics.map((line) => line['val/score/mean']);
    expect(heldout).toEqual([undefined, undefined, undefined, run.summary.reward.heldout_after]);
  });

  test('agrees with rollouts.jsonl', () => {
    const { rollouts, metrics } = run;
    for (const line of metrics) {
      const ofStep = rollouts.filter(({ step }) => step === line.step);
      const mean = ofStep.reduce((sum, { reward }) => sum + (reward ?? 0), 0) / ofStep.length;
      expect(line['rollout/score/mean']).toBeCloseTo(mean, 12);
      expect(line['rollout/response_length/mean']).toBeCloseTo(tokensOf(ofStep) / ofStep.length, 12);
    }
  });
});

describe('rollouts.jsonl', () => {
  test('has every rollout once', () => {
    const { rollouts } = run;
    expect(rollouts).toHaveLength(ROLLOUTS);
    expect(new Set(rollouts.map(({ id }) => id)).size).toBe(ROLLOUTS);
    const places = rollouts.map(({ step, task_key, sample_index }) => `${step} ${task_key} ${sample_index}`);
    expect(new Set(places).size).toBe(ROLLOUTS);
    for (let step = 1; step <= STEPS; step++) {
      expect(rollouts.filter((rollout) => rollout.step === step)).toHaveLength(ROLLOUTS / STEPS);
    }
  });

  test('has numbers for every token, and the text they spell', async () => {
    const { tokenizer, config } = await loadCheckpoint(SHIPPED_MODEL);
    for (const rollout of run.rollouts) {
      const { token_ids: ids, logprobs, raw_logprobs, weight_versions: spans, finish_reason } = rollout;
      expect(logprobs).toHaveLength(ids.length);
      // Sampled at temperature 1 without filters: the two distributions are one.
      expect(raw_logprobs).toEqual(logprobs);
      expect(rollout.prompt_token_ids).toEqual(tokenizer.encode(rollout.prompt));
      expect(rollout.text).toBe(tokenizer.decode(ids));
      expect(finish_reason).toBe(config.eosTokenIds.includes(ids.at(-1) ?? -1) ? 'stop' : 'length');
      if (finish_reason === 'length') expect(ids).toHaveLength(32);
      expect(spans.map(({ start }) => start)).toEqual([0, ...spans.slice(0, -1).map(({ end }) => end)]);
      expect(spans.at(-1)?.end).toBe(ids.length);
      expect(rollout.lanes).toEqual([0]);
    }
  });

  test('rewards are those of the task', () => {
    for (const { prompt, text, finish_reason, reward, failure } of run.rollouts) {
      const [left = '', right = ''] = prompt.slice(0, -1).split('+');
      const answer = String(Number(left) + Number(right)).padStart(3, '0');
      const isRight = finish_reason === 'stop' && text.slice(text.lastIndexOf(';') + 1) === answer;
      expect(reward, prompt + text).toBe(isRight ? 1 : 0);
      expect(failure).toBeNull();
    }
  });

  test('fates are those of the groups', () => {
    const { rollouts } = run;
    const groups = new Map<string, RolloutLine[]>();
    for (const rollout of rollouts) {
      const place = `${rollout.step} ${rollout.task_key}`;
      groups.set(place, [...(groups.get(place) ?? []), rollout]);
    }
    expect(groups.size).toBe(ROLLOUTS / 4);
    for (const group of groups.values()) {
      const isEqual = group.every(({ reward }) => reward === group[0]?.reward);
      for (const { fate } of group) expect(fate).toBe(isEqual ? 'filtered' : 'trained');
    }
  });
});

describe('summary.json', () => {
  test('accounts for every token', () => {
    const { summary, rollouts } = run;
    const { tokens } = summary;
    expect(tokens.decoded).toBe(tokensOf(rollouts));
    for (const fate of ['trained', 'aborted', 'expired', 'filtered', 'in_flight'] as const) {
      expect(tokens[fate], fate).toBe(tokensOf(rollouts, fate));
    }
    expect(tokens.decoded).toBe(tokens.trained + tokens.aborted + tokens.expired + tokens.filtered);
    expect(tokens.trained).toBeGreaterThan(0);
    expect(tokens.in_flight).toBe(0);
  });

  test('says what ran', () => {
    const { summary, metrics } = run;
    expect(summary.model).toBe('arithmetic-tiny');
    expect(summary.seed).toBe(1);
    expect(summary.steps).toBe(STEPS);
    const rewards = metrics.map((line) => line['rollout/score/mean'] ?? NaN);
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / STEPS;
    expect(summary.reward.first5).toBeCloseTo(mean, 12);
    expect(summary.reward.last5).toBeCloseTo(mean, 12);
    for (const reward of [summary.reward.heldout_before, summary.reward.heldout_after]) {
      // Of 16 prompts, each right or wrong.
      expect(Number.isInteger((reward ?? NaN) * 16)).toBe(true);
    }
    expect(summary.tokens_per_second).toBeCloseTo(summary.tokens.decoded / summary.wall_seconds, 6);
  });

  test('orders its quantiles', () => {
    const { preemption } = run.summary;
    expect(preemption.slice_budget_us).toBe(4000);
    expect(preemption.in_flight_budget_us).toBe(8000);
    expect(preemption.tokens_recomputed).toBe(0);
    expect(preemption.time_to_yield_ms.n).toBe(preemption.count);
    for (const { n, p50, p90, p99, max } of [preemption.time_to_yield_ms, preemption.resume_ms]) {
      if (n === 0) continue;
      const ordered = [p50, p90, p99, max].map((value) => value ?? NaN);
      expect(ordered).toEqual([...ordered].sort((a, b) => a - b));
      expect(ordered[0]).toBeGreaterThanOrEqual(0);
    }
  });

  test('sends no weights through the host on one lane', () => {
    const parameters = 112_064;
    expect(run.summary.weights).toMatchObject({
      // Versions 0 to 4.
      publishes: 5,
      bytes_sent: 0,
      bytes_broadcast: 5 * parameters * 4,
    });
  });
});

describe('trace.json', () => {
  test('names every process and track it uses', () => {
    const { trace } = run;
    const named = (kind: string): TraceEvent[] => trace.filter(({ ph, name }) => ph === 'M' && name === kind);
    const pids = new Set(named('process_name').map(({ pid }) => pid));
    const tids = new Set(named('thread_name').map(({ pid, tid }) => `${pid}/${tid}`));
    for (const { ph, pid, tid } of trace) {
      expect(pids.has(pid)).toBe(true);
      if (ph !== 'M') expect(tids.has(`${pid}/${tid}`)).toBe(true);
    }
    for (const { args } of [...named('process_name'), ...named('thread_name')])
      expect(args?.['name']).toMatch(/./);
  });

  test('nests on every track', () => {
    // In whole nanoseconds: sums of fractions of a microsecond are not exact.
    const ns = (us = NaN): number => Math.round(us * 1000);
    const open = new Map<string, number[]>();
    const spans = run.trace.filter(({ ph }) => ph === 'X').sort((a, b) => ns(a.ts) - ns(b.ts));
    expect(spans.length).toBeGreaterThan(100);
    for (const { pid, tid, ts, dur, name } of spans) {
      const end = ns(ts) + ns(dur);
      const around = (open.get(`${pid}/${tid}`) ?? []).filter((outer) => outer > ns(ts));
      for (const outer of around) expect(end, `${name} at ${ts}`).toBeLessThanOrEqual(outer);
      open.set(`${pid}/${tid}`, [...around, end]);
    }
  });

  test('shows slices of both residents, stages, versions and rewards', () => {
    expect(run.track('lane 0', 'engine').length).toBeGreaterThan(20);
    expect(run.track('lane 0', 'trainer').length).toBeGreaterThan(20);
    const trained = run.metrics.filter((line) => line['actor/loss'] !== undefined).length;
    expect(run.track('scheduler', 'init').map(({ name }) => name)).toEqual(['waiting', 'granted']);
    expect(run.track('scheduler', 'actorTraining').filter(({ name }) => name === 'granted')).toHaveLength(
      trained,
    );
    expect(run.track('lane 0', 'weights').map(({ name }) => name)).toEqual(
      Array.from({ length: trained + 1 }, (_, version) => `flip v${version}`),
    );
    expect(run.track('lane 0', 'engine awake')).toHaveLength(1);
    const rewards = run.track('tasks', 'rewards');
    // Held-out prompts are scored before and after.
    expect(rewards.filter(({ ph }) => ph === 'b')).toHaveLength(ROLLOUTS + 2 * 16);
    expect(rewards.filter(({ ph }) => ph === 'e')).toHaveLength(ROLLOUTS + 2 * 16);
  });
});

describe('report.html', () => {
  test('needs nothing but itself', () => {
    const html = run.text('report.html');
    expect(html).not.toMatch(/https?:|\bsrc=|\bhref=|url\(|@import|fetch\(|XMLHttp|WebSocket|<link/);
    expect(html.match(/<script/g)).toHaveLength(2);
  });

  test('holds the data of this run, and a script that parses', () => {
    const html = run.text('report.html');
    const [, data = '', script = ''] =
      /<script type="application\/json" id="data">([^]*?)<\/script>\s*<script>([^]*?)<\/script>/.exec(html) ??
      [];
    expect(Object.keys(JSON.parse(data) as object)).toEqual(['charts', 'timeline']);
    expect(() => new Script(script)).not.toThrow();
    expect(html).toContain('arithmetic-tiny, seed 1');
  });
});

test('model/ is a checkpoint that has learnt something', async () => {
  const { config } = await loadCheckpoint(join(run.path, 'model'));
  const layout = paramLayout(config, 2 ** 27);
  const [before] = await loadWeights(SHIPPED_MODEL, config, layout);
  const [after] = await loadWeights(join(run.path, 'model'), config, layout);
  const moved = after?.filter((weight, i) => weight !== before?.[i]).length ?? 0;
  expect(moved).toBeGreaterThan(10_000);
  expect(after?.every((weight, i) => Math.abs(weight - (before?.[i] ?? NaN)) < 0.05)).toBe(true);
});
