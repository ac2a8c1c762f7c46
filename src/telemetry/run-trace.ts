import { boundMs, obeysLaw, type PreemptionRecord } from './records.js';
import type { RunRecords } from './run-records.js';
import { Trace, type Track } from './trace.js';

export interface RunTraceOptions {
  /** When the run ended, on lib/clock: what was still waiting or held is drawn up to here. */
  readonly endMs: number;
  readonly eventsMax?: number;
}

/**
 * Lays a run out for Perfetto: one process a lane, with a track for preemptions, for each resident, for weights, for
 * being awake and for being starved; one for the scheduler, with its plans and each stage waiting and granted; one for the rewards.
 * The rare records come first, so that a trace that is full lacks slices and nothing else.
 */
export function runTrace(records: RunRecords, { endMs, eventsMax = 600_000 }: RunTraceOptions): Trace {
  const trace = new Trace({ startMs: records.startMs, eventsMax });
  const layout = new Layout(trace, records);
  layout.makeTracks();
  for (const preemption of records.preemptions.items) {
    addPreemption(trace, layout.lane(preemption.lane, 'preemptions'), preemption);
  }
  for (const { lane, job, fromMs, toMs } of records.starved.items) {
    trace.complete(layout.lane(lane, layout.name(job, 'engine starved')), 'starved', fromMs, toMs - fromMs);
  }
  addWeights(trace, records, layout);
  addScheduler(trace, records, layout, endMs);
  addRewards(trace, records);
  addSlices(trace, records, layout);
  return trace;
}

/** Which track a record belongs on. */
class Layout {
  /** A resident or stage by name; the job is part of it only where there is more than one. */
  readonly name: (job: string, what: string) => string;
  readonly #trace: Trace;
  readonly #records: RunRecords;

  constructor(trace: Trace, records: RunRecords) {
    this.#trace = trace;
    this.#records = records;
    this.name = records.naming();
  }

  /** Makes the tracks in the order in which they are shown. */
  makeTracks(): void {
    for (const { lane } of this.#records.lanes) {
      this.lane(lane, 'preemptions');
      for (const { job, resident } of this.#records.busy(lane)) this.lane(lane, this.name(job, resident));
      this.lane(lane, 'weights');
    }
  }

  lane(lane: number, thread: string): Track {
    const adapter = this.#records.lanes.find((info) => info.lane === lane)?.adapter;
    return this.#trace.track(adapter === undefined ? `lane ${lane}` : `lane ${lane} — ${adapter}`, thread);
  }

  scheduler(thread: string): Track {
    return this.#trace.track('scheduler', thread);
  }
}

function addPreemption(trace: Trace, track: Track, preemption: PreemptionRecord): void {
  const { requestedMs, yieldedMs, releasedMs, resumedMs, stage, kv, blame, tokensRecomputed } = preemption;
  const args = {
    stage,
    kv_held: kv.held,
    kv_spilled: kv.spilled,
    kv_dropped: kv.dropped,
    tokens_recomputed: tokensRecomputed,
  };
  const bound = boundMs(preemption);
  // A simulation predicts no slices, so nothing bounds it.
  const law = Number.isFinite(bound)
    ? { bound_ms: bound, obeys_law: obeysLaw(preemption), phase: preemption.phase }
    : {};
  const slice = blame && {
    blamed: blame.kernel,
    blamed_predicted_us: blame.predictedUs,
    blamed_real_us: blame.realUs,
  };
  trace.complete(track, 'time to yield', requestedMs, yieldedMs - requestedMs, { ...args, ...law, ...slice });
  if (releasedMs === null) return;
  trace.complete(track, stage, yieldedMs, releasedMs - yieldedMs, args);
  if (resumedMs !== null) trace.complete(track, 'resume', releasedMs, resumedMs - releasedMs, args);
}

function addWeights(trace: Trace, records: RunRecords, layout: Layout): void {
  for (const { lane, job, version, kind, atMs, durationMs, bytes } of records.versions.items) {
    const name = `${layout.name(job, kind)} v${version}`;
    trace.complete(layout.lane(lane, 'weights'), name, atMs - durationMs, durationMs, { version, bytes });
  }
  for (const { lane, job, fromMs, toMs } of records.awake.items) {
    trace.complete(layout.lane(lane, layout.name(job, 'engine awake')), 'awake', fromMs, toMs - fromMs);
  }
}

function addScheduler(trace: Trace, records: RunRecords, layout: Layout, endMs: number): void {
  for (const { cycle, atMs, changes } of records.plans.items) {
    trace.instant(layout.scheduler('plans'), `plan ${cycle}`, atMs, { changes: changes.join('; ') });
  }
  for (const { job, stage, requestedMs, grantedMs, releasedMs } of records.stages.items) {
    const track = layout.scheduler(layout.name(job, stage));
    trace.complete(track, 'waiting', requestedMs, (grantedMs ?? endMs) - requestedMs);
    if (grantedMs !== null) trace.complete(track, 'granted', grantedMs, (releasedMs ?? endMs) - grantedMs);
  }
}

function addRewards(trace: Trace, records: RunRecords): void {
  for (const { job, rollout, startedMs, finishedMs, failure } of records.rewards.items) {
    const track = trace.track('tasks', 'rewards');
    trace.asyncBegin(track, 'reward', rollout, startedMs, { job, failure });
    trace.asyncEnd(track, 'reward', rollout, finishedMs);
  }
}

function addSlices(trace: Trace, records: RunRecords, layout: Layout): void {
  for (const slice of records.slices.items) {
    const { lane, job, resident, submittedMs, startedMs, finishedMs, predictedUs, dispatches } = slice;
    const track = layout.lane(lane, layout.name(job, resident));
    const queuedUs = Math.round((startedMs - submittedMs) * 1000);
    const args = { predicted_us: predictedUs, queued_us: queuedUs, dispatches };
    trace.complete(track, resident, startedMs, finishedMs - startedMs, args);
  }
}
