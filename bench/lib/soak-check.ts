import type { FolderContents, SoakRollout } from './soak-folder.js';

/** What a run was to do. */
export interface Expected {
  readonly steps: number;
  /** In one step. */
  readonly rollouts: number;
  /** It may have ended before its last step. */
  readonly wasInterrupted: boolean;
}

const FATES = ['trained', 'aborted', 'expired', 'filtered', 'in_flight'] as const;

/** What is wrong with a run, in words; empty when nothing is. */
export function problemsOf(contents: FolderContents, expected: Expected): string[] {
  const { summary, rollouts, metricLines, weights } = contents;
  const problems: string[] = [];
  const expect = (isSo: boolean, text: string): void => {
    if (!isSo) problems.push(text);
  };
  const { steps, tokens } = summary;
  const isWhole = steps === expected.steps;
  expect(isWhole || (expected.wasInterrupted && steps < expected.steps), `${steps} steps were taken`);
  expect(metricLines === steps, `${metricLines} lines of metrics for ${steps} steps`);
  expect((weights !== null) === steps > 0, `${weights === null ? 'no' : 'a'} model after ${steps} steps`);
  const ends = FATES.reduce((sum, fate) => sum + tokens[fate], 0);
  expect(tokens.decoded === ends, `the token account is open: ${JSON.stringify(tokens)}`);
  expect(tokens.decoded === tokensOf(rollouts), `${tokensOf(rollouts)} tokens written of ${tokens.decoded}`);
  for (const fate of FATES) {
    const written = tokensOf(rollouts.filter((rollout) => rollout.fate === fate));
    expect(written === tokens[fate], `${written} tokens written as ${fate} of ${tokens[fate]}`);
  }
  if (isWhole) {
    for (let step = 1; step <= steps; step++) {
      const written = rollouts.filter((rollout) => rollout.step === step).length;
      expect(
        written === expected.rollouts,
        `${written} rollouts written of step ${step}, not ${expected.rollouts}`,
      );
    }
    expect(tokens.in_flight === 0, `${tokens.in_flight} tokens in flight at the end`);
  }
  return [...problems, ...repeated(rollouts), ...rollouts.flatMap(rolloutProblems)];
}

function repeated(rollouts: readonly SoakRollout[]): string[] {
  const seen = new Set<number>();
  return rollouts
    .filter(({ id }) => seen.size === seen.add(id).size)
    .map(({ id }) => `rollout ${id} was produced twice`);
}

function rolloutProblems({ id, token_ids, logprobs, raw_logprobs, weight_versions }: SoakRollout): string[] {
  const lengths = new Set([token_ids.length, logprobs.length, raw_logprobs.length]);
  if (lengths.size > 1) return [`rollout ${id} has ${[...lengths].join(', ')} tokens and log-probabilities`];
  // Each token has one version, and no later one an older.
  let end = 0;
  let newest = -1;
  for (const span of weight_versions) {
    if (span.start !== end || span.end <= span.start || span.version <= newest)
      return [`rollout ${id} has versions ${JSON.stringify(weight_versions)}`];
    end = span.end;
    newest = span.version;
  }
  return end === token_ids.length
    ? []
    : [`rollout ${id} has versions for ${end} of ${token_ids.length} tokens`];
}

/** Where a run and its undisturbed twin came to other bits, in words; empty when they are the same. */
export function differences(
  run: FolderContents,
  twin: FolderContents,
  of: 'everything' | 'tokens',
): string[] {
  const [ours, theirs] = [byId(run.rollouts, of), byId(twin.rollouts, of)];
  const ids = [...new Set([...ours.keys(), ...theirs.keys()])].sort((a, b) => a - b);
  const other = ids.filter((id) => ours.get(id) !== theirs.get(id));
  const first = other[0];
  const texts =
    first === undefined
      ? []
      : [
          `${other.length} of ${ids.length} rollouts differ from those of the undisturbed twin, the first:`,
          `  ${ours.get(first) ?? 'missing'}`,
          `  ${theirs.get(first) ?? 'missing'}`,
        ];
  const sameWeights = run.weights !== null && twin.weights !== null && run.weights.equals(twin.weights);
  return sameWeights ? texts : [...texts, "the weights differ from the undisturbed twin's"];
}

/** Each as text, without what may differ: the lanes it was on, and where time decides, the versions. */
function byId(rollouts: readonly SoakRollout[], of: 'everything' | 'tokens'): Map<number, string> {
  return new Map(
    rollouts.map(({ lanes: _, weight_versions, fate, ...rollout }) => [
      rollout.id,
      JSON.stringify(of === 'everything' ? { ...rollout, weight_versions, fate } : rollout),
    ]),
  );
}

function tokensOf(rollouts: readonly SoakRollout[]): number {
  return rollouts.reduce((sum, { token_ids }) => sum + token_ids.length, 0);
}
