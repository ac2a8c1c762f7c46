import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { noTokens } from '#src/engine/sequence.js';
import type { LaneFault } from '#src/lanes/faults.js';
import { RemoteLane } from '#src/lanes/remote-lane.js';
import { laneSettings } from '#src/lanes/settings.js';
import { nowMs } from '#src/lib/clock.js';
import { UserError } from '#src/lib/errors.js';
import { Random } from '#src/lib/prng.js';
import type { LaneRecords } from '#src/telemetry/records.js';
import { supervisedSequence } from '#src/train/batch.js';
import { WeightStore } from '#src/weights/store.js';
import { SMALL } from '../engine/fixtures.js';
import { ADAMW, awkwardModel } from '../train/fixtures.js';

const model = awkwardModel(new Random(1300), true);
const { config, layout, buckets: weights } = model;
const TRAINER = { rowsMax: 32, contextTokensMax: 32, adamw: ADAMW };
const TRAINER_OF_MODEL = { config, layout, options: TRAINER, weights };
const options = { objective: { algorithm: 'crossEntropy' }, learningRate: 1e-3 } as const;
const THREADS = '/proc/self/task';

interface Opened {
  readonly lane: RemoteLane;
  readonly broken: Error[];
}

async function open(adapter: string | null = null, faults: readonly LaneFault[] = []): Promise<Opened> {
  const broken: Error[] = [];
  const lane = await RemoteLane.open(
    { lane: 2, adapter, settings: laneSettings({ sliceUs: 1000, inFlightUs: 2000 }), faults },
    { onTokens: () => undefined, onRecords: () => undefined, onBroken: (error) => broken.push(error) },
  );
  return { lane, broken };
}

/** Threads of this process; null where the system does not tell. */
function threads(): number | null {
  return existsSync(THREADS) ? readdirSync(THREADS).length : null;
}

describe('RemoteLane', () => {
  it('opens and closes again and again without leaving a thread behind', async () => {
    const round = async (): Promise<void> => {
      const { lane, broken } = await open();
      expect(lane.adapter.description).not.toBe('');
      expect(lane.storageBindingBytesMax).toBeGreaterThan(2 ** 20);
      await lane.request({ kind: 'createTrainer', job: 'job', weight: 1, ...TRAINER_OF_MODEL });
      const during = threads() ?? Infinity;
      await lane.close();
      // The driver's threads take a moment to go.
      const deadlineMs = nowMs() + 10_000;
      while ((threads() ?? 0) >= during && nowMs() < deadlineMs) await sleep(10);
      expect(threads() ?? 0).toBeLessThan(during);
      expect(broken).toEqual([]);
    };
    // The first round also starts threads that stay for good, such as Node's own pool; later ones must not.
    await round();
    const settled = threads() ?? 0;
    for (let more = 0; more < 3; more++) await round();
    const deadlineMs = nowMs() + 10_000;
    while ((threads() ?? 0) > settled && nowMs() < deadlineMs) await sleep(10);
    expect(threads() ?? 0).toBeLessThanOrEqual(settled);
  });

  it('refuses requests once it is closed, by rejection, and closes as often as asked', async () => {
    const { lane, broken } = await open();
    const closing = lane.close();
    await expect(lane.request({ kind: 'flush' })).rejects.toThrow('lane 2 is closed');
    await Promise.all([closing, lane.close()]);
    await lane.close();
    await expect(lane.request({ kind: 'flush' })).rejects.toThrow('lane 2 is closed');
    expect(broken).toEqual([]);
  });

  it('answers what it cannot do and goes on', async () => {
    const { lane, broken } = await open();
    // Whoever ends sequences early may be too late: the engine is gone, and they with it.
    await expect(lane.request({ kind: 'abort', job: 'job', ids: [1] })).resolves.toBeNull();
    await expect(lane.request({ kind: 'pull', job: 'job' })).rejects.toThrow('no engine');
    await expect(lane.request({ kind: 'removeEngine', job: 'job' })).rejects.toThrow('no engine');
    await expect(lane.request({ kind: 'publish', job: 'job', version: 0, store: null })).rejects.toThrow(
      'no trainer',
    );
    await expect(lane.request({ kind: 'exportWeights', job: 'job' })).rejects.toThrow('no trainer');
    const uncloneable = { kind: 'abort', job: 'job', ids: [() => 1] } as unknown as { kind: 'flush' };
    await expect(lane.request(uncloneable)).rejects.toThrow('could not be cloned');
    await lane.request({ kind: 'createTrainer', job: 'job', weight: 1, ...TRAINER_OF_MODEL });
    const { weights: back } = await lane.request({ kind: 'exportWeights', job: 'job' });
    expect(back).toEqual(weights);
    await lane.close();
    expect(broken).toEqual([]);
  });

  it('tells mistakes of the user from bugs', async () => {
    const { lane } = await open();
    await lane.request({ kind: 'createTrainer', job: 'job', weight: 1, ...TRAINER_OF_MODEL });
    const tokens = new Array<number>(33).fill(1);
    const long = supervisedSequence(
      tokens,
      Float32Array.from(tokens, (_, i) => (i < 32 ? 1 : 0)),
    );
    const refused = lane.request({
      kind: 'train',
      job: 'job',
      requestedMs: nowMs(),
      sequences: [long],
      options,
    });
    await expect(refused).rejects.toBeInstanceOf(UserError);
    await expect(refused).rejects.toThrow('longer than the context of 32');
    await lane.close();
    await expect(open('an adapter nobody has')).rejects.toBeInstanceOf(UserError);
  });

  it('rejects what is pending and says once that it is broken, when the lane fails', async () => {
    const { lane, broken } = await open(null, [{ at: 'beforeAnswer', after: 0, do: 'throw' }]);
    await lane.request({ kind: 'createTrainer', job: 'job', weight: 1, ...TRAINER_OF_MODEL });
    const sequences = [supervisedSequence([1, 2, 3, 4], Float32Array.of(1, 1, 1, 0))];
    const training = lane.request({ kind: 'train', job: 'job', requestedMs: nowMs(), sequences, options });
    const exporting = lane.request({ kind: 'keepReference', job: 'job' });
    await expect(training).rejects.toThrow('injected fault: beforeAnswer');
    await exporting.catch(() => undefined);
    expect(broken.map(({ message }) => message.split('\n')[0])).toEqual([
      'Error: injected fault: beforeAnswer, after 0',
    ]);
    await expect(lane.request({ kind: 'flush' })).rejects.toThrow('injected fault');
    const startedMs = nowMs();
    await lane.close();
    expect(nowMs() - startedMs).toBeLessThan(10_000);
    expect(broken.length).toBe(1);
  });

  it('goes on when a trainer throws, which does nothing more until it is removed', async () => {
    const { lane, broken } = await open();
    const createTrainer = (): Promise<unknown> =>
      lane.request({ kind: 'createTrainer', job: 'job', weight: 1, ...TRAINER_OF_MODEL });
    await createTrainer();
    const sequences = [supervisedSequence([1, 2, 99, 3], Float32Array.of(1, 1, 1, 0))];
    const training = lane.request({ kind: 'train', job: 'job', requestedMs: nowMs(), sequences, options });
    const keeping = lane.request({ kind: 'keepReference', job: 'job' });
    await Promise.all(
      [training, keeping].map((refused) => expect(refused).rejects.toThrow('token 99 of 37')),
    );
    const exporting = lane.request({ kind: 'exportWeights', job: 'job' });
    await expect(exporting).rejects.toThrow('token 99 of 37');
    await expect(createTrainer()).rejects.toThrow('already has a trainer');
    await lane.request({ kind: 'removeTrainer', job: 'job' });
    await createTrainer();
    expect(await lane.request({ kind: 'exportWeights', job: 'job' })).toEqual({ weights });
    await lane.close();
    expect(broken).toEqual([]);
  });

  it('gives records on its own and the rest when asked', async () => {
    const records: LaneRecords[] = [];
    const lane = await RemoteLane.open(
      { lane: 0, adapter: null, settings: laneSettings({ sliceUs: 1000, inFlightUs: 2000 }) },
      {
        onTokens: () => undefined,
        onRecords: (received) => records.push(received),
        onBroken: (error) => expect.fail(error.message),
      },
    );
    const store = WeightStore.create(layout);
    store.publish(0, weights);
    await lane.request({
      kind: 'createEngine',
      job: 'job',
      weight: 1,
      config,
      layout,
      options: SMALL,
      store: store.shared,
    });
    await lane.request({ kind: 'pull', job: 'job' });
    const sequence = {
      id: 1,
      promptTokenIds: [1],
      generated: noTokens(),
      tokensMax: 40,
      sampling: { temperature: 1, topK: 0, topP: 1, minP: 0 },
      key: [1, 2] as const,
      stopTokenIds: [],
    };
    await lane.request({ kind: 'add', job: 'job', sequences: [sequence] });
    while (records.length < 2) await sleep(10);
    const rest = await lane.request({ kind: 'flush' });
    const all = [...records, rest];
    expect(all.flatMap(({ slices }) => slices).length).toBeGreaterThan(0);
    expect(all.flatMap(({ versions }) => versions)).toMatchObject([
      { kind: 'pull', job: 'job', version: 0, bytes: store.bytes },
    ]);
    expect(rest.largestDispatchUs).toBeGreaterThanOrEqual(0);
    await lane.close();
  });
});

describe('a lane at the end of its life leaves the process alive and free to end', () => {
  /** Runs one life of `fixtures/lane-life.mjs`; rejects when the process does not end by itself with code 0. */
  const live = (life: string): Promise<string[]> =>
    new Promise((resolve, reject) => {
      const script = join(import.meta.dirname, 'fixtures/lane-life.mjs');
      execFile(process.execPath, [script, life], { timeout: 110_000 }, (error, stdout, stderr) => {
        if (error !== null) reject(new Error(`${life} ended with ${error.signal ?? error.code}: ${stderr}`));
        else resolve(JSON.parse(stdout) as string[]);
      });
    });

  it('when it is closed in the middle of generation and training', async () => {
    expect(await live('closedWhileBusy')).toEqual([
      'train rejected: Error: lane 0 was closed',
      'request rejected: lane 0 is closed',
      'closed in time',
    ]);
  });

  it('when a trainer of it had thrown', async () => {
    const failure = 'Error: assertion failed: token 101 of 101';
    expect(await live('trainerThatThrew')).toEqual([
      `keepReference rejected: ${failure}`,
      `train rejected: ${failure}`,
      'request resolved',
      'closed in time',
    ]);
  });

  it('when an error nobody caught would end its thread with work in flight, which makes Dawn abort', async () => {
    expect(await live('brokenByAnUncaughtError')).toEqual(['broken: bug', 'exit 0']);
  });

  it.each([
    ['diesOfThrow', (at: string, after: number) => `Error: injected fault: ${at}, after ${after}`],
    ['diesOfExit', () => 'the thread of lane 0 was told to exit with code 1'],
    ['diesOfDestroyDevice', () => 'the device was lost: device was destroyed'],
  ] as const)('when it %s, at any moment of generation, training and publishing', async (life, reason) => {
    const moments = [
      ['beforeSubmit', 40],
      ['afterSubmit', 41],
      ['beforeCommit', 6],
      ['beforeAnswer', 1],
      ['midPublish', 1],
    ] as const;
    expect(await live(life)).toEqual(
      moments.map(([at, after]) => `${at}: LaneLost once true, ${reason(at, after)}`),
    );
  });
});
