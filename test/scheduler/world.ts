import type { Random } from '#src/lib/prng.js';
import { reduce, type SchedulerEvent } from '#src/scheduler/events.js';
import type { EndedRollout } from '#src/scheduler/lengths.js';
import type { Plan } from '#src/scheduler/plan.js';
import { isExclusive, STAGES, type ExclusiveStage } from '#src/scheduler/stages.js';
import {
  createSnapshot,
  type EngineState,
  type JobSpec,
  type JobState,
  type LaneId,
  type Snapshot,
} from '#src/scheduler/state.js';

/** Folds events at the snapshot's own time. */
export function after(snapshot: Snapshot, ...events: readonly SchedulerEvent[]): Snapshot {
  return events.reduce((state, event) => reduce(state, event, state.timeMs), snapshot);
}

/** Lanes that are up. */
export function lanesUp(count: number, bytesCapacity = Infinity): Snapshot {
  const events = Array.from(
    { length: count },
    (_, lane) => ({ kind: 'laneReady', lane, bytesCapacity }) as const,
  );
  return after(createSnapshot(count, 0), ...events);
}

export function jobSpec(id: string, part: Partial<JobSpec> = {}): JobSpec {
  const base = { trainerLane: 0, engineLanes: [0], slotsMax: 4, engineBytes: 0, trainerBytes: 0, version: 0 };
  return { id, ...base, weight: 1, stepRollouts: 8, tokenLatencyMs: null, ...part };
}

export const added = (job: JobSpec): SchedulerEvent => ({ kind: 'jobAdded', job });

export const asks = (
  job: string,
  stage: ExclusiveStage,
  lanes: readonly LaneId[],
  bytes = 0,
): SchedulerEvent => ({ kind: 'stageRequested', job, stage, lanes, bytes });

export const wants = (
  job: string,
  rollouts: number,
  runnable = rollouts,
  ended: readonly EndedRollout[] = [],
): Extract<SchedulerEvent, { kind: 'demandChanged' }> => ({
  kind: 'demandChanged',
  job,
  demand: { rollouts, runnable, tokensRemaining: rollouts * 10 },
  ...(ended.length > 0 ? { ended } : {}),
});

/** An engine's way to awake, without a plan. */
export function awake(snapshot: Snapshot, job: string, lane: LaneId, running = 0, slots?: number): Snapshot {
  const state = snapshot.jobs.get(job);
  if (state === undefined) throw new Error(`no job ${job}`);
  const { engineBytes: bytes, slotsMax, version } = state;
  const held = { running, version, tokenLatencyMs: null, stepMs: null, bytes };
  const engine: EngineState = { lane, status: 'awake', slots: slots ?? slotsMax, ...held };
  const engines = [...state.engines, engine].sort((a, b) => a.lane - b.lane);
  return { ...snapshot, jobs: new Map(snapshot.jobs).set(job, { ...state, engines }) };
}

/** A plan in one line an order, without the reasons. */
export function lines(plan: Plan): string[] {
  return [
    ...plan.sleep.map(({ job, lane }) => `sleep ${job} on ${lane}`),
    ...plan.resize.map(({ job, lane, slots }) => `resize ${job} on ${lane} to ${slots}`),
    ...plan.grant.map(({ request }) => `grant ${request}`),
    ...plan.reservations.map(({ request, lanes }) => `keep ${lanes.join(',') || 'nothing'} for ${request}`),
    ...plan.wake.map(
      ({ job, lane, slots, version }) => `wake ${job} on ${lane} with ${slots} at v${version}`,
    ),
  ];
}

/** Everything that was ordered has happened. */
export function settled(snapshot: Snapshot): Snapshot {
  const events: SchedulerEvent[] = [];
  for (const { id, engines } of snapshot.jobs.values()) {
    for (const { lane, status, version } of engines) {
      if (status === 'waking') events.push({ kind: 'wokeUp', job: id, lane, version });
      if (status === 'fallingAsleep') events.push({ kind: 'fellAsleep', job: id, lane });
    }
  }
  return after(snapshot, ...events);
}

export function released(snapshot: Snapshot): Snapshot {
  return after(
    snapshot,
    ...snapshot.grants.map(({ request }) => ({ kind: 'stageReleased', request }) as const),
  );
}

const JOBS_MAX = 6;
const REQUESTS_MAX = 8;

/** An event that can happen now, weighted towards busy worlds; null when the drawn kind cannot. */
export function randomEvent(snapshot: Snapshot, random: Random): SchedulerEvent | null {
  const jobs = [...snapshot.jobs.values()];
  const live = jobs.filter((job) => !job.finished);
  const lane = random.int(0, snapshot.lanes.length - 1);
  const isReady = snapshot.lanes[lane]?.health === 'ready';
  const draw = random.int(0, 99);
  if (draw < 6)
    return isReady ? null : { kind: 'laneReady', lane, bytesCapacity: capacity(snapshot, lane, random) };
  if (draw < 7) return isReady ? { kind: 'laneLost', lane, reason: 'test' } : null;
  if (draw < 10) return { kind: snapshot.lanes[lane]?.reserved ? 'laneUnreserved' : 'laneReserved', lane };
  if (draw < 18) return jobs.length < JOBS_MAX ? added(randomJob(snapshot, random)) : null;
  if (draw < 55) return randomEngineEvent(jobs, random);
  if (live.length === 0) return null;
  const job = random.pick(live);
  if (draw < 57) return { kind: 'jobFinished', job: job.id };
  if (draw < 72) return snapshot.requests.length < REQUESTS_MAX ? randomAsk(job, snapshot, random) : null;
  if (draw < 84) {
    if (snapshot.grants.length === 0) return null;
    return { kind: 'stageReleased', request: random.pick(snapshot.grants).request };
  }
  if (draw < 95) {
    const rollouts = random.int(0, 3) === 0 ? 0 : random.int(0, 24);
    const event = wants(job.id, rollouts, random.int(0, rollouts), endedRollouts(rollouts));
    return { ...event, demand: { ...event.demand, deferredPrompts: (rollouts * 7) % 12 } };
  }
  return { kind: 'versionPublished', job: job.id, version: job.version + random.int(1, 2) };
}

/** Of two samples a prompt where that comes out even. */
function steps(stepRollouts: number): Pick<JobSpec, 'stepRollouts' | 'step'> {
  const samples = stepRollouts % 2 === 0 ? 2 : 1;
  return stepRollouts === 0
    ? { stepRollouts }
    : { stepRollouts, step: { prompts: stepRollouts / samples, samples } };
}

/** A lane keeps its size over its lives: half of them tell none. */
function capacity(snapshot: Snapshot, lane: LaneId, random: Random): number {
  const known = snapshot.lanes[lane];
  if (known !== undefined && known.epoch > 0) return known.bytesCapacity;
  return random.int(0, 2) === 0 ? Infinity : random.int(80, 250);
}

function randomJob(snapshot: Snapshot, random: Random): JobSpec {
  const engineLanes = snapshot.lanes.map((lane) => lane.id).filter(() => random.int(0, 3) > 0);
  let number = 0;
  while (snapshot.jobs.has(`job${number}`)) number++;
  return {
    id: `job${number}`,
    trainerLane: random.int(0, 5) === 0 ? null : random.int(0, snapshot.lanes.length - 1),
    engineLanes,
    slotsMax: random.int(1, 6),
    engineBytes: random.int(0, 60),
    trainerBytes: random.int(0, 15),
    version: random.int(0, 3),
    weight: random.pick([0.5, 1, 1, 3]),
    ...steps(random.int(0, 16)),
    tokenLatencyMs: random.int(0, 3) === 0 ? random.int(5, 50) : null,
    kv: { tokens: 256, sequenceTokensMax: 64 },
  };
}

function randomEngineEvent(jobs: readonly JobState[], random: Random): SchedulerEvent | null {
  const engines = jobs.flatMap((job) => job.engines.map((engine) => ({ job, engine })));
  if (engines.length === 0) return null;
  const { job, engine } = random.pick(engines);
  const { lane, slots } = engine;
  if (engine.status === 'waking') {
    return {
      kind: 'wokeUp',
      job: job.id,
      lane,
      version: random.int(engine.version, Math.max(engine.version, job.version)),
    };
  }
  if (engine.status === 'fallingAsleep') return { kind: 'fellAsleep', job: job.id, lane };
  const running = random.int(0, 1) * random.int(0, slots);
  const version = Math.max(engine.version, job.version);
  const tokens = random.int(0, 100);
  const tokenLatencyMs = random.int(1, 100);
  const told = { tokens, tokenLatencyMs, stepMs: tokenLatencyMs / 8 };
  return { kind: 'progress', job: job.id, lane, running, version, ...told };
}

/** As many rollouts, of all lengths that fit the caches of `randomJob`. */
function endedRollouts(count: number): EndedRollout[] {
  return Array.from({ length: count }, (_, index) => ({
    promptTokens: 4,
    tokens: 1 + ((index * index) % 60),
  }));
}

function randomAsk(job: JobState, snapshot: Snapshot, random: Random): SchedulerEvent {
  const chosen = snapshot.lanes.map((lane) => lane.id).filter(() => random.int(0, 2) === 0);
  const lanes = chosen.length > 0 ? chosen : [random.int(0, snapshot.lanes.length - 1)];
  const bytes = random.int(0, 1) * random.int(0, random.int(0, 9) === 0 ? 300 : 90);
  return asks(job.id, random.pick(STAGES.filter(isExclusive)), lanes, bytes);
}
