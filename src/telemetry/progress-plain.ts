import { nowMs } from '../lib/clock.js';
import { secondsText } from './format.js';
import { stepText, type Progress, type StepProgress } from './progress-line.js';

/** One line for each event: no escape codes, no carriage returns. */
export class PlainProgress implements Progress {
  readonly #stream: NodeJS.WriteStream;
  #phase: { readonly text: string; readonly startMs: number } | null = null;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  phase(text: string): void {
    this.#end('done');
    this.#phase = { text, startMs: nowMs() };
    this.#line(text);
  }

  step(record: StepProgress): void {
    this.#line(stepText(record));
  }

  note(text: string): void {
    this.#line(text);
  }

  close(outcome: 'done' | 'failed' = 'done'): Promise<void> {
    this.#end(outcome);
    return Promise.resolve();
  }

  #end(outcome: 'done' | 'failed'): void {
    if (!this.#phase) return;
    const { text, startMs } = this.#phase;
    this.#phase = null;
    this.#line(`${text}: ${outcome} after ${secondsText((nowMs() - startMs) / 1000)}`);
  }

  #line(text: string): void {
    this.#stream.write(`${text.replaceAll(/\s*[\r\n]+\s*/g, ' ')}\n`);
  }
}
