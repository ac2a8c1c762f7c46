import { diagnose, type Diagnosis } from '../gpu/diagnose.js';

const EXIT_WORKS = 0;
const EXIT_USER = 2;

type Row = readonly string[];

/** Rows as lines, columns padded to their widest cell. */
function alignColumns(rows: readonly Row[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => (widths[column] = Math.max(widths[column] ?? 0, cell.length)));
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

function adapterRows({ adapter, backend, timestampStepNs }: Diagnosis): Row[] {
  if (adapter === null) return [['adapter', 'none']];
  return [
    ['adapter', adapter.description || adapter.device],
    [
      'vendor',
      [adapter.vendor, adapter.architecture, adapter.device].filter((part) => part !== '').join(', '),
    ],
    ['backend', backend ?? 'unknown'],
    ['kind', adapter.software ? 'software' : 'hardware'],
    ['timestamps', timestampStepNs === null ? 'none' : `in steps of ${timestampStepNs} ns`],
  ];
}

function section(title: string, rows: readonly Row[]): string[] {
  return rows.length === 0 ? [] : ['', title, ...alignColumns(rows).map((line) => `  ${line}`)];
}

/** The diagnosis as a page of text. */
export function formatDiagnosis(diagnosis: Diagnosis): string {
  const { limits, features, problems, notes, command } = diagnosis;
  const limitRows = limits.map(({ name, value, needed }) => [
    name,
    value.toLocaleString('en-US'),
    needed === null
      ? 'as the model needs'
      : `${value < needed ? 'TOO SMALL, ' : ''}needs ${needed.toLocaleString('en-US')}`,
  ]);
  const featureRows = features.map(({ name, present, needed, use }) => [
    name,
    present ? 'yes' : 'no',
    needed ? `${use}; needed` : use,
  ]);
  const lines = [
    ...alignColumns([
      ['node', `${diagnosis.node} on ${diagnosis.platform}`],
      ['webgpu', diagnosis.webgpu ?? 'not installed'],
      ...adapterRows(diagnosis),
    ]),
    ...section('limits', limitRows),
    ...section('features', featureRows),
    ...section(
      'notes',
      notes.map((note) => [note]),
    ),
    ...section(
      'problems',
      problems.map((problem) => [problem]),
    ),
    '',
    diagnosis.works
      ? 'A device opens, computes the right numbers, and has all that is needed.'
      : 'No run can start.',
    ...(command === null ? [] : [`Mend it with: ${command}`]),
  ];
  return `${lines.join('\n')}\n`;
}

/**
 * Prints what is known of the adapter, and what is missing, to stdout.
 *
 * @returns the exit code: 0 when a device works, 2 otherwise
 */
export async function doctor(options: { readonly json: boolean }): Promise<number> {
  const diagnosis = await diagnose();
  process.stdout.write(options.json ? `${JSON.stringify(diagnosis)}\n` : formatDiagnosis(diagnosis));
  return diagnosis.works ? EXIT_WORKS : EXIT_USER;
}
