import { z } from 'zod';
import type { JobId } from '../state.js';

/** Whose training comes next on a lane, or is under way. Plain JSON. */
export interface Turn {
  readonly job: JobId;
  readonly sinceMs: number;
  /** The job's version when its turn began: a newer one ends it. */
  readonly version: number;
  /** The job has been granted a stage in this turn: it is in its training phase. */
  readonly isTaken: boolean;
  /** Since when it neither holds nor asks for a stage, within a turn taken. */
  readonly idleSinceMs: number | null;
}

export const turnSchema: z.ZodType<Turn> = z.object({
  job: z.string(),
  sinceMs: z.number(),
  version: z.number(),
  isTaken: z.boolean(),
  idleSinceMs: z.number().nullable(),
});

/** A job that takes turns, as the ring sees it. */
export interface Member {
  readonly id: JobId;
  readonly version: number;
  /** Its co-execution group. */
  readonly group: number;
  /** It holds a stage of its training phase. */
  readonly isHolding: boolean;
  /** It asks for one that could be granted. */
  readonly isAsking: boolean;
  /** It asks for one that no other stage is in the way of. */
  readonly isReady: boolean;
  /** It asks for one that has been overtaken as often as may be. */
  readonly isOverdue: boolean;
  /** It has rollouts to make, or asks. */
  readonly hasWork: boolean;
}

export interface TurnBounds {
  /** A turn ends when its job neither holds nor asks for so long. */
  readonly gapMs: number;
  /** The longest that others of its group who ask wait for a job that has the turn and does not. */
  readonly waitMs: number;
}

/** The turn as of now; null when nobody in the ring has work. */
export function turnNow(
  turn: Turn | null,
  ring: readonly Member[],
  nowMs: number,
  bounds: TurnBounds,
): Turn | null {
  const index = turn === null ? -1 : ring.findIndex((member) => member.id === turn.job);
  const holder = ring[index];
  if (turn !== null && holder !== undefined) {
    const kept = keep(turn, holder, ring, nowMs, bounds);
    if (kept !== null) return kept;
  }
  const inOrder = [...ring.slice(index + 1), ...ring.slice(0, index + 1)];
  const hasWaitedInVain = turn !== null && !turn.isTaken && holder?.hasWork === true;
  const next =
    inOrder.find((member) => member.isOverdue) ??
    (hasWaitedInVain ? inOrder.find((member) => member.isReady) : undefined) ??
    inOrder.find((member) => member.hasWork);
  if (next === undefined) return null;
  return { job: next.id, sinceMs: nowMs, version: next.version, isTaken: false, idleSinceMs: null };
}

/** The turn if it goes on, null if it is over. */
function keep(
  turn: Turn,
  holder: Member,
  ring: readonly Member[],
  nowMs: number,
  { gapMs, waitMs }: TurnBounds,
): Turn | null {
  if (holder.isHolding) return { ...turn, isTaken: true, idleSinceMs: null };
  const others = ring.filter((member) => member !== holder);
  if (others.some((member) => member.isOverdue) && !holder.isOverdue) return null;
  if (!turn.isTaken) {
    if (!holder.hasWork) return null;
    return isPassedOver(holder, others, nowMs >= turn.sinceMs + waitMs) ? null : turn;
  }
  if (holder.version > turn.version) return null;
  if (holder.isAsking) return { ...turn, idleSinceMs: null };
  const idleSinceMs = turn.idleSinceMs ?? nowMs;
  return nowMs >= idleSinceMs + gapMs ? null : { ...turn, idleSinceMs };
}

/** Who does not ask is waited for by its own group alone, whose phases interleave, and not for ever. */
function isPassedOver(holder: Member, others: readonly Member[], hasWaited: boolean): boolean {
  if (holder.isAsking) return false;
  return others.some((member) => member.isReady && (hasWaited || member.group !== holder.group));
}

/** When time alone ends the turn; null when it does not, or it makes no difference to anybody. */
export function turnEndsAtMs(turn: Turn, ring: readonly Member[], bounds: TurnBounds): number | null {
  if (turn.isTaken) return turn.idleSinceMs === null ? null : turn.idleSinceMs + bounds.gapMs;
  const holder = ring.find((member) => member.id === turn.job);
  const isAwaited = holder?.isAsking === false && ring.some((member) => member.isReady);
  return isAwaited ? turn.sinceMs + bounds.waitMs : null;
}
