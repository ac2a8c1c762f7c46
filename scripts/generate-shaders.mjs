// Reads shaders/*.wgsl and writes src/kernels/shaders.gen.ts: each shader's text with its snippets, and its
// bindings, params, overrides and prelude constants, so that a missing buffer or a misspelt constant fails in `tsc`.
//
// A shader may say, on lines of their own:
//   //!use NAME                 the text of shaders/lib/NAME.wgsl goes before it
//   //!prelude NAME: TYPE       `const NAME: TYPE = …` is written before it when the pipeline is made
// With --check nothing is written; the exit code tells whether the committed file is in step.
import { readFileSync, readdirSync, writeFileSync, existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const root = fileURLToPath(new URL('..', import.meta.url));
const shaderFolder = join(root, 'shaders');
const target = join(root, 'src/kernels/shaders.gen.ts');
const SCALARS = new Set(['u32', 'i32', 'f32']);

function fail(file, message) {
  console.error(`generate-shaders: shaders/${file}: ${message}`);
  process.exit(2);
}

function stripComments(text) {
  return text.replace(/\/\/.*$/gm, '');
}

function snippets(file, text, seen = new Set()) {
  let out = '';
  for (const match of text.matchAll(/^\/\/!use (\w+)$/gm)) {
    const name = match[1];
    if (seen.has(name)) continue;
    seen.add(name);
    const path = join(shaderFolder, 'lib', `${name}.wgsl`);
    if (!existsSync(path)) fail(file, `uses lib/${name}.wgsl, which does not exist`);
    const snippet = readFileSync(path, 'utf8');
    out += snippets(file, snippet, seen) + snippet + '\n';
  }
  return out;
}

function parseParams(file, source) {
  const immediate = source.match(/var<immediate>\s+\w+\s*:\s*(\w+)\s*;/);
  if (!immediate) return [];
  const struct = source.match(new RegExp(`struct\\s+${immediate[1]}\\s*\\{([^}]*)\\}`));
  if (!struct) fail(file, `params struct ${immediate[1]} not found`);
  const params = [...struct[1].matchAll(/(\w+)\s*:\s*(\w+)/g)].map(([, name, type]) => ({ name, type }));
  for (const { name, type } of params) {
    if (!SCALARS.has(type)) fail(file, `param ${name} has type ${type}; only u32, i32 and f32 are allowed`);
  }
  if (params.length > 16) fail(file, `${params.length} params; 16 words fit`);
  return params;
}

function parse(file) {
  const text = readFileSync(join(shaderFolder, file), 'utf8');
  const source = snippets(file, text) + text;
  const plain = stripComments(source);
  const bindings = [...plain.matchAll(/@group\((\d+)\)\s*@binding\((\d+)\)\s*var<storage,\s*(\w+)>\s+(\w+)/g)]
    .map(([, group, binding, access, name]) => ({ group: +group, binding: +binding, access, name }))
    .sort((a, b) => a.binding - b.binding);
  bindings.forEach((entry, index) => {
    if (entry.group !== 0 || entry.binding !== index)
      fail(file, `binding ${entry.name} is not @group(0) @binding(${index})`);
  });
  const preludes = [...source.matchAll(/^\/\/!prelude (\w+): (\w+)$/gm)].map(([, name, type]) => ({
    name,
    type,
  }));
  const overrides = [...plain.matchAll(/override\s+(\w+)\s*:\s*(\w+)(?:\s*=\s*([^;]+))?;/g)].map(
    ([, name, type, value]) => ({
      name,
      type,
      default: value === undefined ? null : Number(value.trim().replace(/[uif]$/, '')),
    }),
  );
  return {
    name: file.replace(/\.wgsl$/, ''),
    source,
    bindings: bindings.map(({ name, access }) => ({ name, access })),
    params: parseParams(file, plain),
    overrides,
    preludes,
  };
}

const files = readdirSync(shaderFolder)
  .filter((name) => name.endsWith('.wgsl'))
  .sort();
const table = files.map(parse);
let out =
  '// Written by scripts/generate-shaders.mjs from shaders/*.wgsl. Do not edit.\n\nexport const shaders = {\n';
for (const { name, ...rest } of table)
  out += `  ${name}: ${JSON.stringify(rest, null, 2).replace(/\n/g, '\n  ')},\n`;
out += '} as const;\n';

if (process.argv.includes('--check')) {
  if (!existsSync(target) || readFileSync(target, 'utf8') !== out) {
    console.error('src/kernels/shaders.gen.ts is out of step with shaders/: run npm run generate');
    process.exit(1);
  }
} else {
  writeFileSync(target, out);
}
