import { describe, expect, it } from 'vitest';
import { UserError } from '#src/lib/errors.js';
import { POLICIES, policyNamed } from '#src/scheduler/policies/index.js';

describe('policies', () => {
  it('are found by their own names, and say what they are', () => {
    for (const [name, definition] of POLICIES) {
      expect(definition.name).toBe(name);
      expect(definition.summary).toMatch(/^\S.{10,}[^.]$/);
      expect(definition.turnsMax).toBeGreaterThanOrEqual(1);
      expect(policyNamed(name)).toBeTypeOf('function');
    }
    expect(() => policyNamed('best')).toThrow(UserError);
    expect(() => policyNamed('best')).toThrow(/^scheduler\.policy is "best": use one of serial, static, /);
  });

  it('take the options they know, in their range', () => {
    expect(policyNamed('roundRobin', { turn_ms: 20 })).toBeTypeOf('function');
    const mistakes: [string, Record<string, unknown>, string][] = [
      [
        'roundRobin',
        { turn_ms: 0 },
        'scheduler.options.turn_ms is 0, must be a whole number from 1 to 86400000',
      ],
      [
        'roundRobin',
        { turn_ms: '1s' },
        'scheduler.options.turn_ms is "1s", must be a whole number from 1 to 86400000',
      ],
      ['fifo', { turn_ms: 5 }, 'scheduler.options.turn_ms is 5: policy "fifo" has no such option, remove it'],
    ];
    for (const [name, options, message] of mistakes) {
      expect(() => policyNamed(name, options)).toThrow(UserError);
      expect(() => policyNamed(name, options)).toThrow(message);
    }
  });
});
