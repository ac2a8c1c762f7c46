import type { Admission, Segment } from '../../engine/admission.js';
import { at } from '../../lib/assert.js';
import { promptTokensMean, shareLonger, type Lengths } from '../lengths.js';
import type { KvSpec } from '../state.js';
import { nestedKvTokens, segmentStages } from './segment-cap-formulas.js';

/** `segments` is the policy; the other two are what it is to be measured against. */
export type Rule = 'segments' | 'global' | 'none';

export interface RuleOptions {
  readonly rule: Rule;
  /** Share of the cache that the caps fill on average; the rest is for when more survive than usual. */
  readonly fill: number;
  readonly segmentsMax: number;
}

/** A boundary that almost nobody or almost everybody passes tells no segments apart. */
const SHARE_MIN = 0.01;
const SHARE_MAX = 0.95;

/**
 * Caps from lengths as they were: segments end at powers of two; the populations are in the proportions in which
 * sequences live, and as large as together fill the cache by Nested WAIT's memory formula. The paper scales them by the
 * rate of arrivals; rollouts of a step all come at once, so here the cache does.
 *
 * @param lengths of at least one rollout
 */
export function admissionFor(kv: KvSpec, lengths: Lengths, options: RuleOptions): Admission {
  const kvTokensMax = kv.tokens;
  const segments =
    options.rule === 'none' ? [] : capped(kvTokensMax * options.fill, kv, lengths, options.segmentsMax);
  if (options.rule !== 'global') return { kvTokensMax, segments };
  const sequencesMax = segments.reduce((sum, segment) => sum + segment.sequencesMax, 0);
  return { kvTokensMax, segments: [{ fromTokens: 0, sequencesMax }] };
}

function capped(kvTokens: number, kv: KvSpec, lengths: Lengths, segmentsMax: number): Segment[] {
  const boundaries = boundariesOf(lengths, kv.sequenceTokensMax, segmentsMax);
  const promptTokens = promptTokensMean(lengths);
  // The paper's sequences all end at a boundary; these end anywhere between two, about half of them half-way.
  const alive = boundaries.map((end, k) => {
    const entered = k === 0 ? 1 : longerThan(lengths, at(boundaries, k - 1));
    const left = k === boundaries.length - 1 ? 0 : longerThan(lengths, end);
    return (entered + left) / 2;
  });
  const perSequence = nestedKvTokens({ promptTokens, boundaries, sequences: alive });
  return boundaries.map((_, k) => {
    const perStage = (at(alive, k) * kvTokens) / perSequence;
    const sequencesMax = Math.max(1, Math.round(perStage * segmentStages(boundaries, k).stages));
    return { fromTokens: k === 0 ? 0 : at(boundaries, k - 1), sequencesMax };
  });
}

/** Ends of the segments: powers of two, of which the last ones if there are too many, and the longest length there was. */
function boundariesOf(lengths: Lengths, tokensMax: number, segmentsMax: number): number[] {
  const last = Math.min(2 ** Math.max(0, lengths.byTokens.length - 1), tokensMax);
  const inner = lengths.byTokens
    .map((_, power) => 2 ** power)
    .filter((tokens) => {
      const share = longerThan(lengths, tokens);
      return tokens < last && share >= SHARE_MIN && share <= SHARE_MAX;
    });
  return [...inner.slice(Math.max(0, inner.length - segmentsMax + 1)), last];
}

/** @param tokens a power of two */
function longerThan(lengths: Lengths, tokens: number): number {
  return shareLonger(lengths, Math.log2(tokens));
}
