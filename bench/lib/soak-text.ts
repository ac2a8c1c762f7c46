import { bytesText, cautiousPercentText, numberText, secondsText } from '#src/telemetry/format.js';
import { type Resource, RESOURCES, type SoakLine, type SoakSums } from './soak-account.js';
import type { SoakFailure, SoakResult } from './soak-loop.js';
import type { Trend } from './soak-trend.js';

const NAMES: Readonly<Record<Resource, string>> = {
  rss: 'resident memory',
  js: 'JavaScript memory',
  osThreads: 'threads of the process',
  openFiles: 'open files',
};

/** One run: what was mixed in it, and what became of it. */
export function lineText(line: SoakLine): string {
  const { ended, steps, deaths, rebuilt, preemptions, law_violations: over, tokens, same_bits: same } = line;
  const parts = [
    ...(ended === 'done' ? [] : [ended]),
    `${steps} steps`,
    deaths.length === 0 ? 'no deaths' : `${deaths.length} deaths (${deaths.join(', ')}), ${rebuilt} rebuilt`,
    `${over} of ${preemptions} preemptions over the law`,
    `${numberText(tokens)} tokens`,
    ...(same === null ? [] : [same ? 'same bits as undisturbed' : 'OTHER BITS']),
    secondsText(line.seconds),
    `${line.rss_mib.toFixed(0)} MiB`,
  ];
  return `seed ${line.seed}: ${line.mixed.join(', ')} → ${parts.join(', ')}`;
}

/** The whole soak, and whether everything held. */
export function resultText(result: SoakResult, seed: number): string {
  const { account, seconds, threadsStarted } = result;
  const { sums, trends } = account;
  const deaths = [...account.deaths].sort();
  const lines = [
    `${sums.runs} runs in ${secondsText(seconds)}, seeds ${seed} to ${seed + Math.max(0, sums.runs - 1)}: ` +
      `${sums.interrupted + sums.not_begun} interrupted, ${sums.twins_same} with the same bits as an undisturbed twin`,
    `${sums.deaths} deaths of lanes, ${sums.rebuilt} rebuilt, ${sums.steps_repeated} of ${sums.steps} steps taken again` +
      deaths.map(([name, count]) => `\n  ${name}: ${count}`).join(''),
    `${numberText(sums.delays)} delays of the main thread, ${secondsText(sums.delays_ms / 1000)} together; ` +
      `${sums.rewards_failed} rewards failed`,
    `${numberText(sums.tokens)} tokens of ${numberText(sums.rollouts)} rollouts, each in one place: ` +
      `${numberText(sums.tokens_trained)} trained on; ${numberText(sums.tokens_recomputed)} computed again`,
    `caches of preempted sequences: ${sums.kv_held} held, ${sums.kv_spilled} spilled, ${sums.kv_dropped} dropped`,
    lawText(sums),
    `${threadsStarted} worker threads started`,
    ...RESOURCES.map((resource) => `${NAMES[resource]}: ${trendText(resource, trends[resource])}`),
    verdictText(result, seed),
  ];
  return `${lines.join('\n')}\n`;
}

/** The same for programs. */
export function resultJson(result: SoakResult, seed: number): object {
  const { account, seconds, threadsStarted, failure, held } = result;
  const { adapter, sums, deaths, trends, lines } = account;
  return {
    adapter,
    seed,
    seconds,
    held,
    failure,
    ...sums,
    deaths_by_kind: Object.fromEntries([...deaths].sort()),
    threads_started: threadsStarted,
    trends,
    lines,
  };
}

/** The process that had the runs is gone. */
export function diedText(signal: NodeJS.Signals | null, seed: number | null): string {
  const when = seed === null ? 'before the first run' : `at seed ${seed}`;
  const again = seed === null ? '' : `\n  ${againText(`--seed ${seed} --runs 1`)}`;
  return `\nverdict: BROKEN ${when}: the process was ended by ${signal ?? 'nobody knows what'}${again}\n`;
}

function lawText({ preemptions, law_violations: over }: SoakSums): string {
  if (preemptions === 0) return 'law: no preemption to hold it against';
  const share = cautiousPercentText(1 - over / preemptions);
  return `law: obeyed by ${share} of ${numberText(preemptions)} preemptions, ${numberText(over)} over`;
}

function trendText(resource: Resource, trend: Trend | null): string {
  if (trend === null) return 'too few runs to tell, or no way to know';
  const isBytes = resource === 'rss' || resource === 'js';
  const [first, last, allowed] = [trend.first, trend.last, trend.allowed].map((value) =>
    isBytes ? bytesText(value) : numberText(value),
  );
  const verdict = trend.isFlat ? 'flat' : 'GROWING';
  return `${first} in the first third, ${last} in the last (up to ${allowed} allowed): ${verdict}`;
}

function verdictText({ account, failure, seconds }: SoakResult, seed: number): string {
  if (failure !== null) return failureText(failure);
  const grown = account.growing.map((resource) => NAMES[resource]);
  if (grown.length === 0) return 'verdict: everything held';
  const minutes = Math.ceil(seconds / 60);
  return `verdict: BROKEN: ${grown.join(' and ')} grew\n  ${againText(`--seed ${seed} --minutes ${minutes}`)}`;
}

function failureText({ seed, problems, folder }: SoakFailure): string {
  const what = problems.map((text) => `\n  ${text}`).join('');
  const again = againText(`--seed ${seed} --runs 1`);
  return `verdict: BROKEN at seed ${seed}:${what}\n  what it left: ${folder}\n  ${again}`;
}

function againText(args: string): string {
  return `again: npm run soak -- ${args}`;
}
