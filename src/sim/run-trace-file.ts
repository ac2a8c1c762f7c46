import { z } from 'zod';

/** A stretch of a run's trace, in ms since the run began. */
export interface TraceSpan {
  readonly process: string;
  readonly thread: string;
  readonly name: string;
  readonly fromMs: number;
  readonly ms: number;
  /** Of weights on their way; 0 for everything else. */
  readonly bytes: number;
}

/** What a run's trace holds, as far as a simulation of it needs it. */
export interface TraceFile {
  readonly spans: readonly TraceSpan[];
  /** Changes of the plans in words, in the order in which they were made. */
  readonly plans: readonly { readonly atMs: number; readonly changes: string }[];
  /** How long each reward took, by job and rollout (`rewardKey`). */
  readonly rewardMs: ReadonlyMap<string, number>;
}

const traceSchema = z.object({
  traceEvents: z.array(
    z.object({
      ph: z.string(),
      name: z.string(),
      pid: z.number(),
      tid: z.number(),
      ts: z.number().optional(),
      dur: z.number().optional(),
      id: z.string().optional(),
      args: z.record(z.string(), z.unknown()).optional(),
    }),
  ),
});
type TraceEvent = z.infer<typeof traceSchema>['traceEvents'][number];

export function rewardKey(job: string, rollout: string): string {
  return `${job} ${rollout}`;
}

/** @throws when it is no trace of a run. */
export function readTrace(text: string): TraceFile {
  const { traceEvents } = traceSchema.parse(JSON.parse(text));
  return { spans: spansOf(traceEvents), plans: plansOf(traceEvents), rewardMs: rewardsOf(traceEvents) };
}

function spansOf(events: readonly TraceEvent[]): TraceSpan[] {
  const processes = new Map<number, string>();
  const threads = new Map<string, string>();
  for (const { ph, name, pid, tid, args } of events) {
    if (ph !== 'M' || typeof args?.['name'] !== 'string') continue;
    if (name === 'process_name') processes.set(pid, args['name']);
    if (name === 'thread_name') threads.set(`${pid} ${tid}`, args['name']);
  }
  return events.flatMap(({ ph, name, pid, tid, ts, dur, args }) => {
    if (ph !== 'X' || ts === undefined || dur === undefined) return [];
    const bytes = args?.['bytes'];
    const where = { process: processes.get(pid) ?? '', thread: threads.get(`${pid} ${tid}`) ?? '' };
    return [
      { ...where, name, fromMs: ts / 1000, ms: dur / 1000, bytes: typeof bytes === 'number' ? bytes : 0 },
    ];
  });
}

function plansOf(events: readonly TraceEvent[]): TraceFile['plans'] {
  const plans = events.flatMap(({ ph, name, ts, args }) => {
    const changes = args?.['changes'];
    if (ph !== 'i' || !name.startsWith('plan ') || ts === undefined || typeof changes !== 'string') return [];
    return [{ atMs: ts / 1000, changes }];
  });
  return plans.sort((a, b) => a.atMs - b.atMs);
}

/** An end does not say of which job its rollout is: of several with that number, the first that began. */
function rewardsOf(events: readonly TraceEvent[]): Map<string, number> {
  const open = new Map<string, { readonly key: string; readonly ts: number }[]>();
  const rewardMs = new Map<string, number>();
  for (const { ph, name, id, ts, args } of events) {
    if (name !== 'reward' || id === undefined || ts === undefined) continue;
    const begun = open.get(id) ?? [];
    open.set(id, begun);
    if (ph === 'b') begun.push({ key: rewardKey(textOf(args?.['job']), id), ts });
    if (ph !== 'e') continue;
    const first = begun.shift();
    if (first !== undefined) rewardMs.set(first.key, Math.max(0, ts - first.ts) / 1000);
  }
  return rewardMs;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
