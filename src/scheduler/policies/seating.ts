import { at } from '../../lib/assert.js';
import type { LaneId } from '../state.js';

export interface Guest {
  /** Lanes that it may have. */
  readonly lanes: readonly LaneId[];
  /** Those among them that it likes best. */
  readonly liked: readonly LaneId[];
}

/**
 * A lane for every guest among those it may have, with at most `seats` guests on one lane; null if there is no such
 * seating. Augmenting paths (Kuhn, 1955): a guest whose lanes are all taken has somebody move on, who may have a third
 * one move on, and so forth.
 */
export function seat(guests: readonly Guest[], laneCount: number, seats: number): LaneId[] | null {
  const seated: number[][] = Array.from({ length: laneCount }, () => []);
  const hasSeat = (lane: LaneId): boolean => at(seated, lane).length < seats;
  const place = (guest: number, tried: Uint8Array): boolean => {
    const { lanes, liked } = at(guests, guest);
    const free = liked.find(hasSeat) ?? lanes.find(hasSeat);
    if (free !== undefined) {
      at(seated, free).push(guest);
      return true;
    }
    for (const lane of lanes) {
      if (tried[lane] === 1) continue;
      tried[lane] = 1;
      const here = at(seated, lane);
      const mover = here.findIndex((other) => place(other, tried));
      if (mover < 0) continue;
      here[mover] = guest;
      return true;
    }
    return false;
  };
  for (let guest = 0; guest < guests.length; guest++) {
    if (!place(guest, new Uint8Array(laneCount))) return null;
  }
  const lanes = new Array<LaneId>(guests.length);
  seated.forEach((here, lane) => here.forEach((guest) => (lanes[guest] = lane)));
  return lanes;
}
