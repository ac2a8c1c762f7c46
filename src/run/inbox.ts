import type { FleetEvents } from './fleet.js';

/** What a run does about its lanes' news. */
export type Listener = Pick<FleetEvents, 'onLost' | 'onRebuilt'>;

const NOBODY: Listener = { onLost: () => undefined, onRebuilt: () => undefined };

/** Takes what lanes send; who wants it exists only once the lanes do. */
export class Inbox implements FleetEvents {
  listener = NOBODY;

  constructor(
    readonly onRecords: FleetEvents['onRecords'],
    readonly onBroken: FleetEvents['onBroken'],
  ) {}

  readonly onLost: Listener['onLost'] = (lane, error) => this.listener.onLost(lane, error);
  readonly onRebuilt: Listener['onRebuilt'] = (lane, seconds) => this.listener.onRebuilt(lane, seconds);
}
