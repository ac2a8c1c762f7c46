import { readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, relative, resolve, sep } from 'node:path';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';

/** The house rules of ARCHITECTURE.md that a machine can hold: who may import whom, and how long a file may be. */
const ROOT = resolve(import.meta.dirname, '..');
const SRC = join(ROOT, 'src');

/** Imports go only downwards in this list. */
const ORDER = [
  'index.ts',
  'cli',
  'bench',
  'run',
  'sim',
  'scheduler',
  'tasks',
  'lanes',
  'engine',
  'train',
  'kernels',
  'gpu',
  'weights',
  'model',
  'telemetry',
  'lib',
];
/** Vocabulary that everyone above may use, whatever its place in the list. */
const SHARED = new Set(['lib', 'model', 'weights']);
const LINES_MAX = 400;

interface Import {
  /** Relative to src/, with `/`. */
  readonly from: string;
  readonly specifier: string;
  /** The imported file relative to src/; null for a package. */
  readonly target: string | null;
}

function filesUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .map((name) => join(folder, name))
    .sort();
}

/** Every module a file names: static and dynamic imports, types, re-exports, and threads started from a URL. */
function specifiersIn(text: string): string[] {
  const imported = ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName);
  const threads = [...text.matchAll(/new URL\('(\.{1,2}\/[^']+\.js)', import\.meta\.url\)/g)].map(
    ([, path]) => path,
  );
  return [...imported, ...threads.filter((path) => path !== undefined)];
}

function importsOf(file: string, text = readFileSync(file, 'utf8')): Import[] {
  return specifiersIn(text).map((specifier) => {
    const target = specifier.startsWith('.')
      ? resolve(dirname(file), specifier).replace(/\.js$/, '.ts')
      : null;
    return { from: nameOf(file), specifier, target: target === null ? null : nameOf(target) };
  });
}

function nameOf(file: string): string {
  return relative(SRC, file).split(sep).join('/');
}

/** The folder of src/ a file belongs to; `index.ts` is a place of its own. */
function placeOf(name: string): string {
  return name.split('/', 1)[0] ?? name;
}

/** What is wrong with an import of one of our own files, or null. */
function fault({ from, target }: Import): string | null {
  if (target === null) return null;
  if (target.startsWith('../')) return target.startsWith('../scripts/') ? null : 'leaves src/';
  if (target === 'index.ts') return 'nothing inside imports the public API';
  const [source, goal] = [placeOf(from), placeOf(target)];
  if (source === goal) return null;
  const [sourceRank, goalRank] = [ORDER.indexOf(source), ORDER.indexOf(goal)];
  if (sourceRank < 0 || goalRank < 0) return 'is not in the order of the house';
  if (source === 'engine' && goal === 'train') return 'engine and train never import each other';
  if (goalRank > sourceRank) return null;
  return SHARED.has(goal) && !SHARED.has(source) ? null : 'goes upwards';
}

const sources = filesUnder(SRC);
const imports = sources.flatMap((file) => importsOf(file));

describe('imports', () => {
  test('are found: static, dynamic, types, re-exports and threads', () => {
    const text = [
      "import a from './a.js';",
      "import type { B } from '../b/b.js';",
      "export { c } from './c.js';",
      "export type * from './d.js';",
      "const e = await import('./e.js');",
      "const f = new Worker(new URL('./f.js', import.meta.url));",
      "type G = import('../g.js').G;",
      "// import './not.js';",
      'const h = "import \'./not.js\'";',
    ].join('\n');
    expect(specifiersIn(text).sort()).toEqual(
      ['../b/b.js', '../g.js', './a.js', './c.js', './d.js', './e.js', './f.js'].sort(),
    );
    expect(sources.length).toBeGreaterThan(50);
    expect(imports.length).toBeGreaterThan(sources.length);
  });

  test('rules refuse what they are for', () => {
    const between = (from: string, target: string) => fault({ from, target, specifier: '' });
    expect(between('lanes/lane.ts', 'engine/engine.ts')).toBeNull();
    expect(between('telemetry/trace.ts', 'model/config.ts')).toBeNull();
    expect(between('engine/engine.ts', 'lanes/lane.ts')).toBe('goes upwards');
    expect(between('engine/engine.ts', 'train/batch.ts')).toContain('never');
    expect(between('train/batch.ts', 'engine/engine.ts')).toBe('goes upwards');
    expect(between('lib/prng.ts', 'model/config.ts')).toBe('goes upwards');
    expect(between('cli/run.ts', 'index.ts')).toContain('public API');
    expect(between('cli/run.ts', '../test/oracle/ops.ts')).toBe('leaves src/');
    expect(between('misc/run.ts', 'lib/prng.ts')).toContain('order of the house');
  });

  test('go only downwards', () => {
    const wrong = imports.flatMap((entry) => {
      const why = fault(entry);
      return why === null ? [] : [`${entry.from} imports ${entry.specifier}: ${why}`];
    });
    expect(wrong).toEqual([]);
  });

  test('name files that exist', () => {
    const known = new Set(sources.map(nameOf));
    const missing = imports.filter(
      ({ target }) => target !== null && !target.startsWith('../') && !known.has(target),
    );
    expect(missing.map(({ from, specifier }) => `${from}: ${specifier}`)).toEqual([]);
  });

  test('never form a circle of files', () => {
    const graph = new Map(sources.map((file) => [nameOf(file), new Set<string>()]));
    for (const { from, target } of imports)
      if (target !== null && graph.has(target)) graph.get(from)?.add(target);
    // Files that import no remaining file go first; what is left at the end imports itself in a circle.
    for (let removed = true; removed;) {
      removed = false;
      for (const [name, targets] of graph) {
        if ([...targets].some((target) => graph.has(target))) continue;
        graph.delete(name);
        removed = true;
      }
    }
    expect([...graph.keys()]).toEqual([]);
  });

  test('only src/gpu knows the GPU library', () => {
    const users = imports
      .filter(({ specifier }) => /^webgpu($|\/)/.test(specifier))
      .map(({ from }) => placeOf(from));
    expect([...new Set(users)]).toEqual(['gpu']);
  });

  test('packages are declared as dependencies', () => {
    const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>;
    };
    const undeclared = imports.filter(({ specifier, target }) => {
      if (target !== null || specifier.startsWith('node:')) return false;
      const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
      return !(name in dependencies);
    });
    expect(undeclared.map(({ from, specifier }) => `${from}: ${specifier}`)).toEqual([]);
    const bare = imports.filter(({ specifier }) => builtinModules.includes(specifier));
    expect(bare.map(({ from, specifier }) => `${from}: write node:${specifier}`)).toEqual([]);
  });
});

describe('the GPU', () => {
  /** An object of our own that says it is the library's: a class that implements one, or an assertion. */
  const PRETENDS =
    /\b(?:implements|as|satisfies)\s+GPU(?:Device|Adapter|Queue|Buffer|Texture|CommandEncoder|ComputePipeline)?\b/;

  test('is simulated nowhere but in src/sim', () => {
    const files = ['src', 'test', 'bench'].flatMap((folder) => filesUnder(join(ROOT, folder)));
    const pretenders = files
      .filter((file) => !file.startsWith(join(SRC, 'sim')))
      .filter((file) => PRETENDS.test(readFileSync(file, 'utf8')))
      .map((file) => relative(ROOT, file));
    expect(pretenders).toEqual([]);
  });

  test('pretenders are recognised', () => {
    const isFound = (verb: string, type: string) => PRETENDS.test(`const x = {} ${verb} ${type};`);
    expect(isFound('as', 'GPUDevice')).toBe(true);
    expect(isFound('satisfies', 'GPU')).toBe(true);
    expect(isFound('implements', 'GPUQueue')).toBe(true);
    // Names and numbers that describe a device are no device.
    expect(isFound('as', 'GPUAdapterInfo')).toBe(false);
    expect(isFound('as', 'GPUBufferUsageFlags')).toBe(false);
  });
});

test(`no source file is longer than ${LINES_MAX} lines`, () => {
  const long = sources
    .filter((file) => !file.endsWith('.gen.ts'))
    .map((file) => ({ name: nameOf(file), lines: readFileSync(file, 'utf8').split('\n').length - 1 }))
    .filter(({ lines }) => lines > LINES_MAX);
  expect(long).toEqual([]);
});
