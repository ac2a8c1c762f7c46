import type { Gpu } from '../gpu/device.js';

/** The moments of a lane's life at which it can be made to die. */
export type FaultMoment =
  /** A slice is encoded and about to be handed to the device. */
  | 'beforeSubmit'
  /** A slice has just been handed to the device, which works on it. */
  | 'afterSubmit'
  /** Tokens are back from the device, and the host is about to hear of them. */
  | 'beforeCommit'
  /** A training step is done and its state back from the device, and the host is about to hear of it. */
  | 'beforeAnswer'
  /** A part of a version of the weights is written to the store. */
  | 'midPublish';

/** What goes wrong: an error nobody foresaw, the end of the thread, or the loss of its device. */
export type FaultKind = 'throw' | 'exit' | 'destroyDevice';

/** One thing that is to go wrong in a lane, once. */
export interface LaneFault {
  readonly at: FaultMoment;
  /** How many such moments pass first. */
  readonly after: number;
  readonly do: FaultKind;
}

/**
 * Makes a lane fail where it is told to: the switch by which tests and the soak find out that losing a lane costs
 * nothing but time. Nothing pretends: the error is thrown, the thread is told to exit, the device is destroyed with its
 * work in flight. Without faults nothing is wrapped and nothing counted.
 */
export class Faults {
  readonly #passed = new Map<FaultMoment, number>();

  constructor(
    private readonly faults: readonly LaneFault[],
    private readonly gpu: Gpu,
  ) {
    if (faults.some(({ at }) => at === 'beforeSubmit' || at === 'afterSubmit')) this.#wrapSubmit();
  }

  /** The moment is here: whatever is due now happens. */
  reach(moment: FaultMoment): void {
    if (this.faults.length === 0) return;
    const passed = this.#passed.get(moment) ?? 0;
    this.#passed.set(moment, passed + 1);
    for (const fault of this.faults) if (fault.at === moment && fault.after === passed) this.#happen(fault);
  }

  #happen({ at, after, do: kind }: LaneFault): void {
    switch (kind) {
      case 'throw':
        throw new Error(`injected fault: ${at}, after ${after}`);
      case 'exit':
        // A lane's thread may not just end; worker.ts sees to it that it ends well.
        process.exit(1);
        break;
      case 'destroyDevice':
        this.gpu.device.destroy();
        return;
      default:
        kind satisfies never;
    }
  }

  #wrapSubmit(): void {
    const { queue } = this.gpu.device;
    const submit = queue.submit.bind(queue);
    queue.submit = (commandBuffers) => {
      this.reach('beforeSubmit');
      submit(commandBuffers);
      this.reach('afterSubmit');
    };
  }
}
