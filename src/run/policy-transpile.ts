import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { oneLine, UserError } from '../lib/errors.js';

/** Wherever a policy lies, it gets this package's public API, and the zod that checks its options. */
const OURS: ReadonlySet<string> = new Set(['offbeat', 'zod']);

/** The part of TypeScript's API in use here. */
interface Transpiler {
  transpileModule(
    text: string,
    options: {
      readonly fileName: string;
      readonly reportDiagnostics: true;
      readonly compilerOptions: { readonly module: string; readonly target: string };
    },
  ): { readonly outputText: string; readonly diagnostics?: readonly Diagnostic[] };
  /** Finds the modules that a text names; `pos` is where a specifier's opening quote stands. */
  preProcessFile(
    text: string,
    readImportFiles: boolean,
    detectJavaScriptImports: boolean,
  ): { readonly importedFiles: readonly { readonly fileName: string; readonly pos: number }[] };
}

interface Diagnostic {
  /** First character at fault. */
  readonly start?: number | undefined;
  readonly messageText: string | { readonly messageText: string };
}

/**
 * A policy's TypeScript as JavaScript that can be imported from anywhere: types left out, every import absolute.
 *
 * @param path the file as the user named it
 * @param file its absolute path
 * @throws UserError when TypeScript is not installed or cannot read the text.
 */
export async function javascriptOf(path: string, file: string, text: string): Promise<string> {
  const typescript = await loadTypescript(path);
  const { outputText, diagnostics = [] } = typescript.transpileModule(text, {
    fileName: file,
    reportDiagnostics: true,
    compilerOptions: { module: 'esnext', target: 'es2023' },
  });
  const [fault] = diagnostics;
  if (fault !== undefined) {
    const { messageText } = fault;
    const line = text.slice(0, fault.start ?? 0).split('\n').length;
    const what = oneLine(typeof messageText === 'string' ? messageText : messageText.messageText);
    throw new UserError(`policy ${path}:${line}: not valid TypeScript (${what}): mend this line`);
  }
  const { importedFiles } = typescript.preProcessFile(outputText, true, false);
  return withAbsoluteImports(outputText, importedFiles, file);
}

/** A tool of whoever writes policies in TypeScript, not a dependency of those who do not: named only when needed. */
async function loadTypescript(path: string): Promise<Transpiler> {
  const name: string = 'typescript';
  let module: unknown;
  try {
    module = await import(name);
  } catch {
    throw new UserError(
      `policy ${path}: needs the package typescript: run \`npm install typescript\`, or write the policy as .js or .mjs`,
    );
  }
  const transpiler: unknown = memberOf(module, 'default') ?? module;
  if (!isTranspiler(transpiler)) {
    throw new UserError(
      `policy ${path}: this version of the package typescript cannot transpile: install 5.9`,
    );
  }
  return transpiler;
}

function isTranspiler(value: unknown): value is Transpiler {
  return ['transpileModule', 'preProcessFile'].every((name) => typeof memberOf(value, name) === 'function');
}

function withAbsoluteImports(
  text: string,
  imports: readonly { readonly fileName: string; readonly pos: number }[],
  file: string,
): string {
  let result = text;
  // From the end, so that places before stay right.
  for (const { fileName, pos } of [...imports].sort((a, b) => b.pos - a.pos)) {
    const end = pos + fileName.length + 2;
    result = result.slice(0, pos) + JSON.stringify(absolute(fileName, file)) + result.slice(end);
  }
  return result;
}

function absolute(specifier: string, file: string): string {
  if (OURS.has(specifier)) return import.meta.resolve(specifier);
  if (/^\.{1,2}\//.test(specifier)) return pathToFileURL(resolve(dirname(file), specifier)).href;
  try {
    const found = createRequire(file).resolve(specifier);
    return found.startsWith('node:') || !/[\\/]/.test(found) ? specifier : pathToFileURL(found).href;
  } catch {
    // Node says so when it is imported.
    return specifier;
  }
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  const member: unknown = Reflect.get(value, name);
  return member;
}
