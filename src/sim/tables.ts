import { z } from 'zod';
import { distributionSchema } from './distribution.js';

/** More lanes than any scheduler of this design was thought for. */
export const SIM_LANES_MAX = 100_000;
const COPIES_MAX = 10_000;
const BYTES_MAX = 1e15;

const ms = () => number(0, 1e12, 'a number of ms from 0');
const share = () => number(0, 1, 'a number from 0 to 1');
const above = (max: number) => {
  const must = `a number above 0 and at most ${max}`;
  return z.number(must).gt(0, must).max(max, must);
};
const whole = (min: number, max: number) => {
  const must = `a whole number from ${min} to ${max}`;
  return z.int(must).min(min, must).max(max, must);
};

function number(min: number, max: number, must: string) {
  return z.number(must).min(min, must).max(max, must);
}

/**
 * `[job.sim]`: what a user writes of one job for the simulator alone. A live run has all of it from its model and its
 * task; what is left out here is assumed, and `offbeat simulate` prints what it assumed.
 */
export const simJobSchema = z.strictObject(
  {
    /** So many jobs like this one, `id-1`, `id-2` and so on, where there is more than one. */
    copies: whole(1, COPIES_MAX).optional(),
    /** On top of `arrives_s`. Copies take the numbers of a list or trace in turn, and draw anything else. */
    arrives_ms: distributionSchema.optional(),
    /** Given up so long after it came, if it is not done. */
    stays_ms: ms().optional(),
    prompt_tokens: distributionSchema.optional(),
    /** Of one turn. */
    completion_tokens: distributionSchema.optional(),
    turns: distributionSchema.optional(),
    /** Between two turns, and the tokens it then has for the model to read. */
    environment_wait_ms: distributionSchema.optional(),
    observation_tokens: distributionSchema.optional(),
    /** From the end of a rollout to its reward. */
    reward_ms: distributionSchema.optional(),
    /** Of all groups, how many teach nothing because their rewards are equal: they are not trained on. */
    filtered_share: share().optional(),
    /** How much more its model computes than the one the cost model was taken from. */
    compute_scale: above(1e6).optional(),
    /** Bytes of one version of its weights. */
    weight_bytes: number(0, BYTES_MAX, 'a number of bytes from 0').optional(),
    /** Its engine may be awake on at most so many of its lanes: its trainer's and those after it. */
    engine_lanes_max: whole(1, SIM_LANES_MAX).optional(),
  },
  'a table of keys',
);

/** `[sim.faults]`: what goes wrong, drawn from the scenario's seed. */
const faults = z.strictObject(
  {
    /** Lanes that are lost and come back; how often a day each, on average. */
    lane_loss: z
      .strictObject({ per_lane_day: number(0, 1e6, 'a number from 0'), return_ms: distributionSchema })
      .optional(),
    /** Losses at a given time. */
    losses: z
      .array(z.strictObject({ lane: whole(0, SIM_LANES_MAX - 1), at_ms: ms(), return_ms: ms() }))
      .max(100_000, 'a list of at most 100000 tables')
      .optional(),
    /** This share of all turns is `factor` times as long. */
    stragglers: z.strictObject({ share: share(), factor: above(1e6) }).optional(),
    /** This share of all lanes runs at `factor` times its speed. */
    slow_lanes: z.strictObject({ share: share(), factor: above(1e6) }).optional(),
  },
  'a table of keys',
);

/** `[sim]`: the simulated machine. Everything has a default. */
export const simSchema = z.strictObject(
  {
    /** Left out, as many as live. */
    lanes: whole(1, SIM_LANES_MAX).optional(),
    /** A named cost model. */
    profile: z.string('the name of a cost profile').optional(),
    /** Device memory of a lane; left out, nothing is ever too large. */
    lane_bytes: above(BYTES_MAX).optional(),
    /** The simulation ends then at the latest. */
    ends_ms: above(1e12).optional(),
    /** What happens within so long is planned for together; a large cluster wants seconds. */
    coalesce_ms: ms().optional(),
    /** An engine tells of its progress no more often than this. */
    progress_ms: ms().optional(),
    faults: faults.optional(),
  },
  'a table of keys',
);
