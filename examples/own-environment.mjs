// An environment of several turns of one's own: find a hidden number from 00 to 99. A guess is two digits and `;`,
// which ends the turn; the answer is `0;` for too low, `1;` for too high. It stays within the characters that the
// shipped model knows. The prompt says nothing, so the reward is about searching well, not about reading.
//
// The module is imported on the main thread, for its tasks, and in the pool's workers, for reset, step and rewards.
// `reset` and `step` are pure: all that is remembered between turns is in `state`, which is JSON, so that a rollout
// can be stopped and go on in another thread.

/** A small generator of its own: the same seed gives the same tasks. */
function* numbers(seed) {
  for (let state = (seed * 2654435761 + 1) >>> 0; ;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state >>> 8;
  }
}

/** One hidden number in ten, those that end in 7, is held out: no task is ever in both splits. */
function* tasks({ split, seed }) {
  const random = numbers(seed);
  const given = new Set();
  while (split === 'train' || given.size < 10) {
    const secret = random.next().value % 100;
    if ((secret % 10 === 7) !== (split === 'heldout') || (split === 'heldout' && given.has(secret))) continue;
    given.add(secret);
    yield { key: `guess ${secret}`, prompt: '=', info: { secret } };
  }
}

export function createEnvironment(options) {
  const { turns = 8, wait_ms = 0 } = options ?? {};
  return {
    id: 'guess',
    version: '1',
    alphabet: '0123456789+=;',
    tasks,
    stops: [';'],
    reset: ({ info }) => ({ observation: '', state: { secret: info.secret, turn: 0 } }),
    step({ text }, { secret, turn }) {
      const guess = /^\d\d;$/.test(text) ? Number(text.slice(0, 2)) : null;
      const found = guess === secret;
      return {
        observation: guess === null || found ? ';' : guess < secret ? '0;' : '1;',
        state: { secret, turn: turn + 1 },
        reward: found ? 1 : -0.02,
        terminated: found,
        truncated: !found && turn + 1 >= turns,
        // Real time that the answer takes: the pool lets it pass, and holds no thread for it.
        waitMs: wait_ms,
      };
    },
    rewards: {
      // What the rewards of the single turns count for is said here; weight 0 is a metric beside it.
      return: { weight: 1, fn: ({ turns: taken }) => taken.reduce((sum, turn) => sum + turn.reward, 0) },
      turns: { weight: 0, fn: ({ turns: taken }) => taken.length },
    },
  };
}
