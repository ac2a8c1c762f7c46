import { isExclusive, type Stage } from '../../scheduler/stages.js';
import { simSetup } from '../../run/scenario-sim.js';
import type { Scenario } from '../../run/scenario.js';
import type { SimJobOutcome, SimOutcome } from '../../sim/outcome.js';
import { simulate } from '../../sim/simulate.js';
import type { Order, Runner } from './contest.js';
import type { JobMeasured, Measured, WorkKind } from './measured.js';
import type { PolicyMaker } from './policies.js';
import type { CompareMachine } from './result.js';

/** Runs on simulated lanes. */
export class SimulatedRunner implements Runner {
  #machine: CompareMachine = {
    description: 'simulated lanes',
    software: false,
    vendor: '',
    architecture: '',
  };

  constructor(private readonly policyOf: PolicyMaker) {}

  get machine(): CompareMachine {
    return this.#machine;
  }

  async measure(scenario: Scenario, { policy }: Order): Promise<Measured> {
    const { scenario: simScenario, options } = await simSetup(scenario);
    const { name, source } = simScenario.costs;
    this.#machine = { ...this.#machine, description: `cost model ${name}: ${source}` };
    const outcome = await simulate(simScenario, this.policyOf(policy), {
      ...options,
      policyName: policy,
    });
    return simulatedMeasured(outcome, simScenario.lanes.length);
  }
}

/** What a simulation came to, in the terms of the comparison. */
export function simulatedMeasured(outcome: SimOutcome, lanes: number): Measured {
  const { endedMs, makespanMs, busy, timeline, yieldMs, violations } = outcome;
  const jobs = outcome.jobs.map(jobMeasured);
  return {
    endMs: endedMs,
    // A job that was given up did not come to its end, whatever the clock said.
    makespanMs: jobs.some(({ finishedMs }) => finishedMs === null) ? null : makespanMs,
    lanes,
    jobs,
    busy: busy.map(({ lane, job, kind, ms }) => ({ lane, job, kind: workKind(kind), ms })),
    yieldMs,
    stalenessUnit: 'rollouts',
    violations,
    timeline: {
      spans: timeline.spans.map(({ kind, ...span }) => ({ ...span, kind: workKind(kind), busy: 1 })),
      dropped: timeline.dropped,
    },
  };
}

function jobMeasured(job: SimJobOutcome): JobMeasured {
  const { decoded, trained, served, aborted, expired, filtered } = job.tokens;
  return {
    id: job.id,
    arrivedMs: job.startedMs,
    finishedMs: job.isGivenUp ? null : job.finishedMs,
    tokensDecoded: decoded,
    tokensTrained: trained + served,
    tokensWasted: { aborted, expired, filtered, recomputed: job.tokensRecomputed },
    queueWaitMs: job.queueWaitMs,
    yieldMs: null,
    tokenP99Ms: job.tokenLatencyMs.p99,
    weightBytes: job.weightBytes,
    staleness: job.staleness,
  };
}

function workKind(stage: Stage): WorkKind {
  return isExclusive(stage) ? 'training' : 'generation';
}
