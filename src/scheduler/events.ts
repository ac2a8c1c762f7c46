import { assert, at } from '../lib/assert.js';
import { NO_LENGTHS, withEnded, type EndedRollout } from './lengths.js';
import { isExclusive, type ExclusiveStage } from './stages.js';
import type { Demand, EngineState, JobId, JobSpec, JobState, LaneId, LaneState, Snapshot } from './state.js';
import { engineOn } from './state.js';

/** Everything that can happen. Each says what is so now; none asks for anything but `stageRequested`. */
export type SchedulerEvent =
  /** A lane came up, for the first time or as the replacement of one that was lost. */
  | { readonly kind: 'laneReady'; readonly lane: LaneId; readonly bytesCapacity: number }
  /** A lane and all that was on it is gone; its rollouts are back in their jobs' queues. */
  | { readonly kind: 'laneLost'; readonly lane: LaneId; readonly reason: string }
  | { readonly kind: 'laneReserved'; readonly lane: LaneId }
  | { readonly kind: 'laneUnreserved'; readonly lane: LaneId }
  | { readonly kind: 'jobAdded'; readonly job: JobSpec }
  /** Done or given up: its requests and grants end here, its engines as soon as they can fall asleep. */
  | { readonly kind: 'jobFinished'; readonly job: JobId }
  | {
      readonly kind: 'stageRequested';
      readonly job: JobId;
      readonly stage: ExclusiveStage;
      readonly lanes: readonly LaneId[];
      readonly bytes: number;
    }
  | { readonly kind: 'stageReleased'; readonly request: number }
  | {
      readonly kind: 'demandChanged';
      readonly job: JobId;
      readonly demand: Demand;
      /** Rollouts that came to their end since the last; left out where there are none. */
      readonly ended?: readonly EndedRollout[];
    }
  /** An engine's own report: the sequences it runs, the weights it holds, the tokens it has sampled since the last. */
  | {
      readonly kind: 'progress';
      readonly job: JobId;
      readonly lane: LaneId;
      readonly running: number;
      readonly version: number;
      readonly tokens: number;
      /** Left out: as it was. */
      readonly tokenLatencyMs?: number | null;
      /** Left out: as it was. */
      readonly stepMs?: number;
    }
  | { readonly kind: 'versionPublished'; readonly job: JobId; readonly version: number }
  | { readonly kind: 'wokeUp'; readonly job: JobId; readonly lane: LaneId; readonly version: number }
  | { readonly kind: 'fellAsleep'; readonly job: JobId; readonly lane: LaneId }
  /** Nothing but the time: a policy that asked to be called again is. */
  | { readonly kind: 'tick' };

/** More requests waiting at once than any sane run has: a caller asks in a loop. */
export const REQUESTS_MAX = 10_000;

/** The snapshot after an event. An event that cannot be true of this snapshot is a bug and throws. */
export function reduce(snapshot: Snapshot, event: SchedulerEvent, timeMs: number): Snapshot {
  assert(timeMs >= snapshot.timeMs, `time went back from ${snapshot.timeMs} to ${timeMs} ms`);
  return fold({ ...snapshot, timeMs }, event);
}

function fold(snapshot: Snapshot, event: SchedulerEvent): Snapshot {
  switch (event.kind) {
    case 'laneReady':
      return laneReady(snapshot, event.lane, event.bytesCapacity);
    case 'laneLost':
      return laneLost(snapshot, event.lane);
    case 'laneReserved':
    case 'laneUnreserved':
      return reserveLane(snapshot, event.lane, event.kind === 'laneReserved');
    case 'jobAdded':
      return addJob(snapshot, event.job);
    case 'jobFinished':
      return finishJob(snapshot, event.job);
    case 'stageRequested':
      return requestStage(snapshot, event);
    case 'stageReleased':
      return releaseStage(snapshot, event.request);
    case 'demandChanged':
      return changeDemand(snapshot, event.job, event.demand, event.ended);
    case 'progress':
      return progress(snapshot, event);
    case 'versionPublished':
      return publish(snapshot, event.job, event.version);
    case 'wokeUp':
      return changeEngine(snapshot, event, (engine) => {
        assert(engine.status === 'waking', `an engine that is ${engine.status} woke up`);
        assert(
          event.version >= engine.version,
          `told to load version ${engine.version}, loaded ${event.version}`,
        );
        return { ...engine, status: 'awake', version: event.version };
      });
    case 'fellAsleep':
      return changeEngine(snapshot, event, (engine) => {
        assert(engine.status === 'fallingAsleep', `an engine that is ${engine.status} fell asleep`);
        return null;
      });
    case 'tick':
      return snapshot;
    default:
      return event satisfies never;
  }
}

function laneReady(snapshot: Snapshot, id: LaneId, bytesCapacity: number): Snapshot {
  const lane = at(snapshot.lanes, id);
  assert(lane.health === 'lost', `lane ${id} came up twice`);
  assert(bytesCapacity > 0, `lane ${id} has ${bytesCapacity} bytes`);
  const epoch = lane.epoch + 1;
  return withLane(snapshot, { ...lane, health: 'ready', bytesCapacity, epoch, segment: null });
}

function laneLost(snapshot: Snapshot, id: LaneId): Snapshot {
  const lane = at(snapshot.lanes, id);
  assert(lane.health === 'ready', `lane ${id} lost twice`);
  const jobs = new Map(snapshot.jobs);
  for (const job of snapshot.jobs.values()) {
    if (engineOn(job, id) !== undefined) setEngines(jobs, job, withoutLane(job.engines, id));
  }
  return withLane({ ...snapshot, jobs }, { ...lane, health: 'lost' });
}

function reserveLane(snapshot: Snapshot, id: LaneId, reserved: boolean): Snapshot {
  const lane = at(snapshot.lanes, id);
  assert(lane.reserved !== reserved, `lane ${id} is ${reserved ? 'already' : 'not'} reserved`);
  return withLane(snapshot, { ...lane, reserved });
}

function addJob(snapshot: Snapshot, spec: JobSpec): Snapshot {
  const { id, engineLanes, trainerLane } = spec;
  assert(!snapshot.jobs.has(id), `job ${id} is there already`);
  const isAscending = engineLanes.every((lane, index) => index === 0 || lane > at(engineLanes, index - 1));
  assert(isAscending, `job ${id}: its engine's lanes do not ascend`);
  for (const lane of engineLanes) assert(snapshot.lanes[lane] !== undefined, `job ${id}: no lane ${lane}`);
  assert(
    trainerLane === null || snapshot.lanes[trainerLane] !== undefined,
    `job ${id}: no lane ${trainerLane}`,
  );
  assert(Number.isInteger(spec.slotsMax) && spec.slotsMax > 0, `job ${id}: ${spec.slotsMax} slots`);
  assert(
    isCount(spec.engineBytes) && isCount(spec.trainerBytes),
    `job ${id}: bytes must be whole and finite`,
  );
  assert(isCount(spec.version), `job ${id}: version ${spec.version}`);
  assert(spec.weight > 0 && Number.isFinite(spec.weight), `job ${id}: weight ${spec.weight}`);
  assert(isCount(spec.stepRollouts), `job ${id}: ${spec.stepRollouts} rollouts a step`);
  const { kv, step } = spec;
  assert(
    step === undefined || (step.prompts > 0 && step.prompts * step.samples === spec.stepRollouts),
    `job ${id}: ${spec.stepRollouts} rollouts a step are not ${step?.prompts} by ${step?.samples}`,
  );
  const isKv = kv === undefined || (isCount(kv.tokens) && isCount(kv.sequenceTokensMax) && kv.tokens > 0);
  assert(
    isKv && (kv?.tokens ?? 0) >= (kv?.sequenceTokensMax ?? 0),
    `job ${id}: ${kv?.tokens} tokens of cache`,
  );
  const demand = { rollouts: 0, runnable: 0, tokensRemaining: 0 };
  const nothing = { demand, tokensDone: 0, lengths: NO_LENGTHS, engines: [] };
  return withJob(snapshot, { ...spec, ...nothing, finished: false });
}

function finishJob(snapshot: Snapshot, id: JobId): Snapshot {
  const job = liveJob(snapshot, id);
  const jobs = new Map(snapshot.jobs);
  const demand = { rollouts: 0, runnable: 0, tokensRemaining: 0 };
  setEngines(jobs, { ...job, demand, finished: true }, job.engines);
  const requests = snapshot.requests.filter((request) => request.job !== id);
  const grants = snapshot.grants.filter((grant) => grant.job !== id);
  return { ...snapshot, jobs, requests, grants };
}

function requestStage(snapshot: Snapshot, event: SchedulerEvent & { kind: 'stageRequested' }): Snapshot {
  const { stage, lanes, bytes } = event;
  const job = liveJob(snapshot, event.job).id;
  assert(isExclusive(stage), `${job} asks for ${stage}, which follows demand`);
  assert(
    lanes.length > 0 && new Set(lanes).size === lanes.length,
    `${job}'s ${stage} asks for lanes ${lanes.join(', ')}`,
  );
  for (const lane of lanes) assert(snapshot.lanes[lane] !== undefined, `${job}'s ${stage}: no lane ${lane}`);
  assert(isCount(bytes), `${job}'s ${stage} asks for ${bytes} bytes`);
  assert(snapshot.requests.length < REQUESTS_MAX, `${REQUESTS_MAX} requests wait already`);
  const lastRequest = snapshot.lastRequest + 1;
  const request = { id: lastRequest, job, stage, lanes, bytes, askedMs: snapshot.timeMs, overtaken: 0 };
  return { ...snapshot, lastRequest, requests: [...snapshot.requests, request] };
}

function releaseStage(snapshot: Snapshot, request: number): Snapshot {
  const grants = snapshot.grants.filter((grant) => grant.request !== request);
  assert(grants.length === snapshot.grants.length - 1, `request ${request} holds nothing`);
  return { ...snapshot, grants };
}

function changeDemand(
  snapshot: Snapshot,
  id: JobId,
  demand: Demand,
  ended: readonly EndedRollout[] = [],
): Snapshot {
  const job = liveJob(snapshot, id);
  const { rollouts, runnable, tokensRemaining, deferredPrompts = 0 } = demand;
  assert(isCount(deferredPrompts), `${id}: ${deferredPrompts} prompts deferred`);
  assert(
    isCount(rollouts) && isCount(runnable) && runnable <= rollouts,
    `${id}: ${runnable} runnable of ${rollouts}`,
  );
  assert(
    tokensRemaining >= 0 && Number.isFinite(tokensRemaining),
    `${id}: ${tokensRemaining} tokens remaining`,
  );
  const lengths = withEnded(job.lengths, ended);
  const deferred = deferredPrompts > 0 ? { deferredPrompts } : {};
  return withJob(snapshot, { ...job, demand: { rollouts, runnable, tokensRemaining, ...deferred }, lengths });
}

function progress(snapshot: Snapshot, event: SchedulerEvent & { kind: 'progress' }): Snapshot {
  const { running, version, tokens } = event;
  assert(isCount(running), `${running} sequences running`);
  assert(isCount(tokens), `${tokens} tokens sampled`);
  const next = changeEngine(snapshot, event, (engine) => {
    assert(version >= engine.version, `engine went back from version ${engine.version} to ${version}`);
    const { tokenLatencyMs = engine.tokenLatencyMs, stepMs = engine.stepMs } = event;
    assert(stepMs === null || stepMs > 0, `a step of ${stepMs} ms`);
    return { ...engine, running, version, tokenLatencyMs, stepMs };
  });
  const job = next.jobs.get(event.job);
  return tokens === 0 || job === undefined
    ? next
    : withJob(next, { ...job, tokensDone: job.tokensDone + tokens });
}

function publish(snapshot: Snapshot, id: JobId, version: number): Snapshot {
  const job = liveJob(snapshot, id);
  assert(
    Number.isInteger(version) && version > job.version,
    `${id}: version ${version} after ${job.version}`,
  );
  return withJob(snapshot, { ...job, version });
}

function changeEngine(
  snapshot: Snapshot,
  where: { readonly job: JobId; readonly lane: LaneId },
  change: (engine: EngineState) => EngineState | null,
): Snapshot {
  const job = snapshot.jobs.get(where.job);
  assert(job !== undefined, `no job ${where.job}`);
  const engine = engineOn(job, where.lane);
  assert(engine !== undefined, `${job.id} is asleep on lane ${where.lane}`);
  const next = change(engine);
  const engines =
    next === null
      ? withoutLane(job.engines, where.lane)
      : job.engines.map((other) => (other === engine ? next : other));
  const jobs = new Map(snapshot.jobs);
  setEngines(jobs, job, engines);
  return { ...snapshot, jobs };
}

/** A finished job leaves with its last engine: nothing remembers it, so nothing can be kept for it. */
function setEngines(jobs: Map<JobId, JobState>, job: JobState, engines: readonly EngineState[]): void {
  if (job.finished && engines.length === 0) jobs.delete(job.id);
  else jobs.set(job.id, { ...job, engines });
}

function liveJob(snapshot: Snapshot, id: JobId): JobState {
  const job = snapshot.jobs.get(id);
  assert(job !== undefined && !job.finished, `no job ${id}, or it has finished`);
  return job;
}

function withLane(snapshot: Snapshot, lane: LaneState): Snapshot {
  return { ...snapshot, lanes: snapshot.lanes.with(lane.id, lane) };
}

function withJob(snapshot: Snapshot, job: JobState): Snapshot {
  return { ...snapshot, jobs: new Map(snapshot.jobs).set(job.id, job) };
}

function withoutLane(engines: readonly EngineState[], lane: LaneId): EngineState[] {
  return engines.filter((engine) => engine.lane !== lane);
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
