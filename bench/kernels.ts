/**
 * Kernel benchmark: every kernel alone, on the sizes of small decoders. A line is one launch of one kernel; its time
 * is that of a dispatch, by the device's own timestamps where it has them. Rates count the arithmetic of the
 * mathematics, or each input byte read once and each output byte written once.
 *
 *   npm run bench:kernels -- [--shape 64,288,576] [--rows 1,16,128,1024] [--kernel TEXT] [--json FILE]
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { openGpu } from '#src/gpu/device.js';
import { Kernels } from '#src/kernels/kernels.js';
import { backwardCases, optimizerCases } from './lib/backward-cases.js';
import { forwardCases } from './lib/forward-cases.js';
import { Room, type Cases, type LayerShape } from './lib/room.js';
import { timeOps, type Timing } from './lib/time-ops.js';

interface Row extends Timing {
  readonly kernel: string;
  readonly hidden: number;
  readonly rows: number | null;
  readonly gflop_per_second: number | null;
  readonly gbyte_per_second: number | null;
}

/** By hidden size: a toy, the shape of the 15M-parameter TinyStories model, and that of SmolLM2 135M. */
const SHAPES: Readonly<Record<string, LayerShape>> = {
  '64': { hidden: 64, inner: 128, heads: 4, kvHeads: 2, headDim: 16, vocabulary: 64 },
  '288': { hidden: 288, inner: 768, heads: 6, kvHeads: 6, headDim: 48, vocabulary: 4096 },
  '576': { hidden: 576, inner: 1536, heads: 9, kvHeads: 3, headDim: 64, vocabulary: 49_152 },
};

const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: Object.keys(SHAPES).join(',') },
    rows: { type: 'string', default: '1,16,128,1024' },
    kernel: { type: 'string', default: '' },
    json: { type: 'string' },
  },
});
const rowCounts = values.rows.split(',').map(Number);
if (!rowCounts.every((rows) => Number.isInteger(rows) && rows > 0 && rows <= 4096)) {
  throw new Error(`--rows ${values.rows}: whole numbers from 1 to 4096, with commas between them`);
}

const gpu = await openGpu();
const kernels = new Kernels(gpu);
const { adapter } = gpu;
const label = adapter.software ? ' (software adapter: not the speed of a GPU)' : '';
const clock = gpu.hasTimestamps ? "the device's timestamps" : "the host's clock";
console.log(`${adapter.description}${label}; times by ${clock}\n`);
console.log('| kernel | hidden | rows | dispatches | submits | µs/dispatch best | median | rate at median |');
console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');

const table: Row[] = [];
for (const name of values.shape.split(',')) {
  const shape = SHAPES[name];
  if (shape === undefined) throw new Error(`unknown shape ${name}; known: ${Object.keys(SHAPES).join(', ')}`);
  for (const rows of rowCounts) {
    const room = new Room(kernels, shape, rows);
    await timeAll(room, { ...forwardCases(room), ...backwardCases(room) });
  }
  const room = new Room(kernels, shape, 1);
  await timeAll(room, optimizerCases(room));
}
if (values.json !== undefined) {
  await writeFile(values.json, `${JSON.stringify({ adapter, clock, rows: table }, null, 2)}\n`);
}
process.exit(0);

/** Times the cases asked for, one after the other, a line each. */
async function timeAll(room: Room, cases: Cases): Promise<void> {
  const { hidden } = room.shape;
  for (const [kernel, make] of Object.entries(cases)) {
    if (!kernel.includes(values.kernel)) continue;
    const { ops, amount, rows } = make();
    const timing = await timeOps(gpu, ops);
    room.release();
    const { dispatches, submits, best_us: best, median_us: median } = timing;
    const perSecond = amount.count / (median * dispatches * 1e3);
    const isFlop = amount.unit === 'flop';
    const rates = isFlop
      ? { gflop_per_second: perSecond, gbyte_per_second: null }
      : { gflop_per_second: null, gbyte_per_second: perSecond };
    table.push({ kernel, hidden, rows, ...timing, ...rates });
    const rate = `${perSecond.toFixed(2)} ${isFlop ? 'GFLOP/s' : 'GB/s'}`;
    const cells = [
      kernel,
      hidden,
      rows ?? '–',
      dispatches,
      submits,
      best.toFixed(1),
      median.toFixed(1),
      rate,
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
}
