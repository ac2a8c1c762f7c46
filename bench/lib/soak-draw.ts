import { fileURLToPath } from 'node:url';
import type { FaultKind, FaultMoment, LaneFault } from '#src/lanes/faults.js';
import { Random } from '#src/lib/prng.js';

/** By lane, then by how often it was replaced: the one thing that goes wrong in it. */
export type FaultScript = readonly (readonly LaneFault[])[];

/**
 * What an undisturbed run must come to as well, bit for bit: everything without staleness; with it, on which weights a
 * token was sampled is a matter of time, so only while the weights stay as they are, and then the tokens. Null where
 * nothing is known.
 */
export type TwinOf = 'everything' | 'tokens' | null;

/** One run of the soak: what it does, how it shares its devices, and what befalls it. A function of its seed. */
export interface SoakCase {
  readonly seed: number;
  readonly steps: number;
  /** In one step. */
  readonly rollouts: number;
  readonly twinOf: TwinOf;
  /** Config of the job, as `--set` takes it. */
  readonly job: readonly string[];
  /** Config that may not change a bit of what is produced: lanes, budgets, caches, reservations. */
  readonly sharing: readonly string[];
  readonly deaths: FaultScript;
  /** The main thread stands still for up to 50 ms, again and again. */
  readonly hasDelays: boolean;
  /** After so long the user has had enough; null lets it come to its end. */
  readonly interruptAfterMs: number | null;
  /** What was mixed, for people. */
  readonly words: readonly string[];
}

/** Sums whose judge throws, hangs or answers NaN, by the prompt. From source and from dist-bench alike. */
const MOODY_TASK = fileURLToPath(new URL('../../test/run/fixtures/moody-task.mjs', import.meta.url));
/** The shipped model's answers have 22: cut short, all would be wrong, and nothing would be trained. */
const ANSWER_TOKENS = 24;
/** Far longer than any reward takes on a busy machine: a hung one must be told from a slow one for certain. */
const REWARD_TIMEOUT_MS = 500;
/** More than any script has deaths, tries to open a lane included. */
const REBUILDS_MAX = 100;

/** With one, whatever generates is preempted, and nothing goes on while it is gone. */
const LANES = [1, 2, 2];
const KINDS: readonly FaultKind[] = ['throw', 'exit', 'destroyDevice'];
/** How many of such moments may pass first, in a run of a few small steps. */
const MOMENTS: Readonly<Record<FaultMoment, number>> = {
  beforeSubmit: 150,
  afterSubmit: 150,
  beforeCommit: 20,
  beforeAnswer: 2,
  midPublish: 2,
};
/** What only the lane that trains comes to. */
const TRAINING: readonly FaultMoment[] = ['beforeAnswer', 'midPublish'];
/** Slice and in-flight budget, µs. */
const BUDGETS = [
  [500, 1000],
  [2000, 4000],
  [2000, 10_000],
  [20_000, 40_000],
] as const;

/** Config and words that belong together. */
interface Part {
  readonly set: readonly string[];
  readonly words: readonly string[];
}

export function drawCase(seed: number): SoakCase {
  const random = new Random(seed).fork('soak');
  const staleness = random.pick([0, 0, 1, 2]);
  const twinOf: TwinOf = staleness === 0 ? 'everything' : random.pick(['tokens', null]);
  // With staleness generation goes on while training has the device, when there is enough of it.
  const [steps, prompts] = staleness === 0 ? [random.int(2, 4), 4] : [random.int(3, 5), 6];
  const samples = random.int(2, 4);
  const size: Part = {
    set: [
      `seed=${seed}`,
      `steps=${steps}`,
      `rollout.prompts_per_step=${prompts}`,
      `rollout.samples_per_prompt=${samples}`,
      `rollout.max_tokens=${ANSWER_TOKENS + random.int(0, 12)}`,
      'evaluation.heldout_prompts=0',
      `algorithm.staleness_versions_max=${staleness}`,
      ...(twinOf === 'tokens' ? ['optimizer.learning_rate=0'] : []),
    ],
    words: [
      `${steps} steps of ${prompts}×${samples}`,
      `staleness ${staleness}`,
      ...(twinOf === 'tokens' ? ['rate 0'] : []),
    ],
  };
  const job = [size, drawAlgorithm(random), drawTask(random)];
  const lanes = random.pick(LANES);
  const sharing = [drawEngine(random), drawDevice(random, lanes), drawReservation(random, lanes, steps)];
  const hasDelays = random.int(0, 1) === 1;
  const interruptAfterMs = random.int(1, 6) === 1 ? random.int(100, 5000) : null;
  const words = [...job, ...sharing].flatMap((part) => part.words);
  if (hasDelays) words.push('delays');
  if (interruptAfterMs !== null) words.push(`interrupt after ${interruptAfterMs} ms`);
  return {
    seed,
    steps,
    rollouts: prompts * samples,
    twinOf,
    job: job.flatMap(({ set }) => set),
    sharing: sharing.flatMap(({ set }) => set),
    deaths: Array.from({ length: lanes }, (_, lane) => drawDeaths(random, lane)),
    hasDelays,
    interruptAfterMs,
    words,
  };
}

function drawAlgorithm(random: Random): Part {
  const kl = random.pick([0, 0.05]);
  const updates = random.int(1, 2);
  const oldLogProbs = random.pick(['recorded', 'recomputed']);
  return {
    set: [
      `algorithm.kl_coefficient=${kl}`,
      `algorithm.updates_per_step=${updates}`,
      `algorithm.old_log_probs=${oldLogProbs}`,
      `optimizer.micro_batch_tokens=${random.pick([128, 2048])}`,
    ],
    words: [`KL ${kl}`, `${updates} updates`, `${oldLogProbs} log-probs`],
  };
}

function drawTask(random: Random): Part {
  if (random.int(1, 4) > 1) return { set: [], words: [] };
  return {
    set: [
      `task.name=${MOODY_TASK}`,
      // The model is sure of its sums: only then do the answers to one prompt differ.
      'rollout.temperature=1.5',
      `reward.timeout_ms=${REWARD_TIMEOUT_MS}`,
      'reward.workers=2',
    ],
    words: ['rewards that throw and hang'],
  };
}

function drawEngine(random: Random): Part {
  const slots = random.int(2, 8);
  const stepsAhead = random.int(1, 4);
  const kvBlocks = random.pick(['auto', String(Math.max(4, 2 * slots))]);
  return {
    set: [
      `engine.slots=${slots}`,
      `engine.batch_tokens=${slots * random.pick([1, 8])}`,
      `engine.steps_ahead=${stepsAhead}`,
      `engine.kv_blocks=${kvBlocks}`,
    ],
    words: [`${slots} slots`, ...(kvBlocks === 'auto' ? [] : [`${kvBlocks} blocks`])],
  };
}

function drawDevice(random: Random, lanes: number): Part {
  const kv = random.pick(['held', 'spilled', 'dropped', 'pressure']);
  const blocksMax = random.int(0, 8);
  const [sliceUs, inFlightUs] = random.pick(BUDGETS);
  const floor = random.pick([0, 0, 0.2]);
  const hints = random.int(0, 1) === 1;
  return {
    set: [
      `lanes.count=${lanes}`,
      `lanes.rebuilds_max=${REBUILDS_MAX}`,
      `lanes.kv_on_preempt=${kv}`,
      `lanes.kv_blocks_while_training=${blocksMax}`,
      `lanes.slice_budget_us=${sliceUs}`,
      `lanes.in_flight_budget_us=${inFlightUs}`,
      `lanes.generation_floor=${floor}`,
      `lanes.hints=${hints}`,
    ],
    words: [
      lanes === 1 ? 'one lane' : `${lanes} lanes`,
      kv === 'pressure' ? `KV under pressure, ${blocksMax} blocks stay` : `KV ${kv}`,
      `budgets ${sliceUs}/${inFlightUs} µs`,
      ...(floor > 0 ? [`floor ${floor}`] : []),
      ...(hints ? ['hints'] : []),
    ],
  };
}

/** Somebody else needs lane 1 for a while, every third time that there is one. */
function drawReservation(random: Random, lanes: number, steps: number): Part {
  if (lanes === 1 || random.int(1, 3) > 1) return { set: [], words: [] };
  const from = random.int(1, steps);
  const until = random.int(from + 1, steps + 1);
  return {
    set: [`scheduler.reserve=[{lane=1, from_step=${from}, until_step=${until}}]`],
    words: [`lane 1 reserved from step ${from} until ${until}`],
  };
}

function drawDeaths(random: Random, lane: number): LaneFault[] {
  return Array.from({ length: random.pick([0, 1, 1, 2, 3]) }, () => {
    const all: readonly FaultMoment[] = ['beforeSubmit', 'afterSubmit', 'beforeCommit', ...TRAINING];
    const at = random.pick(lane === 0 ? all : all.filter((moment) => !TRAINING.includes(moment)));
    return { at, after: random.int(0, MOMENTS[at]), do: random.pick(KINDS) };
  });
}
