import type { Tokenizer } from '../model/tokenizer.js';
import type { Environment, Task } from '../tasks/task.js';
import type { Group, RolloutKind, RolloutPool } from './rollouts.js';

/** The first `count` held-out tasks: the same ones at every evaluation of a run. */
export function heldoutTasks(environment: Environment, seed: number, count: number): Task[] {
  const tasks: Task[] = [];
  for (const task of environment.tasks({ split: 'heldout', seed })) {
    if (tasks.length === count) break;
    tasks.push(task);
  }
  return tasks;
}

/** Starts one rollout of each held-out task; `meanReward` of the groups, once scored, is the evaluation. */
export function startEvaluation(
  pool: RolloutPool,
  tokenizer: Tokenizer,
  tasks: readonly Task[],
  kind: RolloutKind,
): Group[] {
  return tasks.map((task) => pool.start(task, tokenizer.encode(task.prompt), 0, 1, kind));
}

/** Mean over all rollouts; one whose reward failed counts as 0. Null of none. */
export function meanReward(groups: readonly Group[]): number | null {
  const rewards = groups.flatMap((group) =>
    group.rollouts.map(({ reward }) => (reward === null || reward.failed ? 0 : reward.reward)),
  );
  return rewards.length === 0 ? null : rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
}
