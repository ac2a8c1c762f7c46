import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RunFiles } from './run-folders.js';
import { offbeat, temporaryFolder } from './runs.js';

/** Not one of those the shipped model and the example's settings were chosen with. */
const SEED = 20261;

test('the example of `npm start` learns', { timeout: 400_000 }, async () => {
  const cwd = temporaryFolder();
  const args = ['run', '--set', `seed=${SEED}`, '--out', 'learns'];
  const { code, stdout, seconds } = await offbeat(args, { cwd }).ended;
  expect(code).toBe(0);
  const { reward, tokens, steps } = new RunFiles(join(cwd, 'learns')).summary;
  const { first5, last5, heldout_before: before, heldout_after: after } = reward;
  console.log(`${seconds.toFixed(1)} s in all\n${stdout}`);
  expect(steps).toBe(40);
  expect((last5 ?? NaN) - (first5 ?? NaN)).toBeGreaterThanOrEqual(0.2);
  expect((after ?? NaN) - (before ?? NaN)).toBeGreaterThan(0);
  expect(tokens.decoded).toBe(tokens.trained + tokens.filtered + tokens.expired);
});
