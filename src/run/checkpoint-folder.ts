import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errorText, UserError } from '../lib/errors.js';
import { saveCheckpoint } from '../model/checkpoint.js';
import type { ModelConfig } from '../model/config.js';
import { systemCode } from '../model/files.js';
import type { Buckets, ParamLayout } from '../model/layout.js';
import { Tokenizer, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE } from '../model/tokenizer.js';
import { buildCharTokenizer } from '../tasks/char-tokenizer.js';

/**
 * The folder of a checkpoint to be: seen to be writable before anything is trained, and gone again, if it was made
 * here, unless `save` fills it.
 */
export class CheckpointFolder {
  #saved = false;

  private constructor(
    readonly path: string,
    private readonly wasMade: boolean,
    /** The tokenizer until the checkpoint is saved. */
    private readonly scratch: string,
  ) {}

  /** @throws UserError when it holds something, or cannot be written. */
  static async create(path: string): Promise<CheckpointFolder> {
    const wasMade = await makeEmpty(path);
    return new CheckpointFolder(path, wasMade, await mkdtemp(join(tmpdir(), 'offbeat-')));
  }

  /** The tokenizer of an alphabet, which `save` will put beside the weights. */
  async makeTokenizer(alphabet: string): Promise<{ tokenizer: Tokenizer; vocabSize: number }> {
    const { tokenizer, tokenizerConfig, vocabSize } = buildCharTokenizer(alphabet);
    const write = (name: string, json: object): Promise<void> =>
      writeFile(join(this.scratch, name), `${JSON.stringify(json, null, 2)}\n`);
    await write(TOKENIZER_FILE, tokenizer);
    await write(TOKENIZER_CONFIG_FILE, tokenizerConfig);
    return { tokenizer: await Tokenizer.load(this.scratch), vocabSize };
  }

  /** Weights, config, tokenizer, and the configuration they were made with. */
  async save(model: ModelConfig, layout: ParamLayout, weights: Buckets, toml: string): Promise<void> {
    await saveCheckpoint(this.path, model, layout, weights, this.scratch);
    await writeFile(join(this.path, 'pretrain.toml'), toml);
    this.#saved = true;
  }

  /** Leaves a whole checkpoint, or what was there before. Never throws. */
  async close(): Promise<void> {
    await rm(this.scratch, { recursive: true, force: true }).catch(() => undefined);
    if (this.wasMade && !this.#saved)
      await rm(this.path, { recursive: true, force: true }).catch(() => undefined);
  }
}

/** True when the folder was made, false when it was there. */
async function makeEmpty(path: string): Promise<boolean> {
  try {
    await mkdir(path);
    return true;
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') {
      const remedy =
        systemCode(error) === 'ENOENT' ? 'make the folder it lies in' : 'name another folder with --out';
      throw new UserError(`${path}: cannot be made (${errorText(error)}): ${remedy}`);
    }
  }
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    throw new UserError(`${path}: is no folder (${errorText(error)}): name a new one with --out`);
  }
  if (names.length > 0) throw new UserError(`${path}: not empty: name a new folder with --out`);
  return false;
}
