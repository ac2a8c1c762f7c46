/** Milliseconds on a monotonic clock that all threads of this process share; its zero is arbitrary. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
