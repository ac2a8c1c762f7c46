import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { assert } from '../lib/assert.js';
import { UserError } from '../lib/errors.js';
import { cannotRead, readJsonIfPresent, shown, systemCode } from './files.js';
import { SafetensorsFile } from './safetensors.js';
import type { TensorEntry } from './safetensors-header.js';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
/** More shards than any checkpoint has, fewer than a process may have files open. */
const SHARDS_MAX = 512;

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
    throw cannotRead(path, error);
  }
}

async function readIndex(file: string): Promise<Map<string, string> | undefined> {
  const json = await readJsonIfPresent(file);
  if (json === undefined) return undefined;
  const parsed = indexSchema.safeParse(json);
  if (!parsed.success) {
    throw new UserError(
      `${file}: weight_map is not a map from tensor to shard file: download the file again`,
    );
  }
  const shardOf = new Map(Object.entries(parsed.data.weight_map));
  for (const [name, shard] of shardOf) {
    // A shard lies beside the index: a path could lead anywhere on the machine.
    if (!/^[\w.-]+\.safetensors$/.test(shard)) {
      throw new UserError(
        `${file}: weight_map sends ${shown(name)} to ${shown(shard)}: name a .safetensors file in the same folder`,
      );
    }
  }
  const shards = new Set(shardOf.values()).size;
  if (shards > SHARDS_MAX)
    throw new UserError(`${file}: ${shards} shards, at most ${SHARDS_MAX} are read: merge some`);
  return shardOf;
}

/** All tensors of a checkpoint folder, whether they lie in one safetensors file or in shards. */
export class TensorFiles {
  private constructor(
    private readonly files: readonly SafetensorsFile[],
    private readonly fileOf: ReadonlyMap<string, SafetensorsFile>,
    /** The file to name when a tensor is missing altogether. */
    readonly rootFile: string,
  ) {}

  /**
   * Opens `model.safetensors`, or else the shards of `model.safetensors.index.json`, and checks every header.
   *
   * @throws UserError when there is neither, or one is missing, truncated or malformed.
   */
  static async open(folder: string): Promise<TensorFiles> {
    const single = join(folder, SINGLE);
    if (await exists(single)) {
      const file = await SafetensorsFile.open(single);
      return new TensorFiles([file], new Map([...file.tensors.keys()].map((name) => [name, file])), single);
    }
    const index = join(folder, INDEX);
    const shardOf = await readIndex(index);
    if (shardOf === undefined) {
      throw new UserError(
        `${single}: not found, and no ${INDEX} beside it: save the checkpoint as safetensors`,
      );
    }
    return TensorFiles.#openShards(folder, index, shardOf);
  }

  static async #openShards(
    folder: string,
    index: string,
    shardOf: ReadonlyMap<string, string>,
  ): Promise<TensorFiles> {
    const opened = new Map<string, SafetensorsFile>();
    try {
      for (const shard of new Set(shardOf.values()))
        opened.set(shard, await SafetensorsFile.open(join(folder, shard)));
      const fileOf = new Map<string, SafetensorsFile>();
      for (const [name, shard] of shardOf) {
        const file = opened.get(shard);
        if (file?.tensors.has(name) !== true) {
          throw new UserError(
            `${index}: weight_map sends ${shown(name)} to ${shard}, which lacks it: download both again`,
          );
        }
        fileOf.set(name, file);
      }
      return new TensorFiles([...opened.values()], fileOf, index);
    } catch (error) {
      for (const file of opened.values()) await file.close();
      throw error;
    }
  }

  get names(): Iterable<string> {
    return this.fileOf.keys();
  }

  /** Undefined when the checkpoint has no tensor of that name. */
  find(name: string): { readonly file: string; readonly entry: TensorEntry } | undefined {
    const file = this.fileOf.get(name);
    const entry = file?.tensors.get(name);
    return file === undefined || entry === undefined ? undefined : { file: file.file, entry };
  }

  /** @see SafetensorsFile.read */
  async read(name: string): Promise<Float32Array<ArrayBuffer>> {
    const file = this.fileOf.get(name);
    assert(file !== undefined, `no tensor ${name}`);
    return file.read(name);
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close();
  }
}
