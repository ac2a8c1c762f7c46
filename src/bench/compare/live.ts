import type { NamedPolicy } from '../../run/conductor.js';
import type { Scenario } from '../../run/scenario.js';
import { STAGES, type Stage } from '../../scheduler/stages.js';
import { coarsen } from '../../telemetry/report/coarsen.js';
import { timeToYieldMs, type SliceRecord, type StageRecord } from '../../telemetry/records.js';
import type { RunRecords } from '../../telemetry/run-records.js';
import type { Summary } from '../../telemetry/summary.js';
import type { Order, Runner } from './contest.js';
import type { JobMeasured, Measured, Span, WorkKind } from './measured.js';
import type { PolicyMaker } from './policies.js';
import type { CompareMachine } from './result.js';

/** Stretches of one job's training or generation on one lane that are kept for the picture. */
const SPANS_MAX = 2_000;

/** What a live run of a scenario comes to, as far as a comparison needs it. Times are on lib/clock. */
export interface LiveOutcome {
  /** Of all jobs. */
  readonly records: RunRecords;
  readonly endMs: number;
  readonly jobs: readonly LiveJobOutcome[];
}

export interface LiveJobOutcome {
  readonly id: string;
  readonly arrivedMs: number;
  /** Null if it did not come to its end. */
  readonly finishedMs: number | null;
  readonly summary: Pick<Summary, 'adapter' | 'tokens' | 'weights' | 'preemption'>;
  /** Trained tokens by how many versions behind they were. */
  readonly stalenessTokens: ReadonlyMap<number, number>;
  /** Between two tokens of a sequence. */
  readonly tokenLatencyMs: { readonly p99: number | null };
}

export interface LiveRunContext {
  readonly policy: NamedPolicy;
  /** Which run of the contest it is: names its folder, if it leaves one. */
  readonly order: Order;
  /** When aborted, the run ends early; what it comes to is thrown away. */
  readonly interrupted: AbortSignal;
}

/** Runs a scenario on the machine's own lanes. */
export type LiveRun = (scenario: Scenario, context: LiveRunContext) => Promise<LiveOutcome>;

/** Runs on the machine's own lanes. */
export class LiveRunner implements Runner {
  #machine: CompareMachine = {
    description: 'adapter not known',
    software: false,
    vendor: '',
    architecture: '',
  };

  constructor(
    private readonly policyOf: PolicyMaker,
    private readonly run: LiveRun,
  ) {}

  get machine(): CompareMachine {
    return this.#machine;
  }

  async measure(scenario: Scenario, order: Order, interrupted: AbortSignal): Promise<Measured> {
    const policy = { name: order.policy, plan: this.policyOf(order.policy) };
    const outcome = await this.run(scenario, { policy, order, interrupted });
    this.#machine = outcome.jobs[0]?.summary.adapter ?? this.#machine;
    return measuredOf(outcome);
  }
}

/** A live run in the terms of the comparison. */
export function measuredOf({ records, endMs, jobs }: LiveOutcome): Measured {
  const { startMs, lanes } = records;
  const finished = jobs.flatMap(({ finishedMs }) => finishedMs ?? []);
  const isDone = finished.length === jobs.length && jobs.length > 0;
  return {
    endMs: endMs - startMs,
    makespanMs: isDone ? Math.max(...finished) - Math.min(...jobs.map(({ arrivedMs }) => arrivedMs)) : null,
    lanes: lanes.length,
    jobs: jobs.map((job) => jobMeasured(job, records)),
    busy: lanes.length === 0 ? null : lanes.flatMap(({ lane }) => laneBusy(records, lane)),
    yieldMs: records.timesToYieldMs(),
    stalenessUnit: 'tokens',
    violations: null,
    timeline: { spans: spansOf(records), dropped: records.slices.dropped },
  };
}

function jobMeasured(job: LiveJobOutcome, records: RunRecords): JobMeasured {
  const { id, arrivedMs, finishedMs, summary, stalenessTokens, tokenLatencyMs } = job;
  const { decoded, trained, aborted, expired, filtered } = summary.tokens;
  const { startMs } = records;
  return {
    id,
    arrivedMs: arrivedMs - startMs,
    finishedMs: finishedMs === null ? null : finishedMs - startMs,
    tokensDecoded: decoded,
    tokensTrained: trained,
    tokensWasted: { aborted, expired, filtered, recomputed: summary.preemption.tokens_recomputed },
    queueWaitMs: queueWaits(records.stages.items.filter((stage) => stage.job === id)),
    yieldMs: records.preemptions.items.filter(({ asker }) => asker === id).map(timeToYieldMs),
    tokenP99Ms: tokenLatencyMs.p99,
    weightBytes: summary.weights.bytes_sent,
    staleness: histogram(stalenessTokens),
  };
}

/** A stage that never got its lanes has no wait: how long it would have been is not known. */
function queueWaits(stages: readonly StageRecord[]): Partial<Record<Stage, readonly number[]>> {
  const waits: Partial<Record<Stage, number[]>> = {};
  for (const { stage: name, requestedMs, grantedMs } of stages) {
    const stage = STAGES.find((known) => known === name);
    if (stage !== undefined && grantedMs !== null) (waits[stage] ??= []).push(grantedMs - requestedMs);
  }
  return waits;
}

function histogram(counts: ReadonlyMap<number, number>): number[] {
  const length = Math.max(-1, ...counts.keys()) + 1;
  return Array.from({ length }, (_, versions) => counts.get(versions) ?? 0);
}

function laneBusy(records: RunRecords, lane: number): NonNullable<Measured['busy']> {
  return records.busy(lane).map(({ job, resident, busyMs }) => ({
    lane,
    job,
    kind: workKind(resident),
    ms: busyMs,
  }));
}

/** Slices joined to stretches: a run has a hundred thousand of them, a picture a thousand columns. */
function spansOf({ slices, startMs }: RunRecords): Span[] {
  const groups = new Map<string, SliceRecord[]>();
  for (const slice of slices.items) {
    const key = JSON.stringify([slice.lane, slice.job, slice.resident]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [slice]);
    else group.push(slice);
  }
  return [...groups.values()].flatMap((group) => joined(group, startMs));
}

function joined(group: readonly SliceRecord[], startMs: number): Span[] {
  const [first] = group;
  if (first === undefined) return [];
  const { lane, job, resident } = first;
  const us = (ms: number): number => Math.round(1000 * (ms - startMs));
  const stretches = group.map(({ startedMs, finishedMs }) => {
    const [startUs, endUs] = [us(startedMs), us(finishedMs)];
    return { startUs, endUs, slices: 1, busyUs: endUs - startUs };
  });
  return coarsen(stretches, SPANS_MAX, []).map(({ startUs, endUs, busyUs }) => ({
    lane,
    job,
    kind: workKind(resident),
    fromMs: startUs / 1000,
    toMs: endUs / 1000,
    busy: endUs > startUs ? Math.min(1, busyUs / (endUs - startUs)) : 1,
  }));
}

function workKind(resident: SliceRecord['resident']): WorkKind {
  return resident === 'engine' ? 'generation' : 'training';
}
