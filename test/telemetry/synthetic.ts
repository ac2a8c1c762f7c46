import type { HeldoutPoint, ReportInput } from '#src/telemetry/report.js';
import type { MetricsRecord } from '#src/telemetry/metrics.js';
import { preemptionSummary } from '#src/telemetry/preemption-summary.js';
import type {
  LaneRecords,
  PreemptionRecord,
  SliceRecord,
  UndisturbedRecord,
  VersionRecord,
} from '#src/telemetry/records.js';
import { RunRecords } from '#src/telemetry/run-records.js';
import type { Summary } from '#src/telemetry/summary.js';
import { Random } from '#src/lib/prng.js';

/** An invented run for the tests of the report and the trace: a trainer and an engine on lane 0, an engine on lane 1. */
export interface SyntheticRun extends ReportInput {
  readonly slices: readonly SliceRecord[];
}

const START_MS = 5_000_000.25;

/** A lane's message with nothing in it but what is given. */
export function laneRecords(records: Partial<LaneRecords>): LaneRecords {
  const none = { slices: [], preemptions: [], undisturbed: [], starved: [], versions: [] };
  return { ...none, hintIdleMs: 0, slicesDropped: 0, ...records };
}

/** A preemption that yielded after 2 ms of the 6 ms it might take, with everything about it that is not given. */
export function preemptionRecord(record: Partial<PreemptionRecord>): PreemptionRecord {
  const requestedMs = record.requestedMs ?? 0;
  return {
    lane: 0,
    job: 'main',
    asker: 'main',
    stage: 'actorTraining',
    requestedMs,
    detectedMs: requestedMs + 0.5,
    yieldedMs: requestedMs + 2,
    yieldedDeviceMs: null,
    releasedMs: requestedMs + 10,
    resumedMs: requestedMs + 12,
    leavingMs: 0,
    budgetMs: 5.5,
    inFlightUs: 1500,
    phase: 0.5,
    blame: null,
    kv: { held: 2, spilled: 0, dropped: 0 },
    tokensRecomputed: 0,
    ...record,
  };
}

export function syntheticRun(seed: number, steps: number, stepMs = 2500): SyntheticRun {
  const random = new Random(seed);
  const records = new RunRecords({ startMs: START_MS });
  records.addLane(0, 'llvmpipe (LLVM 15, 256 bits)');
  records.addLane(1, 'llvmpipe (LLVM 15, 256 bits)');
  const slices: SliceRecord[] = [];
  const preemptions: PreemptionRecord[] = [];
  const undisturbed: UndisturbedRecord[] = [];
  const versions: VersionRecord[] = [];
  const metrics: MetricsRecord[] = [];
  const fill = (lane: number, resident: 'trainer' | 'engine', fromMs: number, toMs: number): number => {
    let at = fromMs;
    while (at < toMs) {
      const lengthMs = 1.2 + random.uniform() * 1.3;
      slices.push({
        lane,
        job: 'main',
        resident,
        submittedMs: at - 1,
        startedMs: at,
        finishedMs: at + lengthMs,
        predictedUs: 2000,
        dispatches: random.int(12, 40),
      });
      at += lengthMs + random.uniform() * 0.4;
    }
    return slices.at(-1)?.finishedMs ?? toMs;
  };
  for (let step = 1; step <= steps; step++) {
    const t0 = START_MS + (step - 1) * stepMs;
    const requestedMs = t0 + 0.55 * stepMs + random.uniform() * 0.05 * stepMs;
    // Every thirteenth waits for a slice that its prediction knows nothing of.
    const lateMs = step % 13 === 0 ? 4 + 5 * random.uniform() : 0;
    const yieldedMs = fill(0, 'engine', t0, requestedMs) + lateMs;
    const releasedMs = fill(0, 'trainer', yieldedMs + 0.05, t0 + 0.85 * stepMs);
    const resumedMs = releasedMs + 3 + 4 * random.uniform();
    fill(0, 'engine', releasedMs + 0.2, t0 + stepMs - 3);
    if (step % 3 !== 0) fill(1, 'engine', t0, t0 + 0.9 * stepMs);
    preemptions.push(
      preemptionRecord({
        requestedMs,
        detectedMs: requestedMs + 0.05 + 0.1 * random.uniform(),
        yieldedMs: yieldedMs + Math.abs(random.normal()) * 0.4,
        yieldedDeviceMs: yieldedMs,
        releasedMs,
        resumedMs: step === steps ? null : resumedMs,
        leavingMs: 0,
        budgetMs: 2 + 0.31 + 0.2,
        phase: step % 5 === 0 ? null : random.uniform(),
        blame:
          lateMs === 0 ? null : { kernel: 'matmul_tile', predictedUs: 1900, realUs: 1900 + 1000 * lateMs },
        kv: { held: 8, spilled: 0, dropped: 0 },
      }),
    );
    if (step % 4 === 0) {
      const detectedMs = releasedMs + 0.1;
      const asked = { lane: 0, stage: 'refLogProbs', requestedMs: releasedMs, detectedMs };
      undisturbed.push({ ...asked, begunMs: detectedMs + 0.2 * random.uniform() });
    }
    const version = { job: 'main', version: step, atMs: releasedMs, durationMs: 1.5 };
    versions.push({ ...version, lane: 0, kind: 'publish', bytes: 1_056_768 });
    versions.push({ ...version, lane: 0, kind: 'flip', bytes: 0 });
    if (step % 3 !== 0) versions.push({ ...version, lane: 1, kind: 'pull', bytes: 1_056_768 });
    records.awake.push({ lane: 0, job: 'main', fromMs: t0, toMs: t0 + stepMs });
    if (step % 3 !== 0) records.awake.push({ lane: 1, job: 'main', fromMs: t0, toMs: t0 + stepMs });
    records.plans.push({
      cycle: 2 * step,
      atMs: requestedMs,
      changes: ['grant main actorTraining on lane 0'],
    });
    records.stages.push({
      job: 'main',
      stage: 'generation',
      requestedMs: t0,
      grantedMs: t0,
      releasedMs: t0 + stepMs,
    });
    records.stages.push({
      job: 'main',
      stage: 'actorTraining',
      requestedMs,
      grantedMs: requestedMs + 0.3,
      releasedMs: step === steps ? null : releasedMs,
    });
    for (let sample = 0; sample < 4; sample++) {
      records.rewards.push({
        job: 'main',
        rollout: `${step}-${sample}`,
        startedMs: t0 + sample,
        finishedMs: t0 + sample + 5 + random.uniform() * 20,
        failure: sample === 3 && step === 2 ? 'timed out after 1 s' : null,
      });
    }
    metrics.push(syntheticMetrics(random, step, steps, stepMs));
  }
  records.add(laneRecords({ slices, preemptions, undisturbed, versions }));
  const heldout: HeldoutPoint[] = [
    { step: 0, score: 0.22 },
    { step: steps, score: 0.71 },
  ];
  return {
    slices,
    summary: syntheticSummary(records, steps, (steps * stepMs) / 1000),
    metrics,
    heldout,
    records,
    endMs: START_MS + steps * stepMs,
    startedAt: new Date(Date.UTC(2026, 1, 3, 4, 5)),
    config: '# resolved\nseed = 7\nlanes = 2\n\n[algorithm]\nname = "grpo"\n</script><!-- not the end -->\n',
  };
}

function syntheticMetrics(random: Random, step: number, steps: number, stepMs: number): MetricsRecord {
  const learned = 1 / (1 + Math.exp(-8 * (step / steps - 0.45)));
  const reward = Math.min(1, 0.2 + 0.55 * learned + 0.05 * random.normal());
  return {
    step,
    time_s: (step * stepMs) / 1000,
    'rollout/score/mean': reward,
    'rollout/score/min': Math.max(0, reward - 0.25),
    'rollout/score/max': Math.min(1, reward + 0.25),
    'rollout/response_length/mean': 9 - 3 * learned + 0.3 * random.normal(),
    'actor/loss': 0.02 * random.normal(),
    'actor/kl': 0.03 * learned + 0.002 * random.uniform(),
    'actor/entropy': 1.4 - 0.9 * learned + 0.04 * random.normal(),
    'actor/grad_norm': 0.6 + 0.2 * random.normal(),
    'tokens/per_second': 900 + 60 * random.normal(),
    'weights/version': step,
  };
}

function syntheticSummary(records: RunRecords, steps: number, wallSeconds: number): Summary {
  const trained = steps * 2480;
  return {
    adapter: {
      vendor: 'mesa',
      architecture: '',
      description: 'llvmpipe (LLVM 15, 256 bits)',
      software: true,
    },
    model: 'sums-1m',
    seed: 7,
    steps,
    reward: { first5: 0.23, last5: 0.74, heldout_before: 0.22, heldout_after: 0.71 },
    tokens: {
      decoded: trained + 2210,
      trained,
      aborted: 0,
      expired: 640,
      filtered: 1200,
      in_flight: 370,
    },
    tokens_per_second: 914.2,
    preemption: preemptionSummary(records, {
      slice_budget_us: 2000,
      in_flight_budget_us: 2000,
      largest_dispatch_us: 310,
    }),
    weights: { publishes: steps, bytes_sent: 28_532_736, bytes_broadcast: 84_541_440, seconds: 0.19 },
    lanes: { rebuilt: 0, steps_repeated: 0 },
    starved_seconds: records.starvedMs / 1000,
    wall_seconds: wallSeconds,
  };
}
