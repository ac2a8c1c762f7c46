// Makes sure an adapter answers: looks, installs a software Vulkan driver where that is ours to do, looks again.
import { outputTail, runCommand, say, SetupError } from './command.mjs';
import {
  BACKPORTS_LIST,
  driverOverrides,
  installCommand,
  offerProblem,
  planDriver,
  APT_PACKAGES,
} from './driver-plan.mjs';
import { probeAdapter, probeWithoutOverrides, readFacts, readPolicy } from './machine.mjs';

const APT_TIMEOUT_MS = 10 * 60_000;
const APT_LOCK_SECONDS = 120;

/**
 * What keeps an adapter from being found, and the one command that mends it. Changes nothing.
 *
 * @returns {Promise<{ why: string, command: string | null } | null>} null when an adapter answers
 */
export async function explainAdapter() {
  const probe = await probeAdapter();
  if (probe.found) return null;
  if (probe.loadError !== null) return { why: `WebGPU cannot start: ${probe.loadError}`, command: null };
  const override = await overrideProblem();
  if (override !== null) return override;
  const plan = planDriver(await readFacts());
  if (plan.kind === 'stop') return { why: `no WebGPU adapter: ${plan.why}`, command: plan.command };
  return {
    why: 'no WebGPU adapter: no Vulkan driver that WebGPU accepts is installed',
    command: 'npm run setup',
  };
}

/** The user's own choice of drivers, when dropping it is all it takes. */
async function overrideProblem() {
  const overrides = driverOverrides(process.env);
  if (overrides.length === 0) return null;
  const chosen = overrides.map(({ text }) => text).join(' ');
  const probe = await probeWithoutOverrides();
  if (!probe.found) return null;
  return {
    why: `${chosen} is set and leads to no driver, while "${probe.description}" answers without it`,
    command: `unset ${overrides.map(({ name }) => name).join(' ')}`,
  };
}

/** @param {{ why: string, command: string | null }} problem */
function stopText({ why, command }) {
  return command === null ? why : `${why}. Type this, then run set-up again:\n  ${command}`;
}

/** One privileged command, `-n` so that sudo never waits for a password. */
async function privileged(rights, argv, input = '') {
  const prefix = rights === 'root' ? [] : ['sudo', '-n'];
  const result = await runCommand([...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', ...argv], {
    timeoutMs: APT_TIMEOUT_MS,
    input,
  });
  if (result.code !== 0) throw new SetupError(`${argv.join(' ')} failed:\n${outputTail(result)}`);
}

function aptGet(rights, ...args) {
  return privileged(rights, ['apt-get', '-o', `DPkg::Lock::Timeout=${APT_LOCK_SECONDS}`, ...args]);
}

/** Adds the source and refreshes the lists; takes the source away again when it does not hold what it should. */
async function refreshLists(plan, facts) {
  const { rights, osRelease } = facts;
  const added = plan.sourceLine !== null;
  if (added) {
    say(`adding the apt source "${plan.sourceLine}" as ${BACKPORTS_LIST}`);
    await privileged(rights, ['tee', BACKPORTS_LIST], `${plan.sourceLine}\n`);
  }
  try {
    await aptGet(rights, 'update');
    const problem = offerProblem(await readPolicy(), plan.release, osRelease.name);
    if (problem !== null) throw new SetupError(`no WebGPU adapter, and no driver to install: ${problem}`);
  } catch (error) {
    if (added) await privileged(rights, ['rm', '-f', BACKPORTS_LIST]);
    throw error;
  }
}

/** @throws {SetupError} when there is no adapter and none can be had. */
export async function ensureAdapter() {
  const before = await probeAdapter();
  if (before.found) return;
  if (before.loadError !== null) throw new SetupError(`WebGPU cannot start: ${before.loadError}`);
  for (const { text } of driverOverrides(process.env)) say(`no WebGPU adapter found while ${text} is set`);
  const override = await overrideProblem();
  if (override !== null) throw new SetupError(stopText(override));
  const facts = await readFacts();
  const plan = planDriver(facts);
  if (plan.kind === 'stop')
    throw new SetupError(stopText({ ...plan, why: `no WebGPU adapter: ${plan.why}` }));

  const from = plan.release ?? facts.osRelease.name;
  say(`no WebGPU adapter found: installing ${APT_PACKAGES.join(' and ')} from ${from} with apt-get`);
  await refreshLists(plan, facts);
  await aptGet(facts.rights, ...installCommand(plan.release).slice(1));
  const after = await probeAdapter();
  if (!after.found) {
    throw new SetupError(
      'the driver is installed and still no WebGPU adapter answers: run `npx offbeat doctor`',
    );
  }
  say(`adapter: ${after.description}`);
}
