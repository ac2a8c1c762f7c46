import { describe, expect, it } from 'vitest';
import {
  advancing,
  boundaryAfter,
  flawOf,
  isSameAdmission,
  mayEnter,
  type Admission,
} from '#src/engine/admission.js';

/** At most two of up to 8 tokens and one of more, in a cache of 100. */
const RULE: Admission = {
  kvTokensMax: 100,
  segments: [
    { fromTokens: 0, sequencesMax: 2 },
    { fromTokens: 8, sequencesMax: 1 },
  ],
};
const UNCAPPED: Admission = { kvTokensMax: 100, segments: [] };

const residents = (...tokens: number[]) => tokens.map((each) => ({ tokens: each, kvTokensMax: 60 }));
const NEW = { tokens: 0, kvTokens: 10 };

describe('a rule of admission', () => {
  it('lets those admitted first advance in each segment, and the others wait', () => {
    expect(advancing(RULE, residents(9, 0, 20, 7, 3), 1)).toEqual([true, true, false, true, false]);
    expect(advancing(UNCAPPED, residents(9, 0, 20), 1)).toEqual([true, true, true]);
  });

  it('lets all advance once nobody waits and all fit to their ends', () => {
    const two = residents(9, 10).map((each) => ({ ...each, kvTokensMax: 50 }));
    expect(advancing(RULE, two, 1)).toEqual([true, false]);
    expect(advancing(RULE, two, 0)).toEqual([true, true]);
    expect(advancing(RULE, residents(9, 10), 0)).toEqual([true, false]);
  });

  it('counts those that wait at a boundary against the next in line', () => {
    expect(mayEnter(RULE, residents(3), NEW, 20)).toBe(true);
    expect(mayEnter(RULE, residents(3, 9), NEW, 20)).toBe(true);
    expect(mayEnter(RULE, residents(3, 9, 8), NEW, 20)).toBe(false);
    expect(mayEnter(RULE, residents(3, 4), NEW, 20)).toBe(false);
    expect(mayEnter(RULE, residents(9), { tokens: 12, kvTokens: 10 }, 20)).toBe(false);
  });

  it('admits only what fits with one more token of everybody, but anybody into an empty engine', () => {
    expect(mayEnter(UNCAPPED, residents(3, 4), NEW, 87)).toBe(true);
    expect(mayEnter(UNCAPPED, residents(3, 4), NEW, 88)).toBe(false);
    expect(mayEnter(RULE, [], { tokens: 0, kvTokens: 100 }, 0)).toBe(true);
  });

  it('knows its boundaries, its like and its flaws', () => {
    expect([0, 7, 8, 50].map((tokens) => boundaryAfter(RULE, tokens))).toEqual([8, 8, Infinity, Infinity]);
    expect(isSameAdmission(RULE, structuredClone(RULE))).toBe(true);
    expect([isSameAdmission(RULE, UNCAPPED), isSameAdmission(RULE, null)]).toEqual([false, false]);
    expect([flawOf(RULE), flawOf(UNCAPPED)]).toEqual([null, null]);
    const late = [{ fromTokens: 1, sequencesMax: 1 }];
    expect(flawOf({ kvTokensMax: 100, segments: late })).toBe('segment 0 from 1 tokens on');
    expect(flawOf({ kvTokensMax: 0.5, segments: [] })).toBe('a cache of 0.5 tokens');
  });
});
