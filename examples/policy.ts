// A scheduling policy of one's own: a pure function from what there is to what shall change.
//
//   npx offbeat run examples/two-lanes.toml --policy ./examples/policy.ts
//
// Stages such as training go first, in the order they asked. Every engine is awake where it fits; where memory is
// short, that of the job with least left to generate comes first. Each plan is checked before anything happens: one
// that breaks a rule is thrown away, the log says which rule, and the run goes on under the last good plan.
import type { Plan, Snapshot } from 'offbeat';

export default function leastLeftFirst({ lanes, jobs, requests, grants }: Snapshot): Plan {
  const inOrder = [...jobs.values()].sort((a, b) => a.demand.tokensRemaining - b.demand.tokensRemaining);
  const isUsable = (lane: number) => lanes[lane]?.health === 'ready' && !lanes[lane].reserved;

  // Memory: what trainers and stages leave on each lane, and what of that no engine holds now.
  const room = new Map(lanes.map((lane) => [lane.id, lane.bytesCapacity]));
  const hold = (part: Map<number, number>, lane: number, bytes: number) =>
    part.set(lane, (part.get(lane) ?? 0) - bytes);
  for (const job of inOrder) if (job.trainerLane !== null) hold(room, job.trainerLane, job.trainerBytes);
  for (const grant of grants) for (const lane of grant.lanes) hold(room, lane, grant.bytes);
  const free = new Map(room);
  for (const job of inOrder) for (const engine of job.engines) hold(free, engine.lane, engine.bytes);

  // Stages: all their lanes or none. One that lacks only memory keeps its lanes, and the engines there fall asleep.
  const busy = new Set(grants.flatMap((grant) => grant.lanes));
  const crowded = new Set<number>();
  const grant = [];
  for (const { id, lanes: wanted, bytes } of requests) {
    if (!wanted.every((lane) => isUsable(lane) && (room.get(lane) ?? 0) >= bytes)) continue;
    const isNext = wanted.every((lane) => !busy.has(lane));
    const short = wanted.filter((lane) => (free.get(lane) ?? 0) < bytes);
    if (isNext && short.length === 0) grant.push({ request: id, reason: 'first to ask' });
    for (const lane of isNext ? wanted : []) hold(free, lane, bytes);
    for (const lane of isNext ? short : []) crowded.add(lane);
    for (const lane of wanted) busy.add(lane);
  }

  // Engines: what each runs when it falls asleep goes back to its job's queue, and on from there.
  const [sleep, wake]: [Plan['sleep'][number][], Plan['wake'][number][]] = [[], []];
  for (const job of inOrder) {
    for (const { lane, status } of job.engines) {
      const isWanted = !job.finished && isUsable(lane) && !crowded.has(lane);
      if (status === 'awake' && !isWanted)
        sleep.push({ job: job.id, lane, moveTo: 'queue', reason: 'gives way' });
    }
    for (const lane of job.engineLanes) {
      const isAwake = job.engines.some((engine) => engine.lane === lane);
      if (isAwake || job.finished || !isUsable(lane) || (free.get(lane) ?? 0) < job.engineBytes) continue;
      hold(free, lane, job.engineBytes);
      wake.push({ job: job.id, lane, slots: job.slotsMax, version: job.version, reason: 'there is room' });
    }
  }
  return { grant, sleep, wake, resize: [], reservations: [] };
}
