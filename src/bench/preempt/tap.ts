import type { RemoteLane } from '../../lanes/remote-lane.js';
import type {
  LaneRecords,
  PreemptionRecord,
  SliceRecord,
  UndisturbedRecord,
} from '../../telemetry/records.js';

/** What a lane has told since it was last asked. */
export interface Tapped {
  readonly slices: readonly SliceRecord[];
  readonly preemptions: readonly PreemptionRecord[];
  readonly undisturbed: readonly UndisturbedRecord[];
  readonly hintIdleMs: number;
  /** Processor time of the lane's thread since its start. */
  readonly cpuMs: number | null;
}

/** Gathers the records of one lane, which come in parts. */
export class Tap {
  #slices: SliceRecord[] = [];
  #preemptions: PreemptionRecord[] = [];
  #undisturbed: UndisturbedRecord[] = [];
  #hintIdleMs = 0;

  receive({ slices, preemptions, undisturbed, hintIdleMs }: LaneRecords): void {
    for (const slice of slices) this.#slices.push(slice);
    this.#preemptions.push(...preemptions);
    this.#undisturbed.push(...undisturbed);
    this.#hintIdleMs += hintIdleMs;
  }

  /** Everything since the last call, what the lane has not sent yet included. */
  async take(lane: RemoteLane): Promise<Tapped> {
    const last = await lane.request({ kind: 'flush' });
    this.receive(last);
    const taken = {
      slices: this.#slices,
      preemptions: this.#preemptions,
      undisturbed: this.#undisturbed,
      hintIdleMs: this.#hintIdleMs,
      cpuMs: last.cpuMs,
    };
    [this.#slices, this.#preemptions, this.#undisturbed, this.#hintIdleMs] = [[], [], [], 0];
    return taken;
  }
}
