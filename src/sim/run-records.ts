import type { SliceRecord } from '../telemetry/records.js';
import { RunRecords } from '../telemetry/run-records.js';
import { planChanges } from '../scheduler/plan-words.js';
import type { SimOutcome } from './outcome.js';

/**
 * A simulation's timeline as the records of a live run, for the same trace and the same timeline. A slice is a whole
 * stretch in which a resident had the lane or its share of it; there are no dispatches. Times begin at 0.
 *
 * @param lanes how many of the first lanes are shown
 */
export function runRecordsOf(outcome: SimOutcome, lanes: number): RunRecords {
  const { spans, dropped, stages, awake, preemptions, versions } = outcome.timeline;
  const records = new RunRecords({ startMs: 0 });
  for (let lane = 0; lane < lanes; lane++) records.addLane(lane, 'simulated');
  const slices = spans.map(({ lane, job, kind, fromMs, toMs }): SliceRecord => ({
    lane,
    job,
    resident: kind === 'generation' ? 'engine' : 'trainer',
    submittedMs: fromMs,
    startedMs: fromMs,
    finishedMs: toMs,
    predictedUs: (toMs - fromMs) * 1000,
    dispatches: 0,
  }));
  records.add({
    ...{ slices, preemptions, versions, undisturbed: [], starved: [] },
    ...{ hintIdleMs: 0, slicesDropped: dropped },
  });
  for (const stage of stages) records.stages.push(stage);
  for (const time of awake) records.awake.push(time);
  for (const { cycle, timeMs, plan, violations } of outcome.plans) {
    const changes = violations.length > 0 ? [] : planChanges(plan);
    if (changes.length > 0) records.plans.push({ cycle, atMs: timeMs, changes });
  }
  return records;
}
