import { describe, expect, it } from 'vitest';
import type { EngineUpdate } from '#src/engine/engine.js';
import { LATENCY_REPORT_MS, TokenPace } from '#src/run/token-pace.js';

/** One token of each of these sequences. */
function tokensOf(...ids: number[]): EngineUpdate {
  const values = new Float32Array(ids.length);
  const tokenIds = new Uint32Array(ids.length);
  const update = { ids: Uint32Array.from(ids), tokenIds, logprobs: values, rawLogprobs: values };
  return { ...update, version: 0, finished: [] };
}

describe('what is told of an engine', () => {
  it('is each token once and each gap once', () => {
    const pace = new TokenPace();
    pace.hear(0, tokensOf(1, 2), null, 0);
    expect(pace.take(0, 0)).toEqual({ tokens: 2 });
    pace.hear(0, tokensOf(1, 2), null, 5);
    pace.hear(0, tokensOf(1), null, 45);
    expect(pace.take(0, 50)).toEqual({ tokens: 3, tokenLatencyMs: 40 });
    pace.hear(0, tokensOf(1), null, 52);
    // Too little has passed: the last word stands, and the gap counts next time.
    expect(pace.take(0, 52)).toEqual({ tokens: 1 });
    pace.hear(0, tokensOf(1), null, 55);
    expect(pace.take(0, 50 + LATENCY_REPORT_MS)).toEqual({ tokens: 1, tokenLatencyMs: 7 });
    expect(pace.take(0, 50 + 2 * LATENCY_REPORT_MS)).toEqual({ tokens: 0 });
  });

  it('is the p99: one gap in two hundred is left out', () => {
    const pace = new TokenPace();
    let atMs = 0;
    for (let i = 0; i <= 200; i++) pace.hear(0, tokensOf(1), null, (atMs += i === 100 ? 30 : 2));
    expect(pace.take(0, atMs).tokenLatencyMs).toBe(2);
  });

  it('holds no gap of a sequence that paused, and none from before a sleep', () => {
    const pace = new TokenPace();
    pace.hear(0, { ...tokensOf(1), paused: [{ id: 1, reason: 'stop' }] }, 2, 0);
    pace.hear(0, tokensOf(1), null, 900);
    expect(pace.take(0, 1000)).toEqual({ tokens: 2, stepMs: 2 });
    pace.hear(0, tokensOf(1), null, 1001);
    pace.clear(0);
    pace.hear(0, tokensOf(1), null, 5000);
    expect(pace.take(0, 5000)).toEqual({ tokens: 2 });
    expect(pace.stepMs(0)).toBeNull();
  });
});
