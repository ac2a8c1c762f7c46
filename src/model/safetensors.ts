import { open, type FileHandle } from 'node:fs/promises';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import { cannotRead, shown, systemCode, writeAtomically } from './files.js';
import { widenBf16, widenF16 } from './half-floats.js';
import { parseHeader, type TensorEntry } from './safetensors-header.js';

/** The format's own bound on its JSON header. */
const HEADER_BYTES_MAX = 100_000_000;
const LENGTH_BYTES = 8;
/** A tensor is read and widened in pieces of so many elements, so that no second whole copy of it exists. */
const CHUNK_ELEMENTS = 2 ** 20;

/** Fills `target` from `position`; a file that ends early was cut while it was being read. */
async function readExactly(
  handle: FileHandle,
  file: string,
  target: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < target.length;) {
    const { bytesRead } = await handle.read(target, done, target.length - done, position + done);
    if (bytesRead === 0)
      throw new UserError(`${file}: ends at byte ${position + done}: download the file again`);
    done += bytesRead;
  }
}

async function readHeader(
  handle: FileHandle,
  file: string,
): Promise<{ header: Uint8Array; dataBytes: number }> {
  const { size } = await handle.stat();
  if (size < LENGTH_BYTES)
    throw new UserError(`${file}: truncated: only ${size} bytes: download the file again`);
  const length = Buffer.alloc(LENGTH_BYTES);
  await readExactly(handle, file, length, 0);
  const headerBytes = length.readBigUInt64LE();
  if (headerBytes > BigInt(Math.min(HEADER_BYTES_MAX, size - LENGTH_BYTES))) {
    throw new UserError(
      `${file}: a header of ${headerBytes} bytes in a file of ${size} is impossible: it is truncated, not safetensors, or a Git LFS pointer (then: git lfs pull)`,
    );
  }
  const header = new Uint8Array(Number(headerBytes));
  await readExactly(handle, file, header, LENGTH_BYTES);
  return { header, dataBytes: size - LENGTH_BYTES - header.length };
}

function checkFinite(file: string, entry: TensorEntry, values: Float32Array): void {
  const index = values.findIndex((value) => !Number.isFinite(value));
  if (index < 0) return;
  throw new UserError(
    `${file}: tensor ${shown(entry.name)} has ${values[index]} at element ${index}: train or download the checkpoint again`,
  );
}

/** One open safetensors file. Only the header is in memory; each `read` takes one tensor from the disk. */
export class SafetensorsFile {
  private constructor(
    readonly file: string,
    readonly tensors: ReadonlyMap<string, TensorEntry>,
    private readonly handle: FileHandle,
    private readonly dataStart: number,
  ) {}

  /**
   * Opens the file and checks its whole header.
   *
   * @throws UserError when the file is missing, unreadable, truncated or malformed.
   */
  static async open(file: string): Promise<SafetensorsFile> {
    let handle: FileHandle;
    try {
      handle = await open(file);
    } catch (error) {
      if (systemCode(error) === 'ENOENT')
        throw new UserError(`${file}: not found: download the whole checkpoint`);
      throw cannotRead(file, error);
    }
    try {
      const { header, dataBytes } = await readHeader(handle, file);
      const tensors = parseHeader(file, header, dataBytes);
      return new SafetensorsFile(file, tensors, handle, LENGTH_BYTES + header.length);
    } catch (error) {
      await handle.close();
      throw error instanceof UserError ? error : cannotRead(file, error);
    }
  }

  /**
   * The elements of one tensor in row-major order, widened to float32.
   *
   * @throws UserError when it is not stored in F32, F16 or BF16, or an element is not finite.
   */
  async read(name: string): Promise<Float32Array<ArrayBuffer>> {
    const entry = this.tensors.get(name);
    assert(entry !== undefined, `${this.file} has no tensor ${name}`);
    const { dtype } = entry;
    if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') {
      throw new UserError(
        `${this.file}: tensor ${shown(name)} is stored in ${dtype}: convert it to F32, F16 or BF16`,
      );
    }
    const elementBytes = dtype === 'F32' ? 4 : 2;
    const values = new Float32Array(entry.bytes / elementBytes);
    const halves = new Uint16Array(dtype === 'F32' ? 0 : Math.min(values.length, CHUNK_ELEMENTS));
    for (let start = 0; start < values.length; start += CHUNK_ELEMENTS) {
      const chunk = values.subarray(start, start + CHUNK_ELEMENTS);
      const raw = dtype === 'F32' ? chunk : halves.subarray(0, chunk.length);
      const bytes = new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
      await readExactly(this.handle, this.file, bytes, this.dataStart + entry.begin + start * elementBytes);
      if (raw instanceof Uint16Array) (dtype === 'F16' ? widenF16 : widenBf16)(raw, chunk);
    }
    checkFinite(this.file, entry, values);
    return values;
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

/** A float32 tensor to be written; `values` is called once, when its turn comes. */
export interface TensorToWrite {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: () => Float32Array<ArrayBuffer>;
}

/**
 * Writes a safetensors file in F32, in the order given, atomically.
 *
 * @throws UserError when the file system refuses.
 */
export async function writeSafetensors(file: string, tensors: readonly TensorToWrite[]): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const { name, shape } of tensors) {
    const begin = end;
    end = begin + shape.reduce((product, length) => product * length, 4);
    header[name] = { dtype: 'F32', shape, data_offsets: [begin, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  // Padded with spaces, as the format allows, so that the data starts at a multiple of eight.
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, ' ');
  json.copy(padded);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeBigUInt64LE(BigInt(padded.length));
  await writeAtomically(file, async (handle) => {
    await handle.writeFile(length);
    await handle.writeFile(padded);
    for (const { name, shape, values } of tensors) {
      const data = values();
      assert(
        data.length === shape.reduce((product, size) => product * size, 1),
        `${name}: ${data.length} elements`,
      );
      await handle.writeFile(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
  });
}
