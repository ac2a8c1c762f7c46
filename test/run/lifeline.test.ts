import { expect, test } from 'vitest';
import { Interrupted, Lifeline } from '#src/run/lifeline.js';

const never = new Promise<never>(() => undefined);

test('work settles as it does while the run goes on', async () => {
  const lifeline = new Lifeline();
  await expect(lifeline.alive(Promise.resolve(3))).resolves.toBe(3);
  await expect(lifeline.alive(Promise.reject(new Error('own')))).rejects.toThrow('own');
  expect(lifeline.reason).toBeNull();
});

test('every wait ends with the first reason', async () => {
  const lifeline = new Lifeline();
  const waits = [lifeline.alive(never), lifeline.alive(never)];
  lifeline.end(new Interrupted());
  lifeline.end(new Error('its consequence'));
  for (const wait of waits) await expect(wait).rejects.toBeInstanceOf(Interrupted);
  await expect(lifeline.alive(never)).rejects.toBeInstanceOf(Interrupted);
  expect(lifeline.reason).toBeInstanceOf(Interrupted);
});

test('listeners hear of it once, late ones at once', () => {
  const lifeline = new Lifeline();
  const heard: string[] = [];
  lifeline.onEnd(() => heard.push('early'));
  expect(heard).toEqual([]);
  lifeline.end(new Interrupted());
  lifeline.end(new Interrupted());
  lifeline.onEnd(() => heard.push('late'));
  expect(heard).toEqual(['early', 'late']);
});

test('work that fails after the end goes unheard and harms nobody', async () => {
  const lifeline = new Lifeline();
  let fail: (error: Error) => void = () => undefined;
  const work = new Promise<never>((_, reject) => (fail = reject));
  const wait = lifeline.alive(work);
  lifeline.end(new Interrupted());
  await expect(wait).rejects.toBeInstanceOf(Interrupted);
  // An unhandled rejection would fail this file.
  fail(new Error('too late'));
  await new Promise((resolve) => setImmediate(resolve));
});
