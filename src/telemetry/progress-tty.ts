import { Listr, ListrLogger, PRESET_TIMER, ProcessOutput } from 'listr2';
import { stepText, type Progress, type StepProgress } from './progress-line.js';

/** Notes shown under the running phase; the newest ones. All of them are in the log as well. */
const NOTES_SHOWN = 3;
/** Jobs shown at once. */
const STATUS_LINES_MAX = 12;

/** Phases with a tick, a spinner and a time by listr2; under the running one its newest step and notes. */
export class TtyProgress implements Progress {
  readonly #stream: NodeJS.WriteStream;
  #current: Phase | null = null;
  #ended: Promise<void> = Promise.resolve();

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  phase(text: string): void {
    this.#current?.end('done');
    this.#current = new Phase(this.#stream, text, this.#ended);
    this.#ended = this.#current.ended;
  }

  step(record: StepProgress): void {
    this.#current?.setStatus(record.job ?? '', stepText(record));
  }

  note(text: string): void {
    if (this.#current) this.#current.addNote(text);
    else this.#stream.write(`${text}\n`);
  }

  async close(outcome: 'done' | 'failed' = 'done'): Promise<void> {
    this.#current?.end(outcome);
    this.#current = null;
    await this.#ended;
  }
}

/** One phase: a list of a single task, which begins to show once the phase before has shown its end. */
class Phase {
  readonly ended: Promise<void>;
  end: (outcome: 'done' | 'failed') => void = () => undefined;
  /** The newest of each job. */
  readonly #status = new Map<string, string>();
  #notes: readonly string[] = [];
  #show: (output: string) => void = () => undefined;

  constructor(stream: NodeJS.WriteStream, title: string, before: Promise<void>) {
    const work = new Promise<void>((resolve, reject) => {
      this.end = (outcome) => (outcome === 'done' ? resolve() : reject(new Error(title)));
    });
    // It may fail before its list is shown and listens.
    work.catch(() => undefined);
    this.ended = before.then(() => this.#run(stream, title, work)).catch(() => undefined);
  }

  setStatus(job: string, text: string): void {
    this.#status.set(job, text);
    this.#refresh();
  }

  addNote(text: string): void {
    this.#notes = [...this.#notes, text].slice(-NOTES_SHOWN);
    this.#refresh();
  }

  #refresh(): void {
    this.#show([...[...this.#status.values()].slice(-STATUS_LINES_MAX), ...this.#notes].join('\n'));
  }

  async #run(stream: NodeJS.WriteStream, title: string, work: Promise<void>): Promise<void> {
    const processOutput = new ProcessOutput(stream, stream, { leaveEmptyLine: false, dump: ['stderr'] });
    const list = new Listr(
      [
        {
          title,
          rendererOptions: { persistentOutput: true },
          task: (_context, task) => {
            this.#show = (output) => {
              task.output = output;
            };
            this.#refresh();
            return work;
          },
        },
      ],
      {
        renderer: 'default',
        // The choice was made by the stream in hand; listr2 would look at stdout, which may be a pipe.
        forceTTY: true,
        fallbackRendererCondition: false,
        registerSignalListeners: false,
        rendererOptions: {
          logger: new ListrLogger({ processOutput, useIcons: true, toStderr: [] }),
          timer: PRESET_TIMER,
          showErrorMessage: false,
        },
      },
    );
    await list.run();
  }
}
