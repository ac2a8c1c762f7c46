import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { AdapterSummary } from './device.js';
import { parseExamination, type Examination } from './examination.js';

/** A limit of the adapter. Values are in the limit's own unit; see the WebGPU specification. */
export interface LimitCheck {
  readonly name: string;
  readonly value: number;
  /** The least that Offbeat's kernels are written for; null where what is needed depends on the model. */
  readonly needed: number | null;
}

export interface FeatureCheck {
  readonly name: string;
  readonly present: boolean;
  /** False when Offbeat works without it. */
  readonly needed: boolean;
  readonly use: string;
}

/** What `offbeat doctor` tells. */
export interface Diagnosis {
  /** True when a device opens, computes the right numbers and offers all that is needed. */
  readonly works: boolean;
  readonly node: string;
  /** Operating system and processor, such as `linux-x64`. */
  readonly platform: string;
  /** Version of the `webgpu` package; null when it is not installed. */
  readonly webgpu: string | null;
  readonly adapter: AdapterSummary | null;
  /** `vulkan`, `metal`, `d3d12`…; null when unknown. */
  readonly backend: string | null;
  readonly limits: readonly LimitCheck[];
  readonly features: readonly FeatureCheck[];
  /** The step in which the device's timestamps advance; null without timestamps. */
  readonly timestampStepNs: number | null;
  /** What keeps a run from starting. Empty when `works`. */
  readonly problems: readonly string[];
  /** The one command that mends the first problem, where there is one. */
  readonly command: string | null;
  /** What a run works without, and how it shows. */
  readonly notes: readonly string[];
}

const EXAMINE_TIMEOUT_MS = 60_000;
const EXPLAIN_TIMEOUT_MS = 120_000;
/** Above this the device's clock is rounded on purpose, and short kernels seem to take no time. */
const TIMESTAMP_STEP_NS_MAX = 10_000;
const STRAY_NVIDIA_MANIFEST = '/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json';

const LIMITS: readonly (readonly [name: string, needed: number | null])[] = [
  ['maxBufferSize', null],
  ['maxStorageBufferBindingSize', null],
  ['maxStorageBuffersPerShaderStage', 8],
  ['maxComputeInvocationsPerWorkgroup', 256],
  ['maxComputeWorkgroupSizeX', 256],
  ['maxComputeWorkgroupStorageSize', 16_384],
  ['maxComputeWorkgroupsPerDimension', 65_535],
  ['maxImmediateSize', 64],
];

const FEATURES = [
  { name: 'shader-f16', needed: false, use: 'half-precision storage; the kernels of today use float32' },
  { name: 'subgroups', needed: false, use: 'faster reductions; the kernels of today use workgroup memory' },
  { name: 'timestamp-query', needed: false, use: "kernel times by the device's own clock" },
] as const;
const IMMEDIATES = {
  name: 'immediate_address_space',
  needed: true,
  use: 'parameters of every kernel (WGSL)',
} as const;

/** How a child process ended and what it printed until then. */
interface Ended {
  readonly stdout: string;
  /** Null when it ended well. */
  readonly failure: string | null;
}

function runNode(script: URL, timeoutMs: number): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { timeout: timeoutMs, killSignal: 'SIGKILL' } as const;
    execFile(process.execPath, [fileURLToPath(script)], options, (error, stdout) => {
      if (error === null) resolve({ stdout, failure: null });
      else if (error.killed === true) resolve({ stdout, failure: `no answer within ${timeoutMs / 1000} s` });
      else resolve({ stdout, failure: `the process died (${error.signal ?? `exit code ${error.code}`})` });
    });
  });
}

function checkLimits(values: Readonly<Record<string, number>>): LimitCheck[] {
  return LIMITS.map(([name, needed]) => ({ name, value: values[name] ?? 0, needed }));
}

function checkFeatures({ features = [], languageFeatures = [] }: Examination): FeatureCheck[] {
  return [
    ...FEATURES.map((feature) => ({ ...feature, present: features.includes(feature.name) })),
    { ...IMMEDIATES, present: languageFeatures.includes(IMMEDIATES.name) },
  ];
}

/** What stands in the way of a run, for an adapter that was found; `failure` is how the examination ended early. */
function findProblems(found: Examination, failure: string | null): string[] {
  const problems: string[] = [];
  if (found.deviceError === undefined) problems.push(`opening a device: ${failure ?? 'not reached'}`);
  else if (found.deviceError !== null) problems.push(found.deviceError);
  else if (found.computeError === undefined) problems.push(`running a shader: ${failure ?? 'not reached'}`);
  else if (found.computeError !== null) problems.push(`running a shader: ${found.computeError}`);
  else if (failure !== null) problems.push(`reading timestamps: ${failure}`);
  for (const { name, value, needed } of checkLimits(found.limits ?? {})) {
    if (needed !== null && value < needed)
      problems.push(`the adapter's ${name} is ${value}, ${needed} is needed`);
  }
  for (const { name, present, needed } of checkFeatures(found)) {
    if (needed && !present) problems.push(`${name} is missing: a newer \`webgpu\` package is needed`);
  }
  return problems;
}

function findNotes(found: Examination, exists: (path: string) => boolean): string[] {
  const notes: string[] = [];
  const step = found.timestampStepNs;
  if (found.adapter?.software === true) {
    notes.push('this adapter runs on the processor: results are labelled as software');
    if (exists(STRAY_NVIDIA_MANIFEST)) {
      notes.push(
        `an NVIDIA driver lies where Vulkan does not look: export VK_DRIVER_FILES=${STRAY_NVIDIA_MANIFEST}`,
      );
    } else if (exists('/dev/nvidia0')) {
      notes.push(
        'an NVIDIA GPU is here without its Vulkan driver; a container needs NVIDIA_DRIVER_CAPABILITIES=all',
      );
    }
  }
  if (found.features?.includes('timestamp-query') !== true)
    notes.push('no timestamp-query: kernel times come from the host clock');
  else if (step === null) notes.push('timestamps do not advance: kernel times come out as zero');
  else if (step !== undefined && step > TIMESTAMP_STEP_NS_MAX) {
    notes.push(`timestamps are rounded to ${step} ns: times of short kernels mean nothing`);
  }
  return notes;
}

/** The facts of the machine that are not the adapter's. */
type Setting = Pick<Diagnosis, 'node' | 'platform' | 'webgpu'>;

/**
 * Draws the conclusions from an examination that found an adapter.
 *
 * @param failure how the examination ended early; null when it ended well
 * @param exists whether a file exists
 */
export function concludeDiagnosis(
  setting: Setting,
  found: Examination,
  failure: string | null,
  exists: (path: string) => boolean,
): Diagnosis {
  const problems = findProblems(found, failure);
  return {
    works: problems.length === 0,
    ...setting,
    adapter: found.adapter ?? null,
    backend: found.backend ?? null,
    limits: checkLimits(found.limits ?? {}),
    features: checkFeatures(found),
    timestampStepNs: found.timestampStepNs ?? null,
    problems,
    command: null,
    notes: findNotes(found, exists),
  };
}

const explanation = z.object({ why: z.string(), command: z.string().nullable() }).nullable();

/** What keeps an adapter from being found: set-up knows, and must know it before anything is built. */
async function explainMissing(setting: Setting, failure: string | null): Promise<Diagnosis> {
  const script = new URL('../../scripts/lib/explain.mjs', import.meta.url);
  const { stdout } = await runNode(script, EXPLAIN_TIMEOUT_MS);
  const told = stdout === '' ? null : explanation.parse(JSON.parse(stdout));
  const why = told?.why ?? `the search for an adapter did not end well: ${failure ?? 'no adapter'}`;
  const nothing = {
    adapter: null,
    backend: null,
    limits: [],
    features: [],
    timestampStepNs: null,
    notes: [],
  };
  return { works: false, ...setting, ...nothing, problems: [why], command: told?.command ?? null };
}

function webgpuVersion(): string | null {
  const path = new URL('../../node_modules/webgpu/package.json', import.meta.url);
  if (!existsSync(path)) return null;
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(path, 'utf8'))).version;
}

/**
 * Examines the adapter a run would use, in child processes: a broken driver ends them, never the caller.
 * Takes about half a second; changes nothing.
 */
export async function diagnose(): Promise<Diagnosis> {
  const setting = {
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    webgpu: webgpuVersion(),
  };
  const { stdout, failure } = await runNode(new URL('./examine.js', import.meta.url), EXAMINE_TIMEOUT_MS);
  const found = parseExamination(stdout);
  if (found.adapter === undefined || found.adapter === null) return explainMissing(setting, failure);
  return concludeDiagnosis(setting, found, failure, existsSync);
}
