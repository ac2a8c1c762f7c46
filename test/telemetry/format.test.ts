import { expect, test } from 'vitest';
import {
  bytesText,
  cautiousPercentText,
  msText,
  numberText,
  percentText,
  scoreText,
  secondsText,
} from '#src/telemetry/format.js';

test('numbers have three digits, or all of a whole thousand', () => {
  expect([0, 0.5, 1.23456, 12.3456, 999.4, 999.6, 1234567.8, -0.25].map(numberText)).toEqual([
    '0',
    '0.5',
    '1.23',
    '12.3',
    '999',
    '1,000',
    '1,234,568',
    '-0.25',
  ]);
  expect([0.00042, -0.00042].map(numberText)).toEqual(['4.2e-4', '-4.2e-4']);
  expect([null, NaN, Infinity].map(numberText)).toEqual(['–', '–', '–']);
});

test('units follow the size', () => {
  expect([0, 0.00092, 0.001, 0.904, 12.34, 999.6, 61_000].map(msText)).toEqual([
    '0 ms',
    '<0.001 ms',
    '0.001 ms',
    '0.904 ms',
    '12.3 ms',
    '1 s',
    '61 s',
  ]);
  expect([0.19, 100, 119.7, 3599.6, 7325].map(secondsText)).toEqual([
    '0.19 s',
    '100 s',
    '2 min 0 s',
    '1 h 0 min',
    '2 h 2 min',
  ]);
  expect([0, 999, 1000, 28_532_736, 5e12, 5e15].map(bytesText)).toEqual([
    '0 B',
    '999 B',
    '1 kB',
    '28.5 MB',
    '5 TB',
    '5,000 TB',
  ]);
});

test('shares and scores have fixed digits, and something is never nothing', () => {
  expect([0, 0.0001, 0.00631, 0.978, 1].map(percentText)).toEqual([
    '0 %',
    '<0.1 %',
    '0.6 %',
    '97.8 %',
    '100 %',
  ]);
  expect([0.5, -0.125, null].map(scoreText)).toEqual(['0.50', '-0.13', '–']);
});

test('a share that is not quite all is not called all', () => {
  expect([0, 0.5, 0.9989, 0.9999, 1].map(cautiousPercentText)).toEqual([
    '0 %',
    '50 %',
    '99.8 %',
    '99.9 %',
    '100 %',
  ]);
});
