import { readFileSync } from 'node:fs';

/**
 * Processor time this thread has used, in milliseconds; null where the platform does not tell it for a single thread
 * (Linux does). The process's own figure would count the rasteriser's threads on a software adapter.
 */
export function threadCpuMs(): number | null {
  try {
    const [ns] = readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ');
    return Number(ns) / 1e6;
  } catch {
    return null;
  }
}
