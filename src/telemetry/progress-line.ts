import { msText, numberText, scoreText } from './format.js';

/** One optimizer step as a line of live progress shows it. Null where the step has no such number. */
export interface StepProgress {
  /** Whose step it is, where there are several jobs. */
  readonly job?: string;
  readonly step: number;
  readonly steps: number;
  readonly reward: number | null;
  readonly tokensPerSecond: number;
  readonly loss: number | null;
  readonly kl: number | null;
  readonly entropy: number | null;
  /** Longest of the step. */
  readonly timeToYieldMs: number | null;
  readonly version: number;
}

/** What a person sees while a run goes on. No method throws, none waits but `close`. */
export interface Progress {
  /** Ends the phase before and begins one. */
  phase(text: string): void;
  step(record: StepProgress): void;
  /** Something to know that is no step: one line. */
  note(text: string): void;
  /** Ends the last phase, as failed if so. Nothing may be shown after it. */
  close(outcome?: 'done' | 'failed'): Promise<void>;
}

/** The same words on a terminal and in a log, so that what was seen can be searched for. */
export function stepText(record: StepProgress): string {
  const { step, steps, reward, tokensPerSecond, loss, kl, entropy, timeToYieldMs, version } = record;
  const whose = record.job === undefined ? '' : `${record.job}: `;
  return [
    `${whose}step ${step}/${steps}`,
    `reward ${scoreText(reward)}`,
    `${numberText(tokensPerSecond)} tokens/s`,
    `loss ${numberText(loss)}`,
    `KL ${numberText(kl)}`,
    `entropy ${numberText(entropy)}`,
    `yield ${msText(timeToYieldMs)}`,
    `v${version}`,
  ].join('  ');
}
