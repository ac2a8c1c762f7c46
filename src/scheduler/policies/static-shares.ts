import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import { engineOn, mayLiveOn, type JobId, type JobState, type LaneId, type Snapshot } from '../state.js';
import { Allotment, reach } from './allotment.js';
import { NO_OPTIONS, remembered } from './options.js';
import { seat, type Guest } from './seating.js';
import { byTier, placeStages } from './stage-placement.js';

const shareSchema = z.object({ lane: z.number(), slots: z.number() });
const memorySchema = z.object({
  /** Lanes that had come up by then. */
  laneCount: z.number(),
  shares: z.record(z.string(), z.array(shareSchema)),
});

type Share = z.output<typeof shareSchema>;
type Shares = Record<JobId, Share[]>;

/**
 * Lanes are dealt once, in proportion to weights, and never change hands, not even when they stand idle or their job
 * has finished: what people do by hand with two jobs and two devices. With too few lanes for that, the slots of every
 * lane are dealt. Only a new job, or a lane that comes up for the first time, has everything dealt anew. Stages by
 * tier.
 */
export const staticShares: PolicyDefinition<object> = {
  name: 'static',
  after: null,
  summary: 'lanes, or the slots of a lane, are dealt once by weight and never change hands',
  isWorkConserving: false,
  turnsMax: 1,
  options: NO_OPTIONS,
  create: () => plan,
};

function plan(snapshot: Snapshot): Plan {
  const draft = new Draft(snapshot);
  placeStages(draft, byTier(snapshot.requests));
  const laneCount = snapshot.lanes.filter((lane) => lane.epoch > 0).length;
  const jobs = [...snapshot.jobs.values()].filter((job) => !job.finished);
  const before = remembered(memorySchema, snapshot.memory);
  const isDealt = before?.laneCount === laneCount && jobs.every((job) => isShareOf(job, before.shares));
  const shares = isDealt ? before.shares : deal(snapshot, jobs);
  const allotment = new Allotment(draft);
  for (const job of jobs) {
    for (const { lane, slots } of shares[job.id] ?? []) {
      const isWanted = job.demand.rollouts > 0 || engineOn(job, lane) !== undefined;
      if (isWanted && allotment.fits(job, lane)) allotment.give(job, lane, slots);
    }
  }
  reach(allotment);
  const present = Object.fromEntries(jobs.map((job) => [job.id, shares[job.id] ?? []]));
  return { ...draft.plan(), memory: { laneCount, shares: present } };
}

/** A job may have come under the name of one that has gone. */
function isShareOf(job: JobState, shares: Shares): boolean {
  if (!Object.hasOwn(shares, job.id)) return false;
  return (shares[job.id] ?? []).every(({ lane, slots }) => mayLiveOn(job, lane) && slots <= job.slotsMax);
}

interface Player extends Guest {
  readonly job: JobState;
}

function deal(snapshot: Snapshot, jobs: readonly JobState[]): Shares {
  const room = bytesForEngines(snapshot);
  const players = jobs.map((job): Player => {
    const lanes = job.engineLanes.filter((lane) => job.engineBytes <= at(room, lane));
    return { job, lanes, liked: lanes.filter((lane) => lane === job.trainerLane) };
  });
  const able = players.filter(({ lanes }) => lanes.length > 0);
  const seats = seat(able, snapshot.lanes.length, 1);
  const shares: Shares = Object.fromEntries(jobs.map((job) => [job.id, []]));
  if (seats === null) dealSlots(able, shares, snapshot.lanes.length);
  else dealLanes(able, shares, seats);
  return shares;
}

/** By lane: bytes that trainers leave; -1 where the lane has never come up. */
function bytesForEngines({ lanes, jobs }: Snapshot): number[] {
  const room = lanes.map((lane) => (lane.epoch > 0 ? lane.bytesCapacity : -1));
  for (const { trainerLane, trainerBytes } of jobs.values()) {
    if (trainerLane !== null) room[trainerLane] = at(room, trainerLane) - trainerBytes;
  }
  return room;
}

/** One lane each; the others one by one to whoever has fewest for its weight (Jefferson, or D'Hondt). */
function dealLanes(players: readonly Player[], shares: Shares, seats: readonly LaneId[]): void {
  const takers = new Map<LaneId, Player[]>();
  for (const player of players) {
    for (const lane of player.lanes) {
      const others = takers.get(lane);
      if (others === undefined) takers.set(lane, [player]);
      else others.push(player);
    }
  }
  const give = ({ job }: Player, lane: LaneId): void => {
    shares[job.id]?.push({ lane, slots: job.slotsMax });
    takers.delete(lane);
  };
  players.forEach((player, index) => give(player, at(seats, index)));
  const claim = ({ job }: Player): number => job.weight / ((shares[job.id]?.length ?? 0) + 1);
  for (const lane of [...takers.keys()].sort((a, b) => a - b)) {
    const wanting = takers.get(lane) ?? [];
    give(
      wanting.reduce((best, player) => (claim(player) > claim(best) ? player : best)),
      lane,
    );
  }
}

/** Of every lane, to each job its part of that lane's weights, in its own slots and at least one. */
function dealSlots(players: readonly Player[], shares: Shares, laneCount: number): void {
  for (let lane = 0; lane < laneCount; lane++) {
    const here = players.filter((player) => player.lanes.includes(lane));
    const weights = here.reduce((sum, { job }) => sum + job.weight, 0);
    for (const { job } of here) {
      const slots = Math.max(Math.floor((job.slotsMax * job.weight) / weights), 1);
      shares[job.id]?.push({ lane, slots });
    }
  }
}
