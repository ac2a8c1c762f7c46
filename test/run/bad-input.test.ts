import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { type CommandResult, offbeat, sets, SHIPPED_MODEL, SMALL, temporaryFolder } from './runs.js';

const header = z.record(
  z.string(),
  z.looseObject({ dtype: z.string().optional(), shape: z.array(z.int()).optional() }),
);
type Header = z.infer<typeof header>;

let cwd: string;
let model: string;
beforeEach(() => {
  cwd = temporaryFolder();
  model = join(cwd, 'model');
  cpSync(SHIPPED_MODEL, model, { recursive: true });
});

/** Writes the model's header anew; offsets stay as they are. */
function editHeader(change: (tensors: Header) => void): void {
  const file = join(model, 'model.safetensors');
  const bytes = readFileSync(file);
  const end = 8 + Number(bytes.readBigUInt64LE());
  const tensors = header.parse(JSON.parse(bytes.subarray(8, end).toString()));
  change(tensors);
  const json = Buffer.from(JSON.stringify(tensors));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(file, Buffer.concat([length, json, bytes.subarray(end)]));
}

function editJson(name: string, change: (json: Record<string, unknown>) => void): void {
  const file = join(model, name);
  const json = z.record(z.string(), z.unknown()).parse(JSON.parse(readFileSync(file, 'utf8')));
  change(json);
  writeFileSync(file, JSON.stringify(json));
}

/** Refused in one line with the exit code of a user's mistake, and nothing new on the disk. */
async function refused(args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const before = readdirSync(cwd).sort();
  const result = await offbeat(args, { cwd, env }).ended;
  expect(readdirSync(cwd).sort()).toEqual(before);
  return oneLine(result);
}

function oneLine({ code, stdout, stderr }: CommandResult): string {
  const lines = stderr.split('\n').slice(0, -1);
  const told = lines.filter((line) => line.startsWith('offbeat: '));
  expect(told, stderr).toHaveLength(1);
  expect(lines.at(-1)).toBe(told[0]);
  expect(stdout).toBe('');
  expect(code, stderr).toBe(2);
  return (told[0] ?? '').replace('offbeat: ', '');
}

/** What stands on stderr is that line and nothing else: it was refused before any device was opened. */
async function refusedAtOnce(...set: string[]): Promise<string> {
  const args = ['run', '--out', 'out', ...sets([`model.path=${model}`, ...SMALL, ...set])];
  const before = readdirSync(cwd).sort();
  const result = await offbeat(args, { cwd }).ended;
  expect(readdirSync(cwd).sort()).toEqual(before);
  expect(result.stderr.split('\n')).toHaveLength(2);
  return oneLine(result).replaceAll(`${model}/`, '');
}

describe('a checkpoint', () => {
  test('that is not there', async () => {
    rmSync(model, { recursive: true });
    expect(await refusedAtOnce()).toMatch(/^config\.json: not found: /);
  });

  test('without weights', async () => {
    rmSync(join(model, 'model.safetensors'));
    expect(await refusedAtOnce()).toMatch(/^model\.safetensors: not found, .*: save the checkpoint/);
  });

  test('cut off', async () => {
    truncateSync(join(model, 'model.safetensors'), 300_000);
    expect(await refusedAtOnce()).toMatch(/^model\.safetensors: .*truncated|^model\.safetensors: .*ends/);
  });

  test('cut off in its header', async () => {
    truncateSync(join(model, 'model.safetensors'), 100);
    expect(await refusedAtOnce()).toMatch(/^model\.safetensors: .*truncated/);
  });

  test('with a tensor of another shape', async () => {
    editHeader((tensors) => {
      const { shape } = tensors['model.layers.0.self_attn.o_proj.weight'] ?? {};
      const [rows = 0, columns = 0] = shape ?? [];
      shape?.splice(0, 2, rows * 2, columns / 2);
    });
    expect(await refusedAtOnce()).toMatch(
      /^model\.safetensors: tensor "model\.layers\.0\.self_attn\.o_proj\.weight" has shape \[\d+, \d+\], config\.json asks for \[\d+, \d+\]: correct config\.json$/,
    );
  });

  test('in a number format nobody here reads', async () => {
    editHeader((tensors) => {
      const tensor = tensors['model.norm.weight'];
      if (tensor !== undefined) tensor.dtype = 'I32';
    });
    expect(await refusedAtOnce()).toBe(
      'model.safetensors: tensor "model.norm.weight" is stored in I32: convert it to F32, F16 or BF16',
    );
  });

  test('without one of its tensors', async () => {
    editHeader((tensors) => {
      const { 'model.norm.weight': norm } = tensors;
      delete tensors['model.norm.weight'];
      if (norm !== undefined) tensors['model.norm.heavy'] = norm;
    });
    expect(await refusedAtOnce()).toMatch(
      /^model\.safetensors: tensor "model\.norm\.(heavy|weight)" .*: check config/,
    );
  });

  test('with a weight that is no number', async () => {
    const file = join(model, 'model.safetensors');
    const bytes = readFileSync(file);
    bytes.writeFloatLE(NaN, bytes.length - 4);
    writeFileSync(file, bytes);
    expect(await refusedAtOnce()).toMatch(/^model\.safetensors: tensor ".*" has NaN at element \d+: /);
  });

  test('of another architecture', async () => {
    editJson('config.json', (json) => {
      json['architectures'] = ['MambaForCausalLM'];
      json['model_type'] = 'mamba';
    });
    expect(await refusedAtOnce()).toBe(
      'config.json: architectures is ["MambaForCausalLM"], must be ["LlamaForCausalLM"], the supported architecture',
    );
  });

  test('without its tokenizer', async () => {
    rmSync(join(model, 'tokenizer.json'));
    expect(await refusedAtOnce()).toMatch(/^tokenizer\.json: not found: /);
  });

  test('whose tokenizer has more ids than the embedding has rows', async () => {
    editJson('tokenizer.json', (json) => {
      const inner = z.looseObject({ vocab: z.record(z.string(), z.int()) }).parse(json['model']);
      json['model'] = { ...inner, vocab: { ...inner.vocab, x: 16, y: 17 } };
    });
    expect(await refusedAtOnce()).toBe(
      'tokenizer.json: the tokenizer has 18 ids, the embedding has 16 rows (vocab_size): use the tokenizer this model was trained with',
    );
  });
});

describe('a configuration', () => {
  test('with a key nobody knows', async () => {
    expect(await refusedAtOnce('rollout.temprature=1')).toMatch(
      /rollout\.temprature is not a known key: did you mean rollout\.temperature\?$/,
    );
  });

  test('with a value out of range', async () => {
    expect(await refusedAtOnce('rollout.top_p=1.5')).toBe(
      '--set rollout.top_p=1.5: must be a number above 0 and at most 1',
    );
  });

  test('in a file that is none', async () => {
    writeFileSync(join(cwd, 'wrong.toml'), 'steps = = 3\n');
    expect(await refused(['run', 'wrong.toml'])).toMatch(/^wrong\.toml:1:\d+: not valid TOML/);
    expect(await refused(['run', 'missing.toml'])).toBe(
      'missing.toml: not found: name a TOML file that exists',
    );
  });

  test('with completions longer than the context', async () => {
    expect(await refusedAtOnce('rollout.max_tokens=1000')).toMatch(
      /^a prompt of 7 tokens and max_tokens 1000 make 1007, the model's context is \d+: /,
    );
  });

  test('with a micro-batch too small for a prompt and its completion', async () => {
    expect(await refusedAtOnce('rollout.max_tokens=40', 'optimizer.micro_batch_tokens=44')).toBe(
      'optimizer.micro_batch_tokens is 44, a prompt of 7 tokens and rollout.max_tokens 40 make 47: raise it or lower rollout.max_tokens',
    );
  });

  test('with a stop token the model does not have', async () => {
    expect(await refusedAtOnce('rollout.stop_token_ids=[4, 16]')).toBe(
      "rollout.stop_token_ids has 16, the model's ids go from 0 to 15: remove it",
    );
  });

  test('with a task nobody knows', async () => {
    expect(await refusedAtOnce('task.name=arithmetics')).toMatch(
      /^unknown task "arithmetics"; known: arithmetic/,
    );
    expect(await refusedAtOnce('task.options={digits=9}')).toMatch(/digits.*must be 1 to 6/);
    expect(await refusedAtOnce('task.name=./none.mjs')).toMatch(/none\.mjs does not exist; check the path$/);
  });

  test('with a task of several turns that the model has no tokens or no room for', async () => {
    expect(await refusedAtOnce('task.name=frozenLake')).toMatch(
      /^task "frozenLake" writes "_", which this model has no token for \(.*\): use a model made for the task, as offbeat pretrain makes one$/,
    );
    expect(await refusedAtOnce('task.name=calculator', 'rollout.context_tokens_max=129')).toBe(
      "rollout.context_tokens_max is 129, the model's context is 128: lower it",
    );
    const narrow = ['rollout.max_tokens=4', 'optimizer.micro_batch_tokens=7'];
    expect(await refusedAtOnce('task.name=calculator', ...narrow)).toBe(
      'a prompt has 7 tokens and a rollout room for 7: shorten the prompt, or raise rollout.context_tokens_max or optimizer.micro_batch_tokens',
    );
  });

  test('with more held-out prompts than there are', async () => {
    expect(await refusedAtOnce('task.options={digits=1}', 'evaluation.heldout_prompts=3')).toBe(
      'evaluation.heldout_prompts is 3, the task "arithmetic" has 2 held-out tasks with these options: lower it or widen the task',
    );
  });
});

describe('a run folder', () => {
  const args = (out: string): string[] => ['run', '--out', out, ...sets([`model.path=${model}`, ...SMALL])];

  test('that is a file', async () => {
    writeFileSync(join(cwd, 'out'), 'mine');
    expect(await refused(args('out'))).toMatch(
      /^run folder out cannot be written \(.*\); name another with --out$/,
    );
    expect(await refused(args('out/below'))).toMatch(/^run folder out\/below cannot be written/);
    expect(readFileSync(join(cwd, 'out'), 'utf8')).toBe('mine');
  });

  test('that holds something', async () => {
    mkdirSync(join(cwd, 'out'));
    writeFileSync(join(cwd, 'out', 'mine'), 'mine');
    expect(await refused(args('out'))).toBe('run folder out is not empty; name a new one with --out');
    expect(readdirSync(join(cwd, 'out'))).toEqual(['mine']);
  });
});

describe('a device', () => {
  const args = (...set: string[]): string[] => [
    'run',
    '--out',
    'made/for/this',
    ...sets([`model.path=${model}`, ...SMALL, ...set]),
  ];

  test('that is not there', async () => {
    const nowhere = { VK_DRIVER_FILES: '/nonexistent', VK_ICD_FILENAMES: '/nonexistent' };
    expect(await refused(args(), nowhere)).toMatch(/^no WebGPU adapter found: run `npx offbeat doctor`/);
    expect(existsSync(join(cwd, 'made'))).toBe(false);
  });

  test('of a name nobody has', async () => {
    expect(await refused(args('lanes.adapter=Voodoo'))).toMatch(
      /^no adapter named "Voodoo": run `npx offbeat doctor`/,
    );
  });

  test('too small for what is asked of it', async () => {
    expect(await refused(args('engine.kv_blocks=1048576'))).toMatch(
      /^the cache of one layer, 1048576 blocks, takes \d+ bytes, the adapter binds at most \d+ \(maxStorageBufferBindingSize\): lower engine\.slots or engine\.kv_blocks$/,
    );
  });
});
