/** One apt source that is switched on. */
export interface AptSource {
  readonly uri: string;
  readonly releases: readonly string[];
  readonly components: readonly string[];
  /** Path of the key ring, where the source names one. */
  readonly signedBy: string | null;
  readonly checkValidUntil: boolean;
}

export function parseAptSources(path: string, text: string): AptSource[];
export function hasRelease(sources: readonly AptSource[], release: string): boolean;
export function siblingLine(sources: readonly AptSource[], release: string, wanted: string): string | null;
