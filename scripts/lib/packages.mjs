// The packages in node_modules against package-lock.json.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { outputTail, runCommand, say, SetupError } from './command.mjs';
import { withLock } from './lock.mjs';

const INSTALL_TIMEOUT_MS = 15 * 60_000;
/** npm prints its reason first and a page of usage after it. */
const NPM_LINES_MAX = 80;

/**
 * The folders under node_modules that are not as the lock file wants them. A package that npm may leave out on this
 * platform is wrong only when it is there in another version.
 *
 * @param {Record<string, { version?: string, optional?: boolean }>} wanted `packages` of package-lock.json
 * @param {Record<string, { version?: string }>} installed `packages` of npm's own record in node_modules
 * @param {(folder: string) => boolean} exists
 */
export function wrongPackages(wanted, installed, exists) {
  const wrong = [];
  for (const [folder, entry] of Object.entries(wanted)) {
    if (folder === '') continue;
    const there = installed[folder];
    if (there === undefined) {
      if (entry.optional !== true) wrong.push(folder);
    } else if (there.version !== entry.version || !exists(folder)) {
      wrong.push(folder);
    }
  }
  return wrong;
}

function readPackages(path) {
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')).packages ?? {}) : {};
}

/** @param {string} root of the repository */
function packagesAreRight(root) {
  const installed = readPackages(join(root, 'node_modules/.package-lock.json'));
  const exists = (folder) => existsSync(join(root, folder, 'package.json'));
  return wrongPackages(readPackages(join(root, 'package-lock.json')), installed, exists).length === 0;
}

/** How to start npm: the one that runs us, else the one that came with this Node, else whatever the shell finds. */
function npmCommand() {
  const nodeFolder = dirname(process.execPath);
  const scripts = [
    process.env['npm_execpath'],
    join(nodeFolder, '../lib/node_modules/npm/bin/npm-cli.js'),
    join(nodeFolder, 'node_modules/npm/bin/npm-cli.js'),
  ];
  const script = scripts.find(
    (path) => path !== undefined && path.endsWith('npm-cli.js') && existsSync(path),
  );
  if (script !== undefined) return { argv: [process.execPath, script], shell: false };
  // On Windows npm is a .cmd file, which only a shell can start.
  return { argv: ['npm'], shell: process.platform === 'win32' };
}

/** Installs the packages unless they are all there. @param {string} root of the repository */
export async function ensurePackages(root) {
  if (packagesAreRight(root)) return;
  await withLock(join(root, '.cache/packages.lock'), INSTALL_TIMEOUT_MS, async () => {
    if (packagesAreRight(root)) return;
    say('installing dependencies into node_modules with npm ci');
    const { argv, shell } = npmCommand();
    const result = await runCommand([...argv, 'ci', '--include=dev', '--no-audit', '--no-fund'], {
      cwd: root,
      timeoutMs: INSTALL_TIMEOUT_MS,
      // Its install script would fetch CUDA libraries that Offbeat never loads.
      env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
      shell,
    });
    if (result.code !== 0) throw new SetupError(`npm ci failed:\n${outputTail(result, NPM_LINES_MAX)}`, 1);
    if (!packagesAreRight(root))
      throw new SetupError('npm ci ended, yet node_modules differs from package-lock.json', 1);
  });
}
