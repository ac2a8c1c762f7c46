import { childKey, seedKey } from '../lib/prng.js';
import type { Split } from './task.js';

const SPLIT_KEY = childKey(seedKey(0), 'offbeat/split');

/** One task in this many is held out. */
const HELDOUT_EVERY = 16;

/** The split of a task, from its key alone: at no seed can a held-out task turn up in training. */
export function splitOf(taskKey: string): Split {
  return childKey(SPLIT_KEY, taskKey)[0] % HELDOUT_EVERY === 0 ? 'heldout' : 'train';
}
