import type { FleetEvents } from './fleet.js';

/** What a run does about its lanes' news. */
export type Listener = Omit<FleetEvents, 'onBroken'>;

const NOBODY: Listener = {
  onTokens: () => undefined,
  onLost: () => undefined,
  furnish: () => Promise.resolve(),
  onRebuilt: () => undefined,
};

/** Takes what lanes send; who wants it exists only once the lanes do. */
export class Inbox implements FleetEvents {
  listener = NOBODY;

  constructor(readonly onBroken: FleetEvents['onBroken']) {}

  readonly onTokens: Listener['onTokens'] = (lane, update) => this.listener.onTokens(lane, update);
  readonly onLost: Listener['onLost'] = (lane, error) => this.listener.onLost(lane, error);
  readonly furnish: Listener['furnish'] = (trainer) => this.listener.furnish(trainer);
  readonly onRebuilt: Listener['onRebuilt'] = (lane, seconds) => this.listener.onRebuilt(lane, seconds);
}
