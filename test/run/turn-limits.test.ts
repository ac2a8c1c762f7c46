import { expect, test } from 'vitest';
import { loadCheckpoint } from '#src/model/checkpoint.js';
import { resolveConfig } from '#src/run/config.js';
import { turnLimits, turnStops } from '#src/run/turn-limits.js';
import { createEnvironment } from '#src/tasks/calculator.js';
import { SHIPPED_MODEL } from './runs.js';

const { config: model, tokenizer } = await loadCheckpoint(SHIPPED_MODEL);
const { id, stops = [] } = createEnvironment({});
const calculator = { id, stops };

test('by default a turn takes what is left, of the smaller of context and micro-batch', () => {
  const limits = (...set: string[]) => turnLimits(resolveConfig({ set }), model, 7);
  expect(limits('rollout.max_tokens=48')).toEqual({
    turnsMax: 16,
    turnTokensMax: 48,
    contextTokensMax: 128,
  });
  expect(limits('optimizer.micro_batch_tokens=100', 'rollout.context_tokens_max=0').contextTokensMax).toBe(
    100,
  );
  expect(limits('rollout.context_tokens_max=64', 'rollout.turns_max=3', 'rollout.turn_tokens_max=5')).toEqual(
    {
      turnsMax: 3,
      turnTokensMax: 5,
      contextTokensMax: 64,
    },
  );
  // A turn is no longer than the whole.
  expect(limits('rollout.max_tokens=4', 'rollout.turn_tokens_max=5').turnTokensMax).toBe(4);
});

test('more than a micro-batch or the context holds is refused', () => {
  const limits = (...set: string[]) => turnLimits(resolveConfig({ set }), model, 7);
  expect(() => limits('rollout.context_tokens_max=101', 'optimizer.micro_batch_tokens=100')).toThrow(
    'rollout.context_tokens_max is 101, optimizer.micro_batch_tokens is 100: raise optimizer.micro_batch_tokens or lower it',
  );
});

test("a task's stops join the model's", () => {
  const equals = tokenizer.encode('=', { specialTokens: false });
  expect(turnStops(calculator, tokenizer, [2])).toEqual([2, ...equals]);
  expect(turnStops(calculator, tokenizer, [2, ...equals])).toEqual([2, ...equals]);
  expect(() => turnStops({ ...calculator, stops: ['+='] }, tokenizer, [2])).toThrow(
    'task "calculator": a turn ends with "+=", which is 2 tokens of this model: use a model that has one for it',
  );
  const digits = [...'0123456789+=;'];
  expect(() => turnStops({ ...calculator, stops: digits }, tokenizer, [0, 1, 2, 16])).toThrow(
    'are 17 ids, at most 16 can end a turn: use fewer',
  );
});
