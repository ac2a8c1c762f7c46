import type { SchedulerEvent } from '#src/scheduler/events.js';
import type { Policy } from '#src/scheduler/plan.js';
import { decide } from '#src/scheduler/scheduler.js';
import type { JobSpec, Snapshot } from '#src/scheduler/state.js';
import { added, after, asks, jobSpec, lanesUp, settled, wants } from './world.js';

export const LANES = Array.from({ length: 1000 }, (_, lane) => lane);
export const JOBS = Array.from({ length: 100 }, (_, job) => job);

/** What a world of 100 jobs on 1,000 lanes is like beside that. */
export interface BigWorld {
  /** Lanes on which each job could keep an engine busy. */
  readonly lanesWanted: number;
  /** Every other job has a limit on its tokens' latency. */
  readonly hasForeground?: boolean;
  /** Engines of 1 GB that a lane can hold beside its trainer; as many as like by default. */
  readonly enginesPerLane?: number;
  /** Stages for which each job waits, and on how many lanes each; one on one lane by default. */
  readonly stages?: { readonly count: number; readonly lanes: number };
}

const GB = 1e9;
const SLOTS = 8;
const TRAINER_BYTES = GB;

function specOf(job: number, { hasForeground = false }: BigWorld): JobSpec {
  return jobSpec(`job${job}`, {
    trainerLane: job * 10,
    engineLanes: LANES,
    slotsMax: SLOTS,
    engineBytes: GB,
    trainerBytes: TRAINER_BYTES,
    weight: 1 + (job % 3),
    tokenLatencyMs: hasForeground && job % 2 === 0 ? 20 : null,
    kv: { tokens: 8192, sequenceTokensMax: 1024 },
  });
}

/** 100 jobs, each allowed on every lane, that have told of some rollouts' lengths. */
function crowd(world: BigWorld): Snapshot {
  const { lanesWanted, enginesPerLane = 1000 } = world;
  const ended = [20, 100, 100, 400].map((tokens) => ({ promptTokens: 50, tokens }));
  const events = JOBS.flatMap((job): SchedulerEvent[] => {
    const spec = specOf(job, world);
    return [added(spec), wants(spec.id, lanesWanted * SLOTS, lanesWanted * SLOTS, ended)];
  });
  return after(lanesUp(LANES.length, TRAINER_BYTES + enginesPerLane * GB), ...events);
}

/** Everything that was ordered has happened, and every engine has told how it does. */
function underWay(snapshot: Snapshot, policy: Policy): Snapshot {
  let now = snapshot;
  for (let plans = 0; plans < 2; plans++) {
    now = settled(decide(now, policy).next);
    const jobs = new Map(now.jobs);
    for (const [id, job] of now.jobs) {
      const engines = job.engines.map((engine) => {
        const tokenLatencyMs = 5 + (engine.lane % 20);
        return { ...engine, running: engine.slots, tokenLatencyMs, stepMs: 1 + (engine.lane % 7) };
      });
      jobs.set(id, { ...job, engines });
    }
    now = { ...now, jobs };
  }
  return now;
}

/** The stages of a world: those of one job side by side from its trainer's lane on, so that neighbours' overlap. */
function stagesOf({ stages = { count: 1, lanes: 1 } }: BigWorld): SchedulerEvent[] {
  const kinds = ['actorTraining', 'refLogProbs', 'oldLogProbs'] as const;
  return Array.from(
    { length: stages.count },
    (_, count) => kinds[count % kinds.length] ?? 'actorTraining',
  ).flatMap((stage, count) =>
    JOBS.map((job) => {
      const first = job * 10 + count;
      const lanes = Array.from({ length: stages.lanes }, (_, lane) => (first + lane) % LANES.length);
      return asks(
        `job${job}`,
        stage,
        lanes.sort((a, b) => a - b),
        GB / 2,
      );
    }),
  );
}

/** A world that the policy has come to by itself, and then the news that it has to plan for. */
export function bigWorld(world: BigWorld, policy: Policy): Snapshot {
  const settledIn = underWay(crowd(world), policy);
  return after(settledIn, ...stagesOf(world), wants('job7', world.lanesWanted * SLOTS + 1));
}

export const requestsOf = ({ stages = { count: 1, lanes: 1 } }: BigWorld): number =>
  stages.count * JOBS.length;
