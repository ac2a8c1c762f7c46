import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { z } from 'zod';
import { UserError } from '../lib/errors.js';
import { EXIT_BUG, EXIT_OK, EXIT_USER } from './exit-codes.js';
import type { GenerateFlags } from './generate.js';
import { complain, note, watchOutput } from './output.js';
import type { PretrainFlags } from './pretrain.js';
import type { RunFlags } from './run.js';

/** Takes the exit code of the command that ran. */
type Done = (exitCode: number) => void;

/**
 * The command line. Each command's code is loaded when it is called for, so that help comes at once.
 *
 * @param argv the arguments, without Node and the script
 * @returns the exit code: 0, 1 for a bug, 2 for what the user can mend, 130 when interrupted
 */
export async function main(argv: readonly string[]): Promise<number> {
  watchOutput();
  let exitCode = EXIT_OK;
  const program = createProgram((code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv.length === 0 ? ['--help'] : argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    return report(error, program, argv);
  }
}

function report(error: unknown, program: Command, argv: readonly string[]): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT_OK;
    const name = program.commands.some((command) => command.name() === argv[0]) ? ` ${argv[0]}` : '';
    complain(`${error.message.replace(/^error: /, '')}; see \`offbeat${name} --help\``);
    return EXIT_USER;
  }
  if (error instanceof UserError) {
    complain(error.message);
    return EXIT_USER;
  }
  note(`offbeat: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  note('offbeat: this is a bug in Offbeat: please report it with the lines above');
  return EXIT_BUG;
}

function createProgram(done: Done): Command {
  const program = new Command('offbeat')
    .description(
      'Reinforcement-learning rollouts on WebGPU, in the beats where training leaves the device idle.',
    )
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show this')
    .helpCommand(false)
    // Complaints are ours to print: one line, then the exit code.
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  addRun(program, done);
  addGenerate(program, done);
  addPretrain(program, done);
  addDoctor(program, done);
  return program.addHelpText(
    'after',
    examples(
      ['offbeat run', 'train the shipped example'],
      ['offbeat generate --model models/arithmetic-tiny --prompt 12+34=', 'ask its model'],
      ['offbeat doctor', 'check this machine'],
    ),
  );
}

function addRun(program: Command, done: Done): void {
  program
    .command('run')
    .description('train a model with GRPO; without a config, the shipped example')
    .argument('[config]', 'a TOML file; every key has a default')
    .option('--set <key=value>', 'override one key of the config; repeatable', collect)
    .option('--out <dir>', 'the run folder, new or empty (default: runs/<time>-seed<seed>)')
    .action(async (config: string | undefined, flags: RunFlags) => {
      const { run } = await import('./run.js');
      done(await run(config, flags));
    })
    .addHelpText(
      'after',
      examples(
        ['offbeat run', 'the shipped example: a few minutes at most'],
        ['offbeat run --set seed=7 --set steps=10', 'the same, changed'],
        ['offbeat run my.toml --out runs/first', 'a run of your own'],
        ['offbeat run runs/first/config.toml', 'a run again, just as it was'],
      ),
    );
}

function addGenerate(program: Command, done: Done): void {
  program
    .command('generate')
    .description('complete prompts with a Hugging Face checkpoint of the Llama family')
    .requiredOption('--model <dir>', 'a folder with config.json, safetensors and tokenizer.json')
    .option('--prompt <text>', 'a text to go on from')
    .option('--prompts <file.jsonl>', 'many: {"prompt": "text"} or "text" a line')
    .option('--n <count>', 'completions of each prompt (default: 1)')
    .option('--max-tokens <count>', 'longest completion (default: 256)')
    .option('--temperature <t>', '0 is greedy (default: 1)')
    .option('--top-p <p>', 'keep the likeliest tokens that add up to p (default: 1, all)')
    .option('--top-k <k>', 'keep the k likeliest tokens (default: 0, all)')
    .option('--min-p <p>', 'keep tokens p times as likely as the likeliest, or more (default: 0, all)')
    .option('--seed <seed>', 'the same seed gives the same text (default: 1)')
    .option('--stop <text>', 'end before this text; repeatable', collect)
    .option('--ignore-eos', 'go on after end-of-sequence')
    .option('--logprobs', 'with --json: the raw log-probability of each token')
    .option('--json', 'one JSON object a completion')
    .option('--adapter <text>', 'only an adapter whose name contains this')
    .action(async (flags: GenerateFlags) => {
      const { generate } = await import('./generate.js');
      done(await generate(flags));
    })
    .addHelpText(
      'after',
      [
        '',
        "Names and meanings are those of vLLM's SamplingParams. Text comes with its prompt",
        'in front; --json keeps the two apart, and leaves stop texts and special tokens',
        'out of the text but not out of token_ids.',
        examples(
          ['offbeat generate --model models/arithmetic-tiny --prompt 12+34=', ''],
          ['offbeat generate --model DIR --prompts ask.jsonl --n 4 --json > told.jsonl', ''],
        ),
      ].join('\n'),
    );
}

function addPretrain(program: Command, done: Done): void {
  program
    .command('pretrain')
    .description("make a small model from nothing, on a task's own corpus")
    .argument('<config>', 'a TOML file with the shape of the model')
    .requiredOption('--out <dir>', 'the checkpoint folder, new or empty')
    .option('--set <key=value>', 'override one key of the config; repeatable', collect)
    .action(async (config: string, flags: PretrainFlags) => {
      const { pretrain } = await import('./pretrain.js');
      done(await pretrain(config, flags));
    })
    .addHelpText(
      'after',
      examples([
        'offbeat pretrain models/arithmetic-tiny/pretrain.toml --out my-model',
        'make the shipped model again',
      ]),
    );
}

function addDoctor(program: Command, done: Done): void {
  program
    .command('doctor')
    .description('show the adapter, its limits and features, and the command that mends what is missing')
    .option('--json', 'one JSON object')
    .action(async (flags: { json?: true }) => {
      const { doctor } = await import('./doctor.js');
      done(await doctor({ json: flags.json === true }));
    });
}

/** Gathers a repeatable option. */
function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function examples(...lines: readonly (readonly [command: string, what: string])[]): string {
  const width = Math.max(...lines.map(([command]) => command.length));
  const rows = lines.map(([command, what]) => `  ${command.padEnd(width)}  ${what}`.trimEnd());
  return `\nExamples:\n${rows.join('\n')}`;
}

function packageVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(file, 'utf8'))).version;
}
