import { z } from 'zod';
import type { Trace } from '#src/telemetry/trace.js';

/** The parts of the Chrome JSON trace format that Offbeat writes. */
const event = z.looseObject({
  ph: z.enum(['M', 'X', 'b', 'e', 'i', 'C']),
  name: z.string(),
  pid: z.int(),
  tid: z.int(),
  ts: z.number().optional(),
  dur: z.number().nonnegative().optional(),
  id: z.string().optional(),
  args: z.record(z.string(), z.unknown()).optional(),
});
const file = z.object({
  displayTimeUnit: z.literal('ms'),
  traceEvents: z.array(event),
  otherData: z.object({ events_dropped: z.int() }),
});
export type TraceEvent = z.infer<typeof event>;

export function parsed(trace: Trace): z.infer<typeof file> {
  return file.parse(JSON.parse([...trace.chunks()].join('')));
}

/** Names of threads by their id, from the metadata. */
export function threadNames(events: readonly TraceEvent[]): Map<number, string> {
  const metadata = events.filter(({ ph, name }) => ph === 'M' && name === 'thread_name');
  return new Map(metadata.map(({ tid, args }) => [tid, String(args?.['name'])]));
}
