import type { Draft } from '../draft.js';
import { tierOf } from '../stages.js';
import type { StageRequest } from '../state.js';

/**
 * A request that this many plans have overtaken goes before every tier. It bounds the wait of a low tier under an
 * endless stream of higher ones, and is far above what one step of any job asks for.
 */
export const OVERTAKEN_MAX = 16;

/** By RLix's tiers, then by arrival; those overtaken too often first of all. */
export function byTier(requests: readonly StageRequest[]): StageRequest[] {
  const rank = (request: StageRequest): number =>
    request.overtaken >= OVERTAKEN_MAX ? -1 : tierOf(request.stage);
  return [...requests].sort((a, b) => rank(a) - rank(b) || a.id - b.id);
}

/**
 * Grants stages in the order given; all lanes of a request or none. A request that must wait keeps its lanes, so
 * nothing after it overtakes it; one whose lanes are lost, reserved or too small keeps nothing and moves nobody.
 */
export function placeStages(draft: Draft, inOrder: readonly StageRequest[]): void {
  for (const request of inOrder) placeStage(draft, request);
}

function placeStage(draft: Draft, request: StageRequest): void {
  const outOfUse = draft.outOfUse(request);
  if (outOfUse !== null) return draft.reserve(request, [], outOfUse);
  const inTheWay = draft.inTheWay(request);
  if (inTheWay !== null) return draft.reserve(request, request.lanes, inTheWay);

  const rooms = request.lanes.map((lane) => draft.room(lane, request.bytes));
  if (rooms.every((room) => room === 'free')) return draft.grant(request, 'all its lanes are free');
  const full = request.lanes[rooms.indexOf('never')];
  if (full !== undefined) {
    return draft.reserve(request, [], `lane ${full} can never free ${request.bytes} bytes`);
  }

  // Nobody is moved until it is certain that moving them is enough, on every lane.
  const isCertain = !rooms.includes('later');
  for (const room of isCertain ? rooms : []) {
    if (typeof room === 'string') continue;
    for (const resident of room) draft.sleep(resident, `makes room for ${request.job}'s ${request.stage}`);
  }
  for (const lane of request.lanes) draft.setAside(lane, request.bytes);
  const reason = isCertain
    ? 'engines are on their way to sleep to make room'
    : 'an engine has to wake up before it can make room';
  draft.reserve(request, request.lanes, reason);
}
