import { z } from 'zod';
import { oneLine, UserError } from '../lib/errors.js';
import { shown } from './files.js';

/** Where one tensor lies in a safetensors file. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** First byte, counted from the end of the header. */
  readonly begin: number;
  readonly bytes: number;
}

/** Every whole-byte element type of the format: files may hold them even where Offbeat has no use for them. */
const BYTES_PER_ELEMENT: ReadonlyMap<string, number> = new Map([
  ['BOOL', 1],
  ['U8', 1],
  ['I8', 1],
  ['F8_E5M2', 1],
  ['F8_E4M3', 1],
  ['U16', 2],
  ['I16', 2],
  ['F16', 2],
  ['BF16', 2],
  ['U32', 4],
  ['I32', 4],
  ['F32', 4],
  ['U64', 8],
  ['I64', 8],
  ['F64', 8],
]);

const count = z.int().min(0);
const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(count),
  data_offsets: z.tuple([count, count]),
});

function checkEntry(file: string, name: string, value: unknown): TensorEntry {
  const parsed = entrySchema.safeParse(value);
  const quoted = shown(name);
  if (!parsed.success) {
    throw new UserError(
      `${file}: the header entry of ${quoted} is malformed (${shown(value)}): download the file again`,
    );
  }
  const { dtype, shape, data_offsets: offsets } = parsed.data;
  const elementBytes = BYTES_PER_ELEMENT.get(dtype);
  if (elementBytes === undefined) {
    throw new UserError(
      `${file}: tensor ${quoted} has unknown dtype ${shown(dtype)}: convert it to F32, F16 or BF16`,
    );
  }
  const bytes = shape.reduce((product, length) => product * length, elementBytes);
  const [begin, end] = offsets;
  if (end - begin !== bytes) {
    throw new UserError(
      `${file}: tensor ${quoted} of shape [${shape.join(', ')}] in ${dtype} takes ${bytes} bytes, its offsets ${begin} to ${end} hold ${end - begin}: download the file again`,
    );
  }
  return { name, dtype, shape, begin, bytes };
}

/**
 * A name that the header's object has twice; `JSON.parse` would silently keep the second. `text` is valid JSON
 * whose outermost values are objects, so every string at depth one is a key.
 */
function duplicateKey(text: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  for (const [mark] of text.matchAll(/[{}[\]]|"(?:[^"\\]|\\.)*"/g)) {
    if (mark === '{' || mark === '[') depth++;
    else if (mark === '}' || mark === ']') depth--;
    else if (depth === 1) {
      // Two spellings of one name (an escaped letter, say) are the same key.
      const key = String(JSON.parse(mark));
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return undefined;
}

/** The format wants the tensors to follow each other without overlap, gap or remainder. */
function checkCoverage(file: string, entries: readonly TensorEntry[], dataBytes: number): void {
  const ordered = [...entries].sort((one, other) => one.begin - other.begin || one.bytes - other.bytes);
  let end = 0;
  let previous = '';
  for (const entry of ordered) {
    if (entry.begin < end) {
      throw new UserError(
        `${file}: tensors ${shown(previous)} and ${shown(entry.name)} overlap: download the file again`,
      );
    }
    if (entry.begin > end) {
      throw new UserError(
        `${file}: data bytes ${end} to ${entry.begin} belong to no tensor: download the file again`,
      );
    }
    end = entry.begin + entry.bytes;
    previous = entry.name;
  }
  if (end > dataBytes) {
    throw new UserError(
      `${file}: truncated: the header speaks of ${end} data bytes, ${dataBytes} are there: download the file again`,
    );
  }
  if (end < dataBytes) {
    throw new UserError(
      `${file}: data bytes ${end} to ${dataBytes} belong to no tensor: download the file again`,
    );
  }
}

/**
 * Parses and checks the JSON header of a safetensors file, whose data section has `dataBytes` bytes.
 *
 * @returns every tensor by name.
 * @throws UserError that names the file and the tensor.
 */
export function parseHeader(file: string, header: Uint8Array, dataBytes: number): Map<string, TensorEntry> {
  let text: string;
  let parsed: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(header);
    parsed = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${file}: the header is not valid JSON (${oneLine(error)}): download the file again`);
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new UserError(`${file}: the header is not a JSON object: download the file again`);
  }
  const entries = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(parsed)) {
    if (name !== '__metadata__') entries.set(name, checkEntry(file, name, value));
  }
  const duplicate = duplicateKey(text);
  if (duplicate !== undefined) {
    throw new UserError(`${file}: the header has ${shown(duplicate)} twice: export the checkpoint again`);
  }
  checkCoverage(file, [...entries.values()], dataBytes);
  return entries;
}
