// What to do about a machine whose adapter search finds nothing: facts in, plan out. Nothing here looks at the
// machine or changes it, so every distribution can be tested on any other.
import { hasRelease, siblingLine } from './apt-sources.mjs';

/** @typedef {import('./driver-plan.d.mts').Facts} Facts */
/** @typedef {import('./driver-plan.d.mts').Plan} Plan */
/** @typedef {import('./driver-plan.d.mts').OsRelease} OsRelease */

/** Dawn refuses the lavapipe of Mesa 22.3 (Debian 12's own). */
export const MESA_MAJOR_MIN = 24;
export const APT_PACKAGES = ['libvulkan1', 'mesa-vulkan-drivers'];
export const BACKPORTS_LIST = '/etc/apt/sources.list.d/offbeat-backports.list';

const BOOKWORM = 'bookworm';
const BACKPORTS = 'bookworm-backports';
/** Only ever printed, for a machine whose own sources name no mirror: its user knows one. */
const DEFAULT_LINE = `deb URL-OF-YOUR-DEBIAN-MIRROR ${BACKPORTS} main`;
/** `--no-remove`: apt must stop rather than take away something the user has. */
const INSTALL = 'apt-get install -y --no-install-recommends --no-remove';

const FAMILY_MANAGERS = new Map([
  ['debian', 'apt'],
  ['ubuntu', 'apt'],
  ['fedora', 'dnf'],
  ['rhel', 'dnf'],
  ['arch', 'pacman'],
  ['suse', 'zypper'],
  ['opensuse', 'zypper'],
  ['alpine', 'apk'],
]);
export const MANAGER_PROGRAMS = {
  apt: 'apt-get',
  dnf: 'dnf',
  pacman: 'pacman',
  zypper: 'zypper',
  apk: 'apk',
};
const MANAGER_COMMANDS = {
  dnf: 'sudo dnf install -y vulkan-loader mesa-vulkan-drivers',
  pacman: 'sudo pacman -S --needed vulkan-icd-loader vulkan-swrast',
  zypper: 'sudo zypper install -y libvulkan1 libvulkan_lvp',
  apk: 'sudo apk add vulkan-loader mesa-vulkan-swrast',
};

/** @param {string} text of /etc/os-release @returns {OsRelease} */
export function parseOsRelease(text) {
  const fields = new Map();
  for (const line of text.split('\n')) {
    const match = /^([A-Z_]+)=(["']?)(.*)\2$/.exec(line.trim());
    if (match !== null) fields.set(match[1], match[3]);
  }
  return {
    id: fields.get('ID') ?? 'linux',
    idLike: (fields.get('ID_LIKE') ?? '').split(/\s+/).filter((word) => word !== ''),
    // Derivatives keep their own code name and state Debian's beside it.
    codename: fields.get('DEBIAN_CODENAME') ?? fields.get('VERSION_CODENAME') ?? '',
    name: fields.get('PRETTY_NAME') ?? 'this Linux',
  };
}

/**
 * The distribution's own package manager, or else any that is there: dnf may be installed on Debian, and apt on Fedora.
 *
 * @param {OsRelease} osRelease
 * @param {(program: string) => boolean} exists
 */
export function packageManager(osRelease, exists) {
  const own = [osRelease.id, ...osRelease.idLike].map((id) => FAMILY_MANAGERS.get(id));
  for (const manager of [...own, ...Object.keys(MANAGER_PROGRAMS)]) {
    if (manager !== undefined && exists(MANAGER_PROGRAMS[manager])) return manager;
  }
  return null;
}

/** The number before the first dot: 25 of `1:25.0.7-2~bpo12+1`. Null for no version. */
export function majorVersion(version) {
  const match = version === null ? null : /^(?:\d+:)?(\d+)\./.exec(version);
  return match === null ? null : Number(match[1]);
}

/**
 * The version apt would install, from `apt-cache policy PACKAGE` in the C locale.
 *
 * @param {string} policy
 * @param {string | null} release only versions that come from this release, as `apt-get -t` would choose; null for the candidate
 * @returns {string | null}
 */
export function offeredVersion(policy, release) {
  if (release === null) {
    const candidate = /^\s*Candidate:\s*(\S+)/m.exec(policy)?.[1];
    return candidate === undefined || candidate === '(none)' ? null : candidate;
  }
  let version = null;
  for (const line of policy.split('\n')) {
    const heading = /^ (?:\*{3}| {3}) (\d\S*) -?\d+$/.exec(line);
    if (heading !== null) version = heading[1];
    else if (version !== null && line.includes(` ${release}/`)) return version;
  }
  return null;
}

/** @param {string} why @param {string | null} command @returns {Plan} */
function stop(why, command) {
  return { kind: 'stop', why, command };
}

/** @param {Facts} facts @returns {Plan} */
function planBackports(facts) {
  const configured = hasRelease(facts.aptSources, BACKPORTS);
  const line = configured ? null : siblingLine(facts.aptSources, BOOKWORM, BACKPORTS);
  const install = `sudo apt-get update && sudo ${INSTALL} -t ${BACKPORTS} ${APT_PACKAGES.join(' ')}`;
  const add = `echo '${line ?? DEFAULT_LINE}' | sudo tee ${BACKPORTS_LIST} && `;
  const command = configured ? install : add + install;
  if (facts.rights === 'none') return stop('installing a driver needs root or passwordless sudo', command);
  if (!configured && line === null)
    return stop(`apt has no source for ${BOOKWORM} to take the mirror from`, command);
  return { kind: 'apt', sourceLine: line, release: BACKPORTS };
}

/** @param {string | null} version @param {string} systemName */
function tooOldText(version, systemName) {
  const offer = version === null ? 'no mesa-vulkan-drivers' : `Mesa ${version}`;
  return `${systemName} offers ${offer}, and Mesa ${MESA_MAJOR_MIN} or later is needed: use a newer release of it`;
}

/**
 * What the machine needs so that a WebGPU adapter is found.
 *
 * @param {Facts} facts
 * @returns {Plan}
 */
export function planDriver(facts) {
  if (facts.platform === 'darwin') {
    return stop(
      'Metal offers no device: macOS on real hardware, or a virtual machine with graphics, is needed',
      null,
    );
  }
  if (facts.platform === 'win32') {
    return stop(
      "Direct3D 12 offers no device: install the graphics card maker's driver, then update Windows",
      null,
    );
  }
  if (facts.platform !== 'linux') return stop(`${facts.platform} has no build of the WebGPU library`, null);
  const { manager, osRelease, rights } = facts;
  if (manager === null) {
    return stop(
      'no known package manager: install the Vulkan loader and Mesa 24 or later with lavapipe',
      null,
    );
  }
  if (manager !== 'apt') {
    return stop(`on ${osRelease.name} a Vulkan driver is yours to install`, MANAGER_COMMANDS[manager]);
  }
  const version = offeredVersion(facts.policy, null);
  const recentEnough = (majorVersion(version) ?? 0) >= MESA_MAJOR_MIN;
  if (!recentEnough && osRelease.codename === BOOKWORM) return planBackports(facts);
  if (rights === 'none') {
    // Without an up-to-date list the version is not known, and the command tells in its own words.
    if (version !== null && !recentEnough) return stop(tooOldText(version, osRelease.name), null);
    const command = `sudo apt-get update && sudo ${INSTALL} ${APT_PACKAGES.join(' ')}`;
    return stop('installing a driver needs root or passwordless sudo', command);
  }
  return { kind: 'apt', sourceLine: null, release: null };
}

/**
 * Why the packages a plan wants cannot be installed after all, or null. Ask once the package lists are fresh.
 *
 * @param {string} policy of mesa-vulkan-drivers
 * @param {string | null} release
 * @param {string} systemName
 */
export function offerProblem(policy, release, systemName) {
  const version = offeredVersion(policy, release);
  if ((majorVersion(version) ?? 0) >= MESA_MAJOR_MIN) return null;
  if (release === null) return tooOldText(version, systemName);
  return `${release} offers ${version === null ? 'no mesa-vulkan-drivers' : `only Mesa ${version}`}: is the mirror complete?`;
}

/** The commands a plan runs once the lists are fresh and the offer is right. @param {string | null} release */
export function installCommand(release) {
  return [...INSTALL.split(' '), ...(release === null ? [] : ['-t', release]), ...APT_PACKAGES];
}

const OVERRIDES = [
  'VK_DRIVER_FILES',
  'VK_ICD_FILENAMES',
  'VK_LOADER_DRIVERS_SELECT',
  'VK_LOADER_DRIVERS_DISABLE',
];

/**
 * The environment variables through which the user chooses Vulkan drivers, of those that are set: `NAME=value`.
 *
 * @param {Record<string, string | undefined>} env
 */
export function driverOverrides(env) {
  return OVERRIDES.filter((name) => env[name] !== undefined && env[name] !== '').map((name) => ({
    name,
    text: `${name}=${env[name]}`,
  }));
}
