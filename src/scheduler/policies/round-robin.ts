import { z } from 'zod';
import { at } from '../../lib/assert.js';
import { Draft } from '../draft.js';
import type { Plan, PolicyDefinition } from '../plan.js';
import type { JobId, JobState, LaneId, Snapshot } from '../state.js';
import { Allotment, contenders, reach } from './allotment.js';
import { remembered, wholeNumber } from './options.js';
import { byTier, placeStages } from './stage-placement.js';

const optionsSchema = z.strictObject({
  /** How long a job keeps a lane while others want it. */
  turn_ms: wholeNumber(1, 86_400_000).default(1000),
});

type Options = z.output<typeof optionsSchema>;

const turnSchema = z.object({ lane: z.number(), job: z.string(), sinceMs: z.number() });
const memorySchema = z.object({ turns: z.array(turnSchema) });

type Turn = z.output<typeof turnSchema>;

/**
 * Jobs take turns on each lane, in order of arrival, `turn_ms` each. Whoever is at turn has all its slots there; the
 * others hold their sequences where they are, KV cache and all, as far as memory allows. A turn ends early when there
 * is nothing left to run, and goes on while nobody else wants the lane. Stages by tier.
 */
export const roundRobin: PolicyDefinition<Options> = {
  name: 'roundRobin',
  after: null,
  summary: 'jobs take turns on each lane, turn_ms each',
  isWorkConserving: true,
  turnsMax: 1,
  options: optionsSchema,
  create: (options) => (snapshot) => plan(snapshot, options.turn_ms),
};

function plan(snapshot: Snapshot, turnMs: number): Plan {
  const draft = new Draft(snapshot);
  placeStages(draft, byTier(snapshot.requests));
  const allotment = new Allotment(draft);
  const lanes = new TurnTable(allotment);
  const before = remembered(memorySchema, snapshot.memory)?.turns ?? [];
  const last = new Map(before.map((turn) => [turn.lane, turn]));
  const turns: Turn[] = [];
  let reviewAtMs = Infinity;
  for (const { id: lane } of snapshot.lanes) {
    const wanting = lanes.wanting(lane);
    const turn = nextTurn(wanting, lane, last.get(lane), snapshot, turnMs);
    if (turn === null) continue;
    turns.push(turn);
    lanes.give(turn.job, lane);
    if (wanting.length > 1) reviewAtMs = Math.min(reviewAtMs, turn.sinceMs + turnMs);
  }
  reach(allotment);
  const isAlone = reviewAtMs === Infinity;
  return { ...draft.plan(), memory: { turns }, ...(isAlone ? {} : { reviewAtMs }) };
}

/** @param wanting in order of arrival. */
function nextTurn(
  wanting: readonly JobState[],
  lane: LaneId,
  last: Turn | undefined,
  { timeMs, jobs }: Snapshot,
  turnMs: number,
): Turn | null {
  const [first] = wanting;
  if (first === undefined) return null;
  const isOver = last === undefined || timeMs >= last.sinceMs + turnMs;
  const goesOn = wanting.some((job) => job.id === last?.job) && (wanting.length === 1 || !isOver);
  if (last !== undefined && goesOn) return last;
  const order = new Map([...jobs.keys()].map((id, index) => [id, index]));
  const place = order.get(last?.job ?? '') ?? -1;
  const next = wanting.find((job) => (order.get(job.id) ?? -1) > place) ?? first;
  return { lane, job: next.id, sinceMs: timeMs };
}

/** Who wants which lane: those that run something there, and those with sequences that no lane has a slot for yet. */
class TurnTable {
  readonly #jobs: readonly JobState[];
  readonly #laneCount: number;
  /** By job and lane: 1 where it may generate, and the sequences it runs there. */
  readonly #isOpen: Uint8Array<ArrayBuffer>;
  readonly #running: Uint32Array<ArrayBuffer>;
  /** By job: sequences without a slot on any lane looked at so far, and running nowhere. */
  readonly #missing: number[];

  constructor(readonly allotment: Allotment) {
    const { draft } = allotment;
    this.#jobs = contenders(draft);
    this.#laneCount = draft.snapshot.lanes.length;
    this.#isOpen = new Uint8Array(this.#jobs.length * this.#laneCount);
    this.#running = new Uint32Array(this.#jobs.length * this.#laneCount);
    this.#missing = this.#jobs.map((job, index) => {
      const first = index * this.#laneCount;
      for (const lane of job.engineLanes) this.#isOpen[first + lane] = 1;
      let missing = job.demand.runnable;
      for (const engine of job.engines) {
        if (draft.isLeaving(engine)) continue;
        this.#running[first + engine.lane] = engine.running;
        missing -= engine.running;
      }
      return missing;
    });
  }

  /** In order of arrival. */
  wanting(lane: LaneId): JobState[] {
    const wanting: JobState[] = [];
    for (let index = 0; index < this.#jobs.length; index++) {
      const place = index * this.#laneCount + lane;
      // Plain indexing: this is asked once for every job and lane there is.
      if (this.#isOpen[place] !== 1) continue;
      if ((this.#missing[index] ?? 0) <= 0 && this.#running[place] === 0) continue;
      const job = this.#jobs[index];
      if (job !== undefined && this.allotment.fits(job, lane)) wanting.push(job);
    }
    return wanting;
  }

  give(id: JobId, lane: LaneId): void {
    const index = this.#jobs.findIndex((job) => job.id === id);
    const job = at(this.#jobs, index);
    const running = at(this.#running, index * this.#laneCount + lane);
    this.allotment.give(job, lane, job.slotsMax);
    this.#missing[index] = at(this.#missing, index) - (job.slotsMax - running);
  }
}
