import { groups } from '#src/kernels/launch.js';
import {
  cutDraw,
  NONE,
  SAMPLING_WORDS,
  USES_TOP_K,
  USES_TOP_P,
  writeSampling,
} from '#src/kernels/output-head.js';
import { laneGroups, lanesFor } from '#src/kernels/transformer.js';
import { PLAIN, type Cases, type KernelCase, type Room } from './room.js';

/** Rows up to this number are timed as decode rows of as many sequences; more are prefill. */
const DECODE_ROWS_MAX = 16;

/** One layer forward, and the output head. */
export function forwardCases(room: Room): Cases {
  const { kernels, rows, headRows, qkvColumns } = room;
  const { hidden, inner, vocabulary } = room.shape;
  return {
    embed_rows: () => {
      const bound = kernels.bind('embed_rows', PLAIN, {
        rows: room.batch('sequences').rows,
        slot_tokens: room.words(1),
        embedding: room.floats(vocabulary * hidden),
        x: room.floats(rows * hidden),
      });
      return room.moved(
        rows * hidden * 2,
        bound.dispatch({ hidden, row_start: 0 }, [groups(hidden), rows, 1], 1),
      );
    },
    rmsnorm_row: () => {
      const bound = kernels.bind(
        'rmsnorm_row',
        { overrides: { GATHER: 0 }, prelude: { LANES: lanesFor(hidden) } },
        {
          x: room.floats(rows * hidden),
          gain: room.floats(hidden),
          row_index: room.words(1),
          y: room.floats(rows * hidden),
          scale: room.floats(rows),
        },
      );
      const op = bound.dispatch(
        { hidden, eps: 1e-5, row_start: 0, row_end: rows },
        [laneGroups(rows, hidden), 1, 1],
        1,
      );
      return room.moved(rows * hidden * 2, op);
    },
    'matmul_nn qkv': () => room.matmul('matmul_nn', { inner: hidden, columns: qkvColumns }),
    'matmul_nn gate+up': () => room.matmul('matmul_nn', { inner: hidden, columns: 2 * inner }),
    'matmul_nn down': () => room.matmul('matmul_nn', { inner, columns: hidden, hasResidual: true }),
    rope_kv_write: () => ropeCase(room),
    attention_paged: () => attentionCase(room),
    silu_gate: () => {
      const buffers = { gate_up: room.floats(rows * 2 * inner), y: room.floats(rows * inner) };
      const bound = kernels.bind('silu_gate', PLAIN, buffers);
      return room.moved(
        rows * inner * 3,
        bound.dispatch({ inner, row_start: 0 }, [groups(inner), rows, 1], 1),
      );
    },
    'matmul_nt logits': () =>
      room.matmul('matmul_nt', { inner: hidden, columns: vocabulary, rows: headRows }),
    sample_row: () => sampleCase(room, 0),
    'sample_row top_k': () => sampleCase(room, USES_TOP_K),
    'sample_row top_p': () => sampleCase(room, USES_TOP_P),
  };
}

function ropeCase(room: Room): KernelCase {
  const { rows, qkvColumns } = room;
  const { heads, kvHeads, headDim } = room.shape;
  const batch = room.batch('sequences');
  const bound = room.kernels.bind(
    'rope_kv_write',
    { overrides: {}, prelude: { HEAD_DIM: headDim } },
    {
      rows: batch.rows,
      block_table: batch.blockTable,
      angles: room.angles(),
      qkv: room.floats(rows * qkvColumns),
      q: room.floats(rows * heads * headDim),
      k_cache: room.floats(batch.cacheElements),
      v_cache: room.floats(batch.cacheElements),
    },
  );
  const params = { heads, kv_heads: kvHeads, blocks_per_slot: batch.blocksPerSlot, row_start: 0 };
  return room.moved(rows * qkvColumns * 2, bound.dispatch(params, [groups(qkvColumns / 2), rows, 1], 1));
}

function attentionCase(room: Room): KernelCase {
  const { rows } = room;
  const { heads, headDim } = room.shape;
  const kind = rows <= DECODE_ROWS_MAX ? 'decode' : 'sequences';
  const { variant, buffers, params, contextTokens } = room.attention(kind);
  const [out, softmax] = [room.floats(rows * heads * headDim), room.floats(rows * heads * 2)];
  const bound = room.kernels.bind('attention_paged', variant, { ...buffers, out, softmax });
  const op = bound.dispatch(params, [groups(rows * heads), 1, 1], 1);
  // Two products a key: with the query, and of its weight with the value.
  return { rows, ops: [op], amount: { unit: 'flop', count: 4 * contextTokens * heads * headDim } };
}

function sampleCase(room: Room, filters: number): KernelCase {
  const rows = room.headRows;
  const { vocabulary } = room.shape;
  const sampling = new Uint32Array(rows * SAMPLING_WORDS);
  const params = {
    temperature: 1,
    topK: filters & USES_TOP_K ? Math.min(50, vocabulary - 1) : 0,
    topP: filters & USES_TOP_P ? 0.9 : 1,
    minP: 0,
  };
  for (let slot = 0; slot < rows; slot++)
    writeSampling(sampling, slot, params, [slot, 1], { start: 0, count: 0 });
  const bound = room.kernels.bind(
    'sample_row',
    { overrides: {}, prelude: { LANES: lanesFor(vocabulary) } },
    {
      sample_rows: room.words(rows * 4, (index) => [Math.floor(index / 4), 7, NONE, 1][index % 4] ?? 0),
      sampling: room.words(sampling.length, (index) => sampling[index] ?? 0),
      stops: room.words(1),
      logits: room.floats(rows * vocabulary),
      slot_tokens: room.words(rows),
      slot_done: room.words(rows),
      sampled: room.words(rows * 4),
      stats: room.words(rows * 4),
    },
  );
  const ops = Array.from(cutDraw(rows, vocabulary, filters, 1), ({ passStart, passEnd }) => {
    const passes = { pass_start: passStart, pass_end: passEnd };
    const params = { rows, vocabulary, filters, row_start: 0, logits_start: 0, ...passes };
    return bound.dispatch(params, [laneGroups(rows, vocabulary), 1, 1], 1);
  });
  return { rows, ops, amount: { unit: 'byte', count: rows * vocabulary * 4 } };
}
