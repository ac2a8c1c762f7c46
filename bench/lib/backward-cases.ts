import { groups, MatmulTn, whole } from '#src/kernels/launch.js';
import { laneGroups, lanesFor } from '#src/kernels/transformer.js';
import { PLAIN, type Cases, type KernelCase, type Room } from './room.js';

/** One layer backward, and the loss. Rows are whole sequences, as a trainer packs them. */
export function backwardCases(room: Room): Cases {
  const { kernels, rows } = room;
  const { hidden, inner } = room.shape;
  return {
    policy_gradient: () => lossCase(room),
    'matmul_nt gate+up': () => room.matmul('matmul_nt', { inner: 2 * inner, columns: hidden }),
    'matmul_tn gate+up': () => {
      const [x, g, y] = [
        room.floats(rows * hidden),
        room.floats(rows * 2 * inner),
        room.floats(hidden * 2 * inner),
      ];
      const kernel = new MatmulTn(kernels, { x, g, y });
      const ops = [...kernel.run({ rows, inner: hidden, columns: 2 * inner }, whole)];
      return { rows, ops, amount: { unit: 'flop', count: 2 * rows * hidden * 2 * inner } };
    },
    rmsnorm_row_grad: () => {
      const bound = kernels.bind(
        'rmsnorm_row_grad',
        { overrides: { HAS_PASSING: 1 }, prelude: { LANES: lanesFor(hidden) } },
        {
          x: room.floats(rows * hidden),
          gain: room.floats(hidden),
          scale: room.floats(rows),
          dy: room.floats(rows * hidden),
          passing: room.floats(rows * hidden),
          dx: room.floats(rows * hidden),
        },
      );
      const op = bound.dispatch({ hidden, row_start: 0, row_end: rows }, [laneGroups(rows, hidden), 1, 1], 1);
      return room.moved(rows * hidden * 4, op);
    },
    rmsnorm_gain_grad: () => {
      const bound = kernels.bind('rmsnorm_gain_grad', PLAIN, {
        x: room.floats(rows * hidden),
        scale: room.floats(rows),
        dy: room.floats(rows * hidden),
        dgain: room.floats(hidden),
      });
      return room.moved(
        rows * hidden * 2,
        bound.dispatch({ rows, hidden, column_start: 0 }, [groups(hidden), 1, 1], 1),
      );
    },
    silu_gate_grad: () => {
      const bound = kernels.bind('silu_gate_grad', PLAIN, {
        gate_up: room.floats(rows * 2 * inner),
        dy: room.floats(rows * inner),
        d_gate_up: room.floats(rows * 2 * inner),
      });
      return room.moved(
        rows * inner * 5,
        bound.dispatch({ inner, row_start: 0 }, [groups(inner), rows, 1], 1),
      );
    },
    ...attentionCases(room),
    embed_rows_grad: () => {
      const segment = (row: number): number[] => [row, row, row + 1, 0];
      const bound = kernels.bind('embed_rows_grad', PLAIN, {
        segments: room.words(rows * 4, (index) => segment(Math.floor(index / 4))[index % 4] ?? 0),
        row_order: room.words(rows, (index) => index),
        dx: room.floats(rows * hidden),
        dembedding: room.floats(Math.max(rows, room.shape.vocabulary) * hidden),
      });
      const op = bound.dispatch({ hidden, segment_start: 0, column_start: 0 }, [groups(hidden), rows, 1], 1);
      return room.moved(rows * hidden * 3, op);
    },
  };
}

function attentionCases(room: Room): Cases {
  const { kernels, rows, qkvColumns } = room;
  const { heads, kvHeads, headDim } = room.shape;
  const columns = heads * headDim;
  const variant = { overrides: {}, prelude: { HEAD_DIM: headDim } };
  return {
    attention_grad_dot: () => {
      const bound = kernels.bind('attention_grad_dot', variant, {
        out: room.floats(rows * columns),
        softmax: room.floats(rows * heads * 2),
        dout: room.floats(rows * columns),
        levels: room.floats(rows * heads * 2),
      });
      const op = bound.dispatch({ heads, row_start: 0, row_end: rows }, [groups(rows * heads), 1, 1], 1);
      return room.moved(rows * columns * 2, op);
    },
    // Products a key, of length headDim each: two make the score and its gradient, the rest add to the result.
    attention_grad_q: () => attentionGradCase(room, 'attention_grad_q', { perRow: heads, products: 3 }),
    attention_grad_kv: () => attentionGradCase(room, 'attention_grad_kv', { perRow: kvHeads, products: 4 }),
    rope_grad: () => {
      const turned = (heads + kvHeads) * headDim;
      const bound = kernels.bind('rope_grad', variant, {
        rows: room.batch('sequences').rows,
        angles: room.angles(),
        dqkv: room.floats(rows * qkvColumns),
      });
      const params = { heads, kv_heads: kvHeads, row_start: 0 };
      return room.moved(rows * turned * 2, bound.dispatch(params, [groups(turned / 2), rows, 1], 1));
    },
  };
}

function attentionGradCase(
  room: Room,
  name: 'attention_grad_q' | 'attention_grad_kv',
  { perRow, products }: { perRow: number; products: number },
): KernelCase {
  const { rows } = room;
  const { heads, headDim } = room.shape;
  const { variant, buffers, params, contextTokens } = room.attention('sequences');
  const bound = room.kernels.bind(name, variant, {
    ...buffers,
    levels: room.floats(rows * heads * 2),
    dout: room.floats(rows * heads * headDim),
    dqkv: room.floats(rows * room.qkvColumns),
  });
  const op = bound.dispatch(
    { ...params, rows, later_start: 0, later_end: params.key_end },
    [groups(rows * perRow), 1, 1],
    1,
  );
  const count = 2 * products * contextTokens * heads * headDim;
  return { rows, ops: [op], amount: { unit: 'flop', count } };
}

function lossCase(room: Room): KernelCase {
  const rows = room.headRows;
  const { vocabulary } = room.shape;
  const bound = room.kernels.bind(
    'policy_gradient',
    { overrides: { CROSS_ENTROPY: 0 }, prelude: {} },
    {
      loss_rows: room.floats(rows * 4),
      sampled: room.words(rows * 4),
      stats: room.floats(rows * 4),
      logits: room.floats(rows * vocabulary),
      metrics: room.floats(rows * 4),
    },
  );
  const params = {
    vocabulary,
    row_start: 0,
    logits_start: 0,
    clip_low: 0.2,
    clip_high: 0.2,
    kl_coefficient: 0.1,
  };
  return room.moved(rows * vocabulary * 2, bound.dispatch(params, [groups(vocabulary), rows, 1], 1), rows);
}

/** The optimizer, over the parameters of one layer. */
export function optimizerCases(room: Room): Cases {
  const { kernels } = room;
  const { hidden, inner, heads, kvHeads, headDim } = room.shape;
  const count = hidden * ((2 * heads + 2 * kvHeads) * headDim + 3 * inner);
  const stretch = 256;
  return {
    sum_squares: () => {
      const partials = Math.ceil(count / stretch);
      const buffers = { values: room.floats(count), partials: room.floats(partials) };
      const bound = kernels.bind('sum_squares', PLAIN, buffers);
      const params = { start: 0, count, stretch, partial_start: 0 };
      return room.moved(count, bound.dispatch(params, [groups(partials), 1, 1], 1), null);
    },
    adamw_update: () => {
      const bound = kernels.bind('adamw_update', PLAIN, {
        gradients: room.floats(count),
        clip: room.floats(2),
        weights: room.floats(count),
        moment1: room.floats(count),
        moment2: room.words(count),
      });
      const params = {
        start: 0,
        count,
        learning_rate: 1e-6,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        correction1: 0.1,
        correction2: 0.001,
        one_minus_beta1: 0.1,
        one_minus_beta2: 0.001,
      };
      // Gradient read; weight and both moments read and written.
      return room.moved(count * 7, bound.dispatch(params, [groups(count), 1, 1], 1), null);
    },
  };
}
