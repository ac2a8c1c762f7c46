import { beforeAll, describe, expect, it } from 'vitest';
import type { Admission } from '#src/engine/admission.js';
import { BLOCK_TOKENS } from '#src/kernels/kv-cache.js';
import { Random } from '#src/lib/prng.js';
import { useGpu } from '../helpers/gpu.js';
import {
  expectSameOutcomes,
  type Outcomes,
  randomRequests,
  runAlone,
  SMALL,
  TestEngine,
} from './fixtures.js';
import { model } from './kv-fixtures.js';

const SEED = 870;
/** Blocks of the budget: less than twice what the longest sequence needs. */
const BUDGET = 7;
const device = useGpu();
/** Prompts of some tokens that grow to three blocks or four: more than two do not fit to their ends. */
const requests = randomRequests(new Random(SEED), model, 16).map((request, index) => ({
  ...request,
  promptTokenIds: Array.from({ length: 6 + index }, (_, position) => (5 * index + 3 * position) % 30),
  tokensMax: 30 + (index % 3) * 4,
}));

const RULES: readonly { readonly name: string; readonly admission: Admission; readonly evicts: boolean }[] = [
  {
    name: 'no caps',
    admission: { kvTokensMax: BUDGET * BLOCK_TOKENS, segments: [] },
    evicts: true,
  },
  {
    // One of three blocks before its boundary, one of four beyond it.
    name: 'segments',
    admission: {
      kvTokensMax: BUDGET * BLOCK_TOKENS,
      segments: [
        { fromTokens: 0, sequencesMax: 1 },
        { fromTokens: 12, sequencesMax: 1 },
      ],
    },
    evicts: false,
  },
];

let alone: Outcomes;
beforeAll(async () => {
  alone = await runAlone(device, model, requests);
});

describe.each(RULES)('an engine that admits under a budget: $name', ({ name, admission, evicts }) => {
  it('keeps within it at every step, and samples the same bits as each sequence alone', async () => {
    const test = await TestEngine.load(device, model);
    const { engine } = test;
    engine.limitAdmission(admission);
    test.add(requests);
    let blocksPeak = 0;
    let residentsPeak = 0;
    await test.run(() => {
      blocksPeak = Math.max(blocksPeak, SMALL.kvBlocks - engine.freeBlocks);
      residentsPeak = Math.max(residentsPeak, engine.runningCount);
    });
    expect(blocksPeak).toBeGreaterThan(4);
    expect(blocksPeak).toBeLessThanOrEqual(BUDGET);
    expect(residentsPeak).toBeGreaterThan(1);
    expectSameOutcomes(test.outcomes, alone, requests, `seed ${SEED}, ${name}`);
    const { dropped, spilled } = engine.takeDisplacedCounts();
    expect(spilled).toBe(0);
    expect(dropped > 0).toBe(evicts);
    expect(engine.takeTokensRecomputed() > 0).toBe(evicts);
    expect(engine.freeBlocks).toBe(SMALL.kvBlocks);
    test.destroy();
  });

  it('may be told so, and told otherwise, in the middle of everything', async () => {
    const test = await TestEngine.load(device, model);
    const random = new Random(SEED + 1);
    test.add(requests);
    await test.run((step) => {
      if (step % 9 === 4) test.engine.limitAdmission(random.pick([admission, null]));
    });
    expectSameOutcomes(test.outcomes, alone, requests, `seed ${SEED + 1}, ${name}`);
    test.destroy();
  });
});
