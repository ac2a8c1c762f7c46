import { expect, test } from 'vitest';
import {
  assertMetricNames,
  metricInfo,
  METRICS,
  metricsTable,
  type MetricsRecord,
} from '#src/telemetry/metrics.js';

test('names are unique, and each has a unit and one sentence', () => {
  expect(new Set(METRICS.map(({ name }) => name)).size).toBe(METRICS.length);
  for (const { name, unit, meaning } of METRICS) {
    expect(name).toMatch(/^[a-z]+(\/[a-z0-9_]+)+$/);
    expect(unit).not.toBe('');
    expect(meaning, name).toMatch(/^[A-Z][^.]*\.$/);
  }
});

test('a known record passes, an unknown name is a bug', () => {
  assertMetricNames({ step: 1, time_s: 0.5, 'actor/loss': 0.1 });
  expect(() => assertMetricNames({ step: 1, time_s: 0.5, loss: 0.1 } as MetricsRecord)).toThrow(
    'metric loss',
  );
});

test('the table has one row for each metric', () => {
  const rows = metricsTable().trimEnd().split('\n');
  expect(rows).toHaveLength(METRICS.length + 2);
  expect(rows).toContain(`| \`actor/lr\` | rate | ${metricInfo('actor/lr').meaning} |`);
  for (const row of rows) expect(row.split('|')).toHaveLength(5);
});
