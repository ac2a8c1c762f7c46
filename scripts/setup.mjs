// Makes a fresh clone ready: dependencies, build, and a WebGPU adapter. Each step looks first, says what it is about
// to do, and does nothing where there is nothing to do. Exit code 0 ready, 1 a step failed, 2 something for you to do.
import { fileURLToPath } from 'node:url';
import { NODE_MIN, nodeIsRecentEnough } from './lib/node-version.mjs';

if (!nodeIsRecentEnough(process.version)) {
  process.stderr.write(
    `setup: Node ${NODE_MIN} or later is needed, this is ${process.version}: install a newer one\n`,
  );
  process.exit(2);
}

// Loaded only now, so that an old Node gets the line above and not a syntax error.
const { runScript } = await import('./lib/main.mjs');
const { ensurePackages } = await import('./lib/packages.mjs');
const { ensureBuilt } = await import('./lib/compile.mjs');
const { ensureAdapter } = await import('./lib/adapter.mjs');

await runScript(async () => {
  const root = fileURLToPath(new URL('..', import.meta.url)).replace(/[\\/]$/, '');
  await ensurePackages(root);
  await ensureBuilt(root);
  await ensureAdapter();
});
