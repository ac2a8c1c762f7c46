// A task of one's own: only sums whose units carry, scored by the answer, with the length of the text as a metric.
//
//   npx offbeat run --set task.name=./examples/own-task.mjs --set steps=20
//
// The module is imported on the main thread, for its tasks, and in the reward workers, for its rewards.

/** A small generator of its own: the same seed gives the same tasks. */
function* numbers(seed) {
  for (let state = (seed * 2654435761 + 1) >>> 0; ;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state >>> 8;
  }
}

/** Held-out tasks are those whose first operand ends in 7: no prompt is ever in both splits. */
function* tasks({ split, seed }) {
  const random = numbers(seed);
  const given = new Set();
  for (let tries = 0; split === 'train' || tries < 20_000; tries++) {
    const [a, b] = [random.next().value % 100, random.next().value % 100];
    if ((a % 10) + (b % 10) < 10 || (a % 10 === 7) !== (split === 'heldout')) continue;
    const prompt = `${String(a).padStart(2, '0')}+${String(b).padStart(2, '0')}=`;
    if (split === 'heldout' && given.has(prompt)) continue;
    given.add(prompt);
    yield { key: prompt, prompt, info: { sum: a + b } };
  }
}

export function createEnvironment() {
  return {
    id: 'carrying',
    version: '1',
    tasks,
    rewards: {
      correct: {
        weight: 1,
        fn: ({ task, text }) => (Number(text.split(';').at(-1)) === task.info.sum ? 1 : 0),
      },
      // Weight 0: recorded with every rollout, not part of the reward.
      characters: { weight: 0, fn: ({ text }) => text.length },
    },
  };
}
