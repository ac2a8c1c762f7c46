import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { z } from 'zod';
import { UserError } from '../lib/errors.js';
import type { BenchPreemptFlags } from './bench-preempt.js';
import type { CompareFlags } from './compare.js';
import { EXIT_BUG, EXIT_OK, EXIT_USER } from './exit-codes.js';
import type { GenerateFlags } from './generate.js';
import { complain, note, watchOutput } from './output.js';
import type { PretrainFlags } from './pretrain.js';
import type { RunFlags } from './run.js';
import type { SimulateFlags } from './simulate.js';

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
    await program.parseAsync(isBare(argv) ? [...argv, '--help'] : argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    return report(error, program, argv);
  }
}

function report(error: unknown, program: Command, argv: readonly string[]): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT_OK;
    const names = ['offbeat', ...commandNames(program, argv)].join(' ');
    complain(`${error.message.replace(/^error: /, '')}; see \`${names} --help\``);
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

/** Nothing was asked for yet: a cry for help. */
function isBare(argv: readonly string[]): boolean {
  return argv.length === 0 || (argv.length === 1 && argv[0] === 'bench');
}

/** The commands that an argument list begins with, outermost first. */
function commandNames(parent: Command, [name, ...rest]: readonly string[]): string[] {
  const command = parent.commands.find((candidate) => candidate.name() === name);
  return command === undefined ? [] : [command.name(), ...commandNames(command, rest)];
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
  addSimulate(program, done);
  addBench(program, done);
  addCompare(program, done);
  addDoctor(program, done);
  return program.addHelpText(
    'after',
    examples(
      ['offbeat run', 'train the shipped example'],
      ['offbeat generate --model models/arithmetic-tiny --prompt 12+34=', 'ask its model'],
      ['offbeat bench preempt --quick', 'measure how fast it yields'],
      ['offbeat doctor', 'check this machine'],
    ),
  );
}

function addRun(program: Command, done: Done): void {
  program
    .command('run')
    .description('train a model with GRPO or PPO; without a config, the shipped example')
    .argument('[config]', 'a TOML file; every key has a default; with [[job]] tables, a scenario')
    .option('--set <key=value>', 'override one key of the config; repeatable', collect)
    .option('--policy <name or file>', 'schedule by this policy, or by one of your own (.ts, .js, .mjs)')
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

function addSimulate(program: Command, done: Done): void {
  program
    .command('simulate')
    .description('run a scenario on a simulated clock and simulated lanes, under the very same policies')
    .argument('[scenario]', 'a TOML file as for run; [sim] and [job.sim] say what only the simulator needs')
    .option('--lanes <count>', "so many lanes (default: the scenario's)")
    .option('--policy <name or file>', 'schedule by this policy, or by one of your own (.ts, .js, .mjs)')
    .option('--seed <seed>', "of lengths, waits and faults (default: the scenario's)")
    .option('--calibrate <dir>', 'costs as in this run folder of a live run')
    .option('--against <dir>', 'simulate this live run and print predicted against measured')
    .option('--set <key=value>', 'override one key of the scenario; repeatable', collect)
    .option('--out <dir>', 'write summary.json, trace.json and report.html here, new or empty')
    .option('--json <file>', 'write the summary here')
    .action(async (scenario: string | undefined, flags: SimulateFlags) => {
      const { simulate } = await import('./simulate.js');
      done(await simulate(scenario, flags));
    })
    .addHelpText(
      'after',
      examples(
        ['offbeat simulate examples/scenarios/four-agents.toml', 'what a live run of it would do'],
        ['offbeat simulate my.toml --policy gapRatio --lanes 64', 'another policy, more lanes'],
        ['offbeat simulate my.toml --calibrate runs/first', 'with the costs of your machine'],
        ['offbeat simulate --against runs/first', 'how good are the predictions?'],
      ),
    );
}

function addBench(program: Command, done: Done): void {
  const bench = program.command('bench').description('measure what Offbeat promises, on this machine');
  bench
    .command('preempt')
    .description('how fast generation yields to training, and what that costs')
    .option('--quick', 'done within a minute: few cells, as many preemptions as fit')
    .option('--full', '10,000 preemptions a cell')
    .option('--n <count>', 'preemptions a cell (default: 1000)')
    .option('--slice-budgets <µs,…>', 'budgets of a slice to sweep (default: 500,1000,4000)')
    .option('--in-flight-budgets <µs,…>', 'budgets of all in flight to sweep (default: 1000,2000,8000)')
    .option('--modes <mode,…>', 'only these rows (default: all, see below)')
    .option('--model <dir>', 'a checkpoint folder (default: models/arithmetic-tiny)')
    .option('--seed <seed>', 'of prompts and moments (default: 1)')
    .option('--adapter <text>', 'only an adapter whose name contains this')
    .option('--json <file>', 'write the result with its raw samples here too')
    .option('--out <dir>', 'the folder of report.html and result.json, new or empty')
    .action(async (flags: BenchPreemptFlags) => {
      const { benchPreempt } = await import('./bench-preempt.js');
      done(await benchPreempt(flags));
    })
    .addHelpText('after', BENCH_PREEMPT_HELP);
}

const BENCH_PREEMPT_HELP = [
  '',
  'Modes. What Offbeat does: held (caches stay), hint (held, and the stage says that it',
  'is about to come), spilled (caches go to the host and back), dropped (caches are',
  'computed again). What people do instead: second-device, one-slice (one in flight),',
  'drain (the step ends first), abort-retry (the step ends, everything begins again),',
  'unlimited (nothing is bounded), no-preemption (every sequence ends first).',
  examples(
    ['offbeat bench preempt --quick', 'a first look: a minute'],
    ['offbeat bench preempt', 'the whole grid, 1,000 preemptions a cell'],
    ['offbeat bench preempt --modes held,hint --slice-budgets 200,500', 'part of it'],
  ),
].join('\n');

function addCompare(program: Command, done: Done): void {
  program
    .command('compare')
    .description('run a scenario under several policies, and each of its jobs alone, and compare')
    .argument('<scenario>', 'a TOML file with [[job]] tables, or a run config')
    .requiredOption(
      '--policies <name,…>',
      'two or more, names or files (.ts, .js, .mjs); the first is the baseline',
    )
    .option('--repeats <count>', 'how often each is run, every time with the next seed (default: 3)')
    .option('--live', 'on the lanes of this machine (default)')
    .option('--simulated', 'on simulated lanes')
    .option('--set <key=value>', 'override one key of the scenario; repeatable', collect)
    .option('--json <file>', 'write the result here too')
    .option('--out <dir>', 'the folder of report.html and result.json, new or empty')
    .action(async (scenario: string, flags: CompareFlags) => {
      const { compare } = await import('./compare.js');
      done(await compare(scenario, flags));
    })
    .addHelpText(
      'after',
      examples(
        ['offbeat compare examples/scenarios/four-agents.toml --policies serial,gapRatio --simulated', ''],
        ['offbeat compare mine.toml --policies priority,./my-policy.ts --repeats 5', ''],
      ),
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
