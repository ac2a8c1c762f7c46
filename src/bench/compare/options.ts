import { UserError } from '../../lib/errors.js';

export const REPEATS = 3;
export const REPEATS_MAX = 50;
export const POLICIES_MAX = 16;

/** What was typed; a number that is none stays a text. */
export interface CompareInput {
  readonly policies: readonly string[];
  readonly repeats?: number | string | undefined;
  readonly live?: boolean | undefined;
  readonly simulated?: boolean | undefined;
}

/** What to compare, checked. Whether there are policies of these names is for `policyMakers` to say. */
export interface CompareOptions {
  readonly policies: readonly string[];
  readonly repeats: number;
  readonly mode: 'live' | 'simulated';
}

/** @throws UserError that names the flag, its value and the remedy. */
export function resolveCompareOptions(input: CompareInput): CompareOptions {
  const { policies, repeats = REPEATS, live = false, simulated = false } = input;
  const listed = `--policies ${policies.join(',')}`;
  const empty = policies.indexOf('');
  if (empty >= 0) throw new UserError(`${listed}: policy ${empty + 1} has no name: leave out the comma`);
  const twice = policies.find((name, index) => policies.indexOf(name) < index);
  if (twice !== undefined) throw new UserError(`${listed}: names ${twice} twice: name each policy once`);
  if (policies.length < 2) {
    throw new UserError(`${listed}: one policy has nothing to be compared with: name two or more`);
  }
  if (policies.length > POLICIES_MAX) {
    throw new UserError(
      `${listed}: names ${policies.length} policies, must be at most ${POLICIES_MAX}: leave some out`,
    );
  }
  if (typeof repeats !== 'number' || !Number.isInteger(repeats) || repeats < 1 || repeats > REPEATS_MAX) {
    throw new UserError(`--repeats is ${repeats}, must be a whole number from 1 to ${REPEATS_MAX}`);
  }
  if (live && simulated) {
    throw new UserError('--live and --simulated contradict each other: give one of them');
  }
  return { policies, repeats, mode: simulated ? 'simulated' : 'live' };
}
