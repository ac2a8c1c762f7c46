import { readFile, readdir, writeFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SafetensorsFile, writeSafetensors } from '#src/model/safetensors.js';
import { expectUserError, float32, rawSafetensors, safetensors, temporaryFolder } from './fixtures.js';

async function written(bytes: Uint8Array): Promise<string> {
  const file = join(await temporaryFolder(), 'model.safetensors');
  await writeFile(file, bytes);
  return file;
}

async function readOne(bytes: Uint8Array, name: string): Promise<Float32Array> {
  const opened = await SafetensorsFile.open(await written(bytes));
  try {
    return await opened.read(name);
  } finally {
    await opened.close();
  }
}

const halves = (...bits: number[]) => new Uint8Array(Uint16Array.from(bits).buffer);
const entry = (dtype: string, shape: number[], begin: number, end: number) =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] });

describe('reading', () => {
  it('reads F32, F16 and BF16 from one file, at odd offsets too', async () => {
    const bytes = safetensors({
      odd: { dtype: 'U8', shape: [1], data: Uint8Array.of(9) },
      f32: float32([2, 2], [1, -2.5, 3e-40, 0]),
      f16: { dtype: 'F16', shape: [3], data: halves(0x3c00, 0xc100, 0x0001) },
      bf16: { dtype: 'BF16', shape: [1, 2], data: halves(0x3f80, 0xc020) },
    });
    expect(await readOne(bytes, 'f32')).toEqual(Float32Array.of(1, -2.5, 3e-40, 0));
    expect(await readOne(bytes, 'f16')).toEqual(Float32Array.of(1, -2.5, 2 ** -24));
    expect(await readOne(bytes, 'bf16')).toEqual(Float32Array.of(1, -2.5));
  });

  it.each(['F32', 'F16'])('reads a %s tensor that takes several chunks', async (dtype) => {
    const elements = 2 ** 20 + 3;
    const data =
      dtype === 'F32' ? new Float32Array(elements).fill(1) : new Uint16Array(elements).fill(0x3c00);
    // The bytes are joined here without spreading: a call cannot take a million arguments.
    const header = Buffer.from(`{"t":${entry(dtype, [elements], 0, data.byteLength)}}`);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    data[0] = 0;
    data[elements - 1] = 0;
    const values = await readOne(Buffer.concat([length, header, Buffer.from(data.buffer)]), 't');
    expect(values.length).toBe(elements);
    expect([values[0], values[1], values[2 ** 20], values[elements - 1]]).toEqual([0, 1, 1, 0]);
    expect(values.reduce((sum, value) => sum + value)).toBe(elements - 2);
  });

  it('accepts empty tensors and a header padded with spaces', async () => {
    const header = `{"none":${entry('F32', [0, 4], 0, 0)},"one":${entry('F32', [], 0, 4)}}   `;
    const bytes = rawSafetensors(header, float32([], [5]).data);
    expect(await readOne(bytes, 'none')).toEqual(new Float32Array(0));
    expect(await readOne(bytes, 'one')).toEqual(Float32Array.of(5));
  });
});

describe('bad files are refused in one line', () => {
  const good = safetensors({ a: float32([2], [1, 2]) });
  const refused = async (bytes: Uint8Array, message: (file: string) => string) => {
    const file = await written(bytes);
    await expectUserError(SafetensorsFile.open(file), message(file));
  };
  const withHeader = (header: string, dataBytes: number) => rawSafetensors(header, new Uint8Array(dataBytes));

  it('missing', async () => {
    const file = join(await temporaryFolder(), 'model.safetensors');
    await expectUserError(SafetensorsFile.open(file), `${file}: not found: download the whole checkpoint`);
  });

  it('a folder', async () => {
    const folder = await temporaryFolder();
    await expectUserError(
      SafetensorsFile.open(folder),
      `${folder}: cannot be read (EISDIR): check its permissions`,
    );
  });

  it('too short for its length', () =>
    refused(Uint8Array.of(1, 2, 3), (file) => `${file}: truncated: only 3 bytes: download the file again`));

  it('cut inside the header', () =>
    refused(
      good.subarray(0, 40),
      (file) =>
        `${file}: a header of ${good.length - 16} bytes in a file of 40 is impossible: it is truncated, not safetensors, or a Git LFS pointer (then: git lfs pull)`,
    ));

  it('a Git LFS pointer', () =>
    refused(
      Buffer.from('version https://git-lfs.github.com/spec/v1\n'),
      (file) =>
        `${file}: a header of ${Buffer.from('version ').readBigUInt64LE()} bytes in a file of 43 is impossible: it is truncated, not safetensors, or a Git LFS pointer (then: git lfs pull)`,
    ));

  it('cut inside the data', () =>
    refused(
      good.subarray(0, good.length - 3),
      (file) => `${file}: truncated: the header speaks of 8 data bytes, 5 are there: download the file again`,
    ));

  it('bytes after the data', () =>
    refused(
      Buffer.concat([good, Buffer.alloc(4)]),
      (file) => `${file}: data bytes 8 to 12 belong to no tensor: download the file again`,
    ));

  it('a header that is not JSON, quoted on one line', async () => {
    const file = await written(withHeader('{"a":\n\n}', 0));
    const error = await SafetensorsFile.open(file).then(String, String);
    expect(error).toMatch(/the header is not valid JSON \(.*\): download the file again$/);
    expect(error).not.toContain('\n');
  });

  it('a header that is not UTF-8', async () => {
    const bytes = withHeader('{"a":1}', 0);
    bytes[10] = 0xff;
    const file = await written(bytes);
    await expect(SafetensorsFile.open(file)).rejects.toThrow(/the header is not valid JSON/);
  });

  it('a header that is no object', () =>
    refused(
      withHeader('[]', 0),
      (file) => `${file}: the header is not a JSON object: download the file again`,
    ));

  it('a malformed entry', () =>
    refused(
      withHeader('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', 4),
      (file) =>
        `${file}: the header entry of "a" is malformed ({"dtype":"F32","shape":[-1],"data_offsets":[0,4]}): download the file again`,
    ));

  it('an unknown dtype', () =>
    refused(
      withHeader(`{"a":${entry('F5', [1], 0, 4)}}`, 4),
      (file) => `${file}: tensor "a" has unknown dtype "F5": convert it to F32, F16 or BF16`,
    ));

  it('offsets that do not fit shape and dtype', () =>
    refused(
      withHeader(`{"a":${entry('F16', [2, 3], 0, 24)}}`, 24),
      (file) =>
        `${file}: tensor "a" of shape [2, 3] in F16 takes 12 bytes, its offsets 0 to 24 hold 24: download the file again`,
    ));

  it('a shape whose product overflows', () =>
    refused(
      withHeader(`{"a":${entry('F32', [2 ** 52, 2 ** 52], 0, 4)}}`, 4),
      (file) =>
        `${file}: tensor "a" of shape [4503599627370496, 4503599627370496] in F32 takes 8.112963841460668e+31 bytes, its offsets 0 to 4 hold 4: download the file again`,
    ));

  it('overlapping tensors', () =>
    refused(
      withHeader(`{"a":${entry('F32', [2], 0, 8)},"b":${entry('F32', [1], 4, 8)}}`, 8),
      (file) => `${file}: tensors "a" and "b" overlap: download the file again`,
    ));

  it('a gap between tensors', () =>
    refused(
      withHeader(`{"b":${entry('F32', [1], 8, 12)},"a":${entry('F32', [1], 0, 4)}}`, 12),
      (file) => `${file}: data bytes 4 to 8 belong to no tensor: download the file again`,
    ));

  it('a name given twice, even when spelt differently', async () => {
    const message = (file: string) => `${file}: the header has "a" twice: export the checkpoint again`;
    await refused(withHeader(`{"a":${entry('F32', [1], 0, 4)},"a":${entry('F32', [1], 0, 4)}}`, 4), message);
    await refused(
      withHeader(`{"a":${entry('F32', [1], 0, 4)},"\\u0061":${entry('F32', [1], 0, 4)}}`, 4),
      message,
    );
  });

  it('a name with brackets and quotes is no duplicate of its parts', async () => {
    const bytes = withHeader(`{"a{\\"[":${entry('F32', [1], 0, 4)},"shape":${entry('F32', [1], 4, 8)}}`, 8);
    const opened = await SafetensorsFile.open(await written(bytes));
    await opened.close();
    expect([...opened.tensors.keys()]).toEqual(['a{"[', 'shape']);
  });

  it('a tensor of a dtype that holds no weights', async () => {
    const file = await written(safetensors({ a: { dtype: 'I64', shape: [1], data: new Uint8Array(8) } }));
    const opened = await SafetensorsFile.open(file);
    await expectUserError(
      opened.read('a'),
      `${file}: tensor "a" is stored in I64: convert it to F32, F16 or BF16`,
    );
    await opened.close();
  });

  it.each([
    { dtype: 'F32', data: float32([4], [0, 1, NaN, Infinity]).data, found: 'NaN at element 2' },
    { dtype: 'F16', data: halves(0, 0xfc00, 0x7e00, 0), found: '-Infinity at element 1' },
    { dtype: 'BF16', data: halves(0, 0, 0, 0x7f80), found: 'Infinity at element 3' },
  ])('$found in $dtype', async ({ dtype, data, found }) => {
    const file = await written(safetensors({ w: { dtype, shape: [2, 2], data } }));
    const opened = await SafetensorsFile.open(file);
    await expectUserError(
      opened.read('w'),
      `${file}: tensor "w" has ${found}: train or download the checkpoint again`,
    );
    await opened.close();
  });
});

describe('writing', () => {
  it('lays out length, padded header and data as the format says, and reads back bit for bit', async () => {
    const file = join(await temporaryFolder(), 'model.safetensors');
    const values = Float32Array.of(1.5, -0, 1e-45, 3.4e38, 0.1, -7);
    await writeSafetensors(file, [
      { name: 'first', shape: [2, 3], values: () => values },
      { name: 'second', shape: [1], values: () => Float32Array.of(8) },
    ]);
    const bytes = await readFile(file);
    const headerBytes = Number(bytes.readBigUInt64LE());
    expect(headerBytes % 8).toBe(0);
    expect(JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes))).toEqual({
      __metadata__: { format: 'pt' },
      first: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
      second: { dtype: 'F32', shape: [1], data_offsets: [24, 28] },
    });
    const opened = await SafetensorsFile.open(file);
    expect(new Uint32Array((await opened.read('first')).buffer)).toEqual(new Uint32Array(values.buffer));
    await opened.close();
  });

  it('replaces the old file only when the new one is whole, and leaves nothing else behind', async () => {
    const folder = await temporaryFolder();
    const file = join(folder, 'model.safetensors');
    await writeFile(file, 'old');
    const values = (): never => {
      throw new Error('no values today');
    };
    await expect(writeSafetensors(file, [{ name: 'a', shape: [1], values }])).rejects.toThrow(
      'no values today',
    );
    expect(await readdir(folder)).toEqual(['model.safetensors']);
    expect(await readFile(file, 'utf8')).toBe('old');
  });

  it('says in one line when the file system refuses', async () => {
    const folder = await temporaryFolder();
    const missing = join(folder, 'no-such-folder', 'model.safetensors');
    await expectUserError(
      writeSafetensors(missing, []),
      `${missing}: cannot be written (ENOENT): choose a writable folder with enough room`,
    );
    const taken = join(folder, 'taken');
    await mkdir(taken);
    await expectUserError(
      writeSafetensors(taken, []),
      `${taken}: cannot be written (EISDIR): choose a writable folder with enough room`,
    );
    expect(await readdir(folder)).toEqual(['taken']);
  });
});
