import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { EnvironmentPool } from '#src/tasks/environment-pool.js';
import { playEpisode, type EpisodeRecord } from '#src/tasks/episode.js';
import { openEnvironment } from '#src/tasks/registry.js';
import type { Json, Task } from '#src/tasks/task.js';

export function take<T>(items: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const item of items) {
    if (taken.length === count) break;
    taken.push(item);
  }
  return taken;
}

/** Plays a script through the worker pool: what a model that says just this would have seen. */
export async function playScript(
  name: string,
  options: Json,
  task: Task,
  script: readonly string[],
  seed = 1,
): Promise<EpisodeRecord> {
  const { environment, ref } = await openEnvironment(name, options, '.');
  const pool = new EnvironmentPool({ environment: ref, workersMax: 1, timeoutMs: 20_000, queueMax: 10 });
  try {
    return await playEpisode({
      rolloutId: 'r1',
      environment,
      pool,
      task,
      seed,
      turnsMax: 100,
      generate: (_, turn) => {
        const text = script[turn];
        return Promise.resolve(text === undefined ? null : { text, finishReason: 'stop' });
      },
    });
  } finally {
    await pool.close();
  }
}

/** A transcript as people read it: prompt and opening, then `action|observation` turn by turn. */
export function written(task: Task, { opening, turns }: EpisodeRecord): string {
  return (
    task.prompt + opening + turns.map(({ action, observation }) => `${action.text}|${observation}`).join('')
  );
}

export interface StepCall {
  readonly text: string;
  readonly state: Json;
  readonly seed: number;
}

/** Takes the same steps in another process, to which nothing but JSON text is given. */
export async function stepElsewhere(
  name: string,
  options: Json,
  calls: readonly StepCall[],
): Promise<unknown> {
  const script = `
    import { openEnvironment } from '#src/tasks/registry.js';
    let text = '';
    for await (const chunk of process.stdin) text += chunk;
    const { name, options, calls } = JSON.parse(text);
    const { environment } = await openEnvironment(name, options, '.');
    const results = [];
    for (const { text, state, seed } of calls) {
      results.push(await environment.step({ text, finishReason: 'stop' }, state, { seed }));
    }
    process.stdout.write(JSON.stringify(results));`;
  const running = promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    maxBuffer: 2 ** 26,
  });
  running.child.stdin?.end(JSON.stringify({ name, options, calls }));
  const { stdout } = await running;
  return JSON.parse(stdout);
}
