/** Counts what moving weights cost, and what sending every version to every engine would have cost. */
export class WeightsAccount {
  #publishes = 0;
  #bytesSent = 0;
  #bytesBroadcast = 0;
  #seconds = 0;

  constructor(
    /** Bytes of one version. */
    private readonly bytes: number,
    /** Lanes that may hold an engine of the job, asleep or awake, the trainer's own included. */
    private readonly engineLanes: number,
  ) {}

  published(seconds: number): void {
    this.#publishes++;
    this.#bytesBroadcast += this.bytes * this.engineLanes;
    this.#seconds += seconds;
  }

  /** Bytes that one engine fetched through the host. */
  pulled(bytes: number, seconds: number): void {
    this.#bytesSent += bytes;
    this.#seconds += seconds;
  }

  get bytesSent(): number {
    return this.#bytesSent;
  }

  get summary(): { publishes: number; bytes_sent: number; bytes_broadcast: number; seconds: number } {
    return {
      publishes: this.#publishes,
      bytes_sent: this.#bytesSent,
      bytes_broadcast: this.#bytesBroadcast,
      seconds: this.#seconds,
    };
  }
}
