import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { metricsTable } from '#src/telemetry/metrics.js';

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

test('the README lists the metrics as the registry does', () => {
  const table = /<!-- metrics -->\n([\s\S]*?)<!-- \/metrics -->/.exec(readme)?.[1];
  expect(table).toBe(metricsTable());
});

test('the README begins with the two commands', () => {
  expect(readme.indexOf('npm start')).toBeGreaterThan(0);
  expect(readme.indexOf('npm start')).toBeLessThan(readme.indexOf('npx offbeat'));
});
