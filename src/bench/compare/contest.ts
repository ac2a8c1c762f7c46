import { assert } from '../../lib/assert.js';
import { Random, seedKey } from '../../lib/prng.js';
import type { JobId } from '../../scheduler/state.js';
import { jobSeed, type Scenario } from '../../run/scenario.js';
import { jobTimeMs, type Measured } from './measured.js';
import type { CompareMachine } from './result.js';
import type { SoloTimesMs } from './scores.js';

/**
 * The policy under which a job runs alone. With one job there is nothing to share, and this one lets training begin
 * at once; it is the same for all that are compared, so none is held against a baseline of its own making.
 */
export const SOLO_POLICY = 'priority';

/** One run to measure. */
export interface Order {
  /** From 0. */
  readonly repeat: number;
  /** The policy's name as the user wrote it. */
  readonly policy: string;
  /** The job that runs alone; null: all of them. */
  readonly solo: JobId | null;
}

export interface Contest {
  readonly scenario: Scenario;
  /** In the order of the user; each once. */
  readonly policies: readonly string[];
  readonly repeats: number;
}

/** One round: every policy and every job alone, all with the same seed. */
export interface Repeat {
  readonly seed: number;
  /** By policy, in the contest's order. */
  readonly runs: readonly Measured[];
  readonly solo: SoloTimesMs;
}

export interface Runner {
  /** What the runs so far were made on. */
  readonly machine: CompareMachine;
  /** Runs the scenario as it is under the policy, from nothing. */
  measure(scenario: Scenario, order: Order, interrupted: AbortSignal): Promise<Measured>;
}

export interface ContestHooks {
  readonly onOrder?: (order: Order, index: number, count: number) => void;
}

/**
 * What to run in which order: repeat by repeat, within each one in an order drawn from the scenario's seed. So a
 * machine that gets warmer or busier meanwhile favours nobody.
 */
export function contestOrders({ scenario, policies, repeats }: Contest): Order[] {
  const random = new Random(seedKey(scenario.seed)).fork('compare');
  return Array.from({ length: repeats }, (_, repeat) => {
    const shared = policies.map((policy) => ({ repeat, policy, solo: null }));
    const alone = scenario.jobs.map(({ id }) => ({ repeat, policy: SOLO_POLICY, solo: id }));
    return shuffled([...shared, ...alone], random);
  }).flat();
}

/** The scenario of one run: the seed of repeat r is r more than the scenario's, for every policy alike. */
export function scenarioOf(scenario: Scenario, { repeat, solo }: Pick<Order, 'repeat' | 'solo'>): Scenario {
  const seed = scenario.seed + repeat;
  const jobs = scenario.jobs.map((job) => {
    // A seed of the job's own moves on as well: a repeat is another draw, not the same again.
    const isDerived = job.config.seed === jobSeed(scenario.seed, job.id);
    const config = { ...job.config, seed: isDerived ? jobSeed(seed, job.id) : job.config.seed + repeat };
    return { ...job, config };
  });
  if (solo === null) return { ...scenario, seed, jobs };
  // Alone, it need not wait for its time to come: what counts is how long it takes from then on.
  const own = jobs.filter(({ id }) => id === solo).map((job) => ({ ...job, arrivesS: 0 }));
  return { ...scenario, seed, jobs: own };
}

/**
 * Runs the whole contest, one run at a time. When it is interrupted, what is complete counts: whole repeats only.
 *
 * @throws what a run throws.
 */
export async function runContest(
  contest: Contest,
  runner: Runner,
  interrupted: AbortSignal,
  { onOrder }: ContestHooks = {},
): Promise<Repeat[]> {
  const orders = contestOrders(contest);
  const done = new Map<string, Measured>();
  for (const [index, order] of orders.entries()) {
    if (interrupted.aborted) break;
    onOrder?.(order, index, orders.length);
    let measured: Measured;
    try {
      measured = await runner.measure(scenarioOf(contest.scenario, order), order, interrupted);
    } catch (error) {
      if (interrupted.aborted) break;
      throw error;
    }
    // A run that was cut short says nothing about its policy.
    if (interrupted.aborted) break;
    done.set(keyOf(order), order.repeat === 0 && order.solo === null ? measured : withoutTimeline(measured));
  }
  return Array.from({ length: contest.repeats }, (_, repeat) => gathered(contest, repeat, done)).filter(
    (repeat) => repeat !== null,
  );
}

function gathered(
  { scenario, policies }: Contest,
  repeat: number,
  done: ReadonlyMap<string, Measured>,
): Repeat | null {
  const runs = policies.flatMap((policy) => done.get(keyOf({ repeat, policy, solo: null })) ?? []);
  if (runs.length < policies.length) return null;
  const solo = new Map<JobId, number | null>();
  for (const { id } of scenario.jobs) {
    const alone = done.get(keyOf({ repeat, policy: SOLO_POLICY, solo: id }));
    if (alone === undefined) return null;
    const job = alone.jobs.find((each) => each.id === id);
    assert(job !== undefined, `the run of ${id} alone is one of somebody else`);
    solo.set(id, jobTimeMs(job));
  }
  return { seed: scenario.seed + repeat, runs, solo };
}

/** One picture of each policy is shown; the others would only take memory. */
function withoutTimeline(measured: Measured): Measured {
  return { ...measured, timeline: { spans: [], dropped: 0 } };
}

function keyOf({ repeat, policy, solo }: Order): string {
  return JSON.stringify([repeat, solo, policy]);
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  return items
    .map((item) => ({ item, place: random.uniform() }))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item);
}
