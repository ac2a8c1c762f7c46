import { describe, it } from 'vitest';
import { runProgram } from '#src/gpu/slice-encoder.js';
import { groups } from '#src/kernels/launch.js';
import { NONE } from '#src/kernels/output-head.js';
import { Random } from '#src/lib/prng.js';
import { expectSameBits, normals, rowsOf, untouched } from '../helpers/arrays.js';
import { readF32, upload, useGpu } from '../helpers/gpu.js';
import { expectClose } from '../oracle/compare.js';
import { Matrix, sum } from '../oracle/matrix.js';
import { embed, embedBackward } from '../oracle/ops.js';

const SEEDS = [1, 2, 3];
const HIDDEN = [1, 7, 63, 64, 65, 130];

const device = useGpu();

describe('embed_rows', () => {
  it.each(SEEDS)(
    'copies the rows of the tokens given and of those the slots sampled (seed %i)',
    async (seed) => {
      const { gpu, kernels } = device;
      for (const hidden of HIDDEN) {
        const random = new Random(seed).fork(hidden);
        const vocabulary = random.int(1, 40);
        const rows = random.int(1, 20);
        const slots = 5;
        const table = normals(random, vocabulary * hidden);
        const slotTokens = Uint32Array.from({ length: slots }, () => random.int(0, vocabulary - 1));
        const tokens: number[] = [];
        const words: number[] = [];
        for (let row = 0; row < rows; row++) {
          const slot = random.int(0, slots - 1);
          const fromSlot = random.int(0, 1) === 1;
          const token = fromSlot ? (slotTokens[slot] ?? 0) : random.int(0, vocabulary - 1);
          tokens.push(token);
          words.push(slot, random.int(0, 99), fromSlot ? NONE : token, 0);
        }
        const x = upload(gpu, untouched((rows + 1) * hidden));
        const kernel = kernels.bind(
          'embed_rows',
          { overrides: {}, prelude: {} },
          {
            rows: upload(gpu, Uint32Array.from(words)),
            slot_tokens: upload(gpu, slotTokens),
            embedding: upload(gpu, table),
            x,
          },
        );
        await runProgram(gpu, [kernel.dispatch({ hidden, row_start: 0 }, [groups(hidden), rows, 1], 1)]);
        const wanted = Float32Array.from(embed(Matrix.from(vocabulary, hidden, table), tokens).data);
        const after = await readF32(gpu, x, (rows + 1) * hidden);
        const label = `seed ${seed}: ${rows}×${hidden} of ${vocabulary}`;
        expectSameBits(rowsOf(after, hidden, 0, rows), wanted, label);
        expectSameBits(rowsOf(after, hidden, rows), untouched(hidden), `${label}: past x`);
      }
    },
  );
});

describe('embed_rows_grad', () => {
  /** Rows of each token that occurs, as the host sorts them: (token, first, end, 0) over `rowOrder`. */
  function segmentsOf(tokens: readonly number[]) {
    const rowOrder = tokens.map((_, row) => row).sort((a, b) => (tokens[a] ?? 0) - (tokens[b] ?? 0) || a - b);
    const segments: number[][] = [];
    rowOrder.forEach((row, place) => {
      const token = tokens[row] ?? 0;
      const last = segments.at(-1);
      if (last?.[0] === token) last[2] = place + 1;
      else segments.push([token, place, place + 1, 0]);
    });
    return { segments: Uint32Array.from(segments.flat()), count: segments.length, rowOrder };
  }

  it.each(SEEDS)('adds up each token that occurs, leaving the others (seed %i)', async (seed) => {
    const { gpu, kernels } = device;
    for (const hidden of HIDDEN) {
      const random = new Random(seed).fork(`grad ${hidden}`);
      const vocabulary = random.int(1, 40);
      const tokens = Array.from({ length: random.int(1, 60) }, () => random.int(0, vocabulary - 1));
      const dx = normals(random, tokens.length * hidden);
      const before = normals(random, vocabulary * hidden);
      const { segments, count, rowOrder } = segmentsOf(tokens);
      const dembedding = upload(gpu, before);
      const kernel = kernels.bind(
        'embed_rows_grad',
        { overrides: {}, prelude: {} },
        {
          segments: upload(gpu, segments),
          row_order: upload(gpu, Uint32Array.from(rowOrder)),
          dx: upload(gpu, dx),
          dembedding,
        },
      );
      const grid = [groups(hidden), count, 1] as const;
      await runProgram(gpu, [kernel.dispatch({ hidden, segment_start: 0, column_start: 0 }, grid, 1)]);
      const after = await readF32(gpu, dembedding, before.length);
      const gradient = embedBackward(tokens, Matrix.from(tokens.length, hidden, dx), vocabulary);
      const wanted = sum(gradient, Matrix.from(vocabulary, hidden, before));
      const label = `seed ${seed}: ${tokens.length} tokens of ${vocabulary} × ${hidden}`;
      expectClose(after, wanted.data, 1e-6, label);
      for (let token = 0; token < vocabulary; token++) {
        if (tokens.includes(token)) continue;
        expectSameBits(
          rowsOf(after, hidden, token),
          rowsOf(before, hidden, token),
          `${label}: token ${token}`,
        );
      }
    }
  });
});
