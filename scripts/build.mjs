// Builds src into dist when something changed. `npm run setup` installs the compiler first.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SetupError } from './lib/command.mjs';
import { ensureBuilt } from './lib/compile.mjs';
import { runScript } from './lib/main.mjs';

await runScript(async () => {
  const root = fileURLToPath(new URL('..', import.meta.url)).replace(/[\\/]$/, '');
  if (!existsSync(join(root, 'node_modules/typescript'))) {
    throw new SetupError('the compiler is not installed: run `npm run setup` first');
  }
  await ensureBuilt(root);
});
