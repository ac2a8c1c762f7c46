import type { AptSource } from './apt-sources.mjs';

export interface OsRelease {
  readonly id: string;
  readonly idLike: readonly string[];
  /** Debian's or Ubuntu's code name; empty where there is none. */
  readonly codename: string;
  readonly name: string;
}

export type PackageManager = 'apt' | 'dnf' | 'pacman' | 'zypper' | 'apk';

export interface Facts {
  /** As `process.platform`. */
  readonly platform: string;
  readonly osRelease: OsRelease;
  readonly manager: PackageManager | null;
  readonly rights: 'root' | 'sudo' | 'none';
  readonly aptSources: readonly AptSource[];
  /** `apt-cache policy mesa-vulkan-drivers` in the C locale; empty where there is no apt. */
  readonly policy: string;
}

export type Plan =
  /** Install through apt: add `sourceLine` where it is given, refresh the lists, install from `release`. */
  | { readonly kind: 'apt'; readonly sourceLine: string | null; readonly release: string | null }
  /** Nothing set-up may do: say why, and the one command to type where there is one. */
  | { readonly kind: 'stop'; readonly why: string; readonly command: string | null };

export const MESA_MAJOR_MIN: number;
export const APT_PACKAGES: readonly string[];
export const BACKPORTS_LIST: string;
export const MANAGER_PROGRAMS: Readonly<Record<PackageManager, string>>;
export function parseOsRelease(text: string): OsRelease;
export function packageManager(
  osRelease: OsRelease,
  exists: (program: string) => boolean,
): PackageManager | null;
export function majorVersion(version: string | null): number | null;
export function offeredVersion(policy: string, release: string | null): string | null;
export function planDriver(facts: Facts): Plan;
export function offerProblem(policy: string, release: string | null, systemName: string): string | null;
export function installCommand(release: string | null): string[];
export function driverOverrides(env: Record<string, string | undefined>): { name: string; text: string }[];
