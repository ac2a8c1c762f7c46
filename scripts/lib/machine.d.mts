import type { Facts } from './driver-plan.mjs';

export interface Probe {
  readonly found: boolean;
  /** Of the adapter, where one was found. */
  readonly description?: string;
  /** Why the search could not be made at all; null when it was made. */
  readonly loadError: string | null;
}

export function probeAdapter(env?: Record<string, string | undefined>): Promise<Probe>;
export function probeWithoutOverrides(): Promise<Probe>;
export function readPolicy(): Promise<string>;
export function readFacts(): Promise<Facts>;
