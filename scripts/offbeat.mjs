#!/usr/bin/env node
// The command line. It leaves as soon as the command is done: the GPU library keeps handles that would hold Node open.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('../dist/cli/main.js', import.meta.url);

async function run() {
  const ready =
    existsSync(fileURLToPath(main)) && existsSync(fileURLToPath(new URL('../node_modules', import.meta.url)));
  if (!ready) {
    process.stderr.write('offbeat: not set up yet: run `npm run setup` first\n');
    return 2;
  }
  const module = await import(main.href);
  return module.main(process.argv.slice(2));
}

/** Resolves when everything written so far has left the process, or its reader has gone away. */
function flushed(stream) {
  return new Promise((resolve) => {
    stream.once('error', resolve);
    stream.write('', resolve);
  });
}

let exitCode = 1;
try {
  exitCode = await run();
} catch (error) {
  process.stderr.write(`offbeat: ${error instanceof Error ? error.stack : error}\n`);
}
await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
process.exit(exitCode);
