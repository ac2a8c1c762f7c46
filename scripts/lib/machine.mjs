// Looks at the machine: the facts a driver plan is made of, and whether an adapter answers.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseAptSources } from './apt-sources.mjs';
import { onPath, runCommand } from './command.mjs';
import { driverOverrides, MANAGER_PROGRAMS, packageManager, parseOsRelease } from './driver-plan.mjs';

/** @typedef {import('./machine.d.mts').Probe} Probe */

const PROBE_TIMEOUT_MS = 60_000;
const QUERY_TIMEOUT_MS = 30_000;

/**
 * Searches for an adapter in a child process.
 *
 * @param {Record<string, string | undefined>} [env]
 * @returns {Promise<Probe>}
 */
export async function probeAdapter(env = process.env) {
  const script = fileURLToPath(new URL('probe.mjs', import.meta.url));
  const result = await runCommand([process.execPath, script], { timeoutMs: PROBE_TIMEOUT_MS, env });
  const line = result.stdout.trim();
  if (line !== '') return JSON.parse(line);
  const how = result.signal === null ? `exit code ${result.code}` : result.signal;
  return { found: false, loadError: `the search for an adapter died (${how}): a graphics driver is broken` };
}

/** The probe without the variables through which the user chooses drivers. @returns {Promise<Probe>} */
export function probeWithoutOverrides() {
  const env = { ...process.env };
  for (const { name } of driverOverrides(process.env)) delete env[name];
  return probeAdapter(env);
}

function readText(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}

function readAptSources() {
  const folder = '/etc/apt/sources.list.d';
  const names = existsSync(folder) ? readdirSync(folder).sort() : [];
  const paths = names.filter((name) => /\.(list|sources)$/.test(name)).map((name) => join(folder, name));
  return ['/etc/apt/sources.list', ...paths].flatMap((path) => parseAptSources(path, readText(path)));
}

/** What apt knows of the driver package; the C locale, because the words are parsed. */
export async function readPolicy() {
  const env = { ...process.env, LC_ALL: 'C' };
  const result = await runCommand(['apt-cache', 'policy', 'mesa-vulkan-drivers'], {
    timeoutMs: QUERY_TIMEOUT_MS,
    env,
  });
  return result.stdout;
}

async function readRights() {
  if (process.getuid?.() === 0) return 'root';
  if (!onPath('sudo')) return 'none';
  const result = await runCommand(['sudo', '-n', 'true'], { timeoutMs: QUERY_TIMEOUT_MS });
  return result.code === 0 ? 'sudo' : 'none';
}

/** @returns {Promise<import('./driver-plan.d.mts').Facts>} */
export async function readFacts() {
  const osRelease = parseOsRelease(readText('/etc/os-release'));
  const manager = process.platform === 'linux' ? packageManager(osRelease, onPath) : null;
  const usesApt = manager === 'apt' && onPath(MANAGER_PROGRAMS.apt);
  return {
    platform: process.platform,
    osRelease,
    manager,
    rights: await readRights(),
    aptSources: usesApt ? readAptSources() : [],
    policy: usesApt ? await readPolicy() : '',
  };
}
