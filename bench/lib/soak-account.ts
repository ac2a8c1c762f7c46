import type { FaultKind, FaultMoment } from '#src/lanes/faults.js';
import type { SoakSummary } from './soak-folder.js';
import type { ProcessSample } from './soak-process.js';
import type { SoakOutcome } from './soak-run.js';
import { type Allowance, trend, type Trend } from './soak-trend.js';

const MIB = 2 ** 20;
/** A process of many hours keeps the lines of its newest runs only; its sums are over all. */
const RUNS_KEPT_MAX = 1000;

/**
 * What the process may hold more in the last third of a soak than in the first. The resident set is never quite flat: an
 * allocator keeps what threads that are gone let go of. Whatever is lost on every run shows in the others first.
 */
const ALLOWANCES = {
  rss: { absolute: 32 * MIB, share: 0.05 },
  js: { absolute: 4 * MIB, share: 0 },
  osThreads: { absolute: 2, share: 0 },
  openFiles: { absolute: 2, share: 0 },
} as const satisfies Record<string, Allowance>;

export type Resource = keyof typeof ALLOWANCES;
export const RESOURCES: readonly Resource[] = ['rss', 'js', 'osThreads', 'openFiles'];
/** Null where there are too few runs to tell, or the system does not. */
export type Trends = Readonly<Record<Resource, Trend | null>>;

/** Sums over all runs of a soak. */
export interface SoakSums {
  runs: number;
  steps: number;
  steps_repeated: number;
  interrupted: number;
  not_begun: number;
  twins_same: number;
  deaths: number;
  rebuilt: number;
  delays: number;
  delays_ms: number;
  tokens: number;
  tokens_trained: number;
  rollouts: number;
  rewards_failed: number;
  preemptions: number;
  law_violations: number;
  tokens_recomputed: number;
  kv_held: number;
  kv_spilled: number;
  kv_dropped: number;
}

/** One run in numbers. */
export interface SoakLine {
  readonly seed: number;
  readonly mixed: readonly string[];
  readonly ended: SoakOutcome['ended'];
  readonly seconds: number;
  readonly steps: number;
  readonly deaths: readonly string[];
  readonly rebuilt: number;
  readonly preemptions: number;
  readonly law_violations: number;
  readonly tokens: number;
  /** Its twin came to the same bits; null without one. */
  readonly same_bits: boolean | null;
  readonly rss_mib: number;
  readonly js_mib: number;
  readonly os_threads: number | null;
  readonly open_files: number | null;
}

/** Adds up the runs of a soak, and watches what the process holds between them. */
export class SoakAccount {
  readonly sums: SoakSums = {
    runs: 0,
    steps: 0,
    steps_repeated: 0,
    interrupted: 0,
    not_begun: 0,
    twins_same: 0,
    deaths: 0,
    rebuilt: 0,
    delays: 0,
    delays_ms: 0,
    tokens: 0,
    tokens_trained: 0,
    rollouts: 0,
    rewards_failed: 0,
    preemptions: 0,
    law_violations: 0,
    tokens_recomputed: 0,
    kv_held: 0,
    kv_spilled: 0,
    kv_dropped: 0,
  };
  /** By kind and moment, "throw beforeSubmit". */
  readonly #deaths = new Map<string, number>();
  #adapter: SoakSummary['adapter'] | null = null;
  readonly #samples: Record<Resource, number[]> = { rss: [], js: [], osThreads: [], openFiles: [] };
  readonly #lines: SoakLine[] = [];

  /** @returns the run in numbers, of which the newest thousand are kept. */
  add(outcome: SoakOutcome, sample: ProcessSample): SoakLine {
    const { drawn, contents, struck, delays, ended, hadTwin, problems } = outcome;
    const { sums } = this;
    sums.runs++;
    sums.interrupted += ended === 'interrupted' ? 1 : 0;
    sums.not_begun += ended === 'not begun' ? 1 : 0;
    sums.twins_same += hadTwin && problems.length === 0 ? 1 : 0;
    sums.deaths += struck.length;
    sums.delays += delays.count;
    sums.delays_ms += delays.totalMs;
    for (const fault of struck) {
      const name = deathText(fault);
      this.#deaths.set(name, (this.#deaths.get(name) ?? 0) + 1);
    }
    if (contents !== null) this.#addContents(contents);
    this.#addSample(sample);
    const line: SoakLine = {
      seed: drawn.seed,
      mixed: drawn.words,
      ended,
      seconds: outcome.seconds,
      steps: contents?.summary.steps ?? 0,
      deaths: struck.map(deathText),
      rebuilt: contents?.summary.lanes.rebuilt ?? 0,
      preemptions: contents?.summary.preemption.count ?? 0,
      law_violations: contents?.summary.preemption.law_violations ?? 0,
      tokens: contents?.summary.tokens.decoded ?? 0,
      same_bits: hadTwin ? problems.length === 0 : null,
      rss_mib: sample.rssBytes / MIB,
      js_mib: sample.jsBytes / MIB,
      os_threads: sample.osThreads,
      open_files: sample.openFiles,
    };
    this.#lines.push(line);
    if (this.#lines.length > RUNS_KEPT_MAX) this.#lines.shift();
    return line;
  }

  /** What the runs ran on; null before the first that began. */
  get adapter(): SoakSummary['adapter'] | null {
    return this.#adapter;
  }

  get deaths(): ReadonlyMap<string, number> {
    return this.#deaths;
  }

  get lines(): readonly SoakLine[] {
    return this.#lines;
  }

  get trends(): Trends {
    const of = (resource: Resource): Trend | null => trend(this.#samples[resource], ALLOWANCES[resource]);
    return { rss: of('rss'), js: of('js'), osThreads: of('osThreads'), openFiles: of('openFiles') };
  }

  /** What grew, and so broke the soak though every run of it was good. */
  get growing(): Resource[] {
    const { trends } = this;
    return RESOURCES.filter((resource) => trends[resource]?.isFlat === false);
  }

  #addContents({ summary, rollouts }: NonNullable<SoakOutcome['contents']>): void {
    const { sums } = this;
    const { preemption, lanes } = summary;
    this.#adapter ??= summary.adapter;
    sums.steps += summary.steps;
    sums.steps_repeated += lanes.steps_repeated;
    sums.rebuilt += lanes.rebuilt;
    sums.tokens += summary.tokens.decoded;
    sums.tokens_trained += summary.tokens.trained;
    sums.rollouts += rollouts.length;
    sums.rewards_failed += rollouts.filter(({ failure }) => failure !== null).length;
    sums.preemptions += preemption.count;
    sums.law_violations += preemption.law_violations;
    sums.tokens_recomputed += preemption.tokens_recomputed;
    sums.kv_held += preemption.kv.held;
    sums.kv_spilled += preemption.kv.spilled;
    sums.kv_dropped += preemption.kv.dropped;
  }

  #addSample({ rssBytes, jsBytes, osThreads, openFiles }: ProcessSample): void {
    this.#samples.rss.push(rssBytes);
    this.#samples.js.push(jsBytes);
    if (osThreads !== null) this.#samples.osThreads.push(osThreads);
    if (openFiles !== null) this.#samples.openFiles.push(openFiles);
  }
}

function deathText({ at, do: kind }: { at: FaultMoment; do: FaultKind }): string {
  return `${kind} ${at}`;
}
