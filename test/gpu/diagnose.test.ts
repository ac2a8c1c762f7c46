import { afterEach, expect, test } from 'vitest';
import { concludeDiagnosis, diagnose } from '#src/gpu/diagnose.js';
import { parseExamination, timestampStepNs, type Examination } from '#src/gpu/examination.js';
import { formatDiagnosis } from '#src/cli/doctor.js';

const SETTING = { node: 'v22.0.0', platform: 'linux-x64', webgpu: '0.6.2' };
const ADAPTER = { vendor: 'v', architecture: 'a', device: 'd', description: 'a card', software: false };
const LIMITS = {
  maxBufferSize: 2 ** 31,
  maxStorageBufferBindingSize: 2 ** 27,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupStorageSize: 16_384,
  maxComputeWorkgroupsPerDimension: 65_535,
  maxImmediateSize: 64,
};
const GOOD: Examination = {
  adapter: ADAPTER,
  backend: 'vulkan',
  limits: LIMITS,
  features: ['shader-f16', 'subgroups', 'timestamp-query'],
  languageFeatures: ['immediate_address_space'],
  deviceError: null,
  computeError: null,
  timestampStepNs: 32,
};

function conclude(changes: Examination, failure: string | null = null, files: string[] = []) {
  return concludeDiagnosis(SETTING, { ...GOOD, ...changes }, failure, (path) => files.includes(path));
}

const ownDrivers = process.env['VK_DRIVER_FILES'];
afterEach(() => {
  if (ownDrivers === undefined) delete process.env['VK_DRIVER_FILES'];
  else process.env['VK_DRIVER_FILES'] = ownDrivers;
});

test('the adapter of this machine opens, computes the right numbers and can be printed', async () => {
  const diagnosis = await diagnose();
  expect(diagnosis.problems).toEqual([]);
  expect(diagnosis.works).toBe(true);
  expect(diagnosis.backend).not.toBeNull();
  for (const { value, needed } of diagnosis.limits) expect(value).toBeGreaterThanOrEqual(needed ?? 1);
  const text = formatDiagnosis(diagnosis);
  expect(text).toContain(diagnosis.adapter?.description);
  expect(text.includes('labelled as software')).toBe(diagnosis.adapter?.software);
});

test.runIf(process.platform === 'linux')(
  'drivers hidden by the environment are named with the remedy',
  async () => {
    process.env['VK_DRIVER_FILES'] = '/nowhere/icd.json';
    const diagnosis = await diagnose();
    expect(diagnosis).toMatchObject({ works: false, adapter: null, command: 'unset VK_DRIVER_FILES' });
    expect(diagnosis.problems[0]).toContain('VK_DRIVER_FILES=/nowhere/icd.json');
    expect(formatDiagnosis(diagnosis)).toContain('Mend it with: unset VK_DRIVER_FILES');
  },
);

test('a good adapter has neither problems nor notes', () => {
  expect(conclude({})).toMatchObject({ works: true, problems: [], notes: [] });
});

test('each thing that stops a run is a problem of its own', () => {
  const problem = (changes: Examination) => {
    const diagnosis = conclude(changes);
    expect(diagnosis.works).toBe(false);
    return diagnosis.problems.join('\n');
  };
  expect(problem({ deviceError: 'refused' })).toContain('refused');
  expect(problem({ computeError: 'number 3 of 1000 came back as 0, not 1.5' })).toContain('came back as 0');
  expect(problem({ languageFeatures: [] })).toContain('immediate_address_space is missing');
  const limits = { ...LIMITS, maxStorageBuffersPerShaderStage: 4 };
  expect(problem({ limits })).toContain('maxStorageBuffersPerShaderStage is 4, 8 is needed');
  expect(formatDiagnosis(conclude({ limits }))).toContain('TOO SMALL, needs 8');
});

test('a driver that takes the process down is reported with the step it reached', () => {
  const { deviceError: _device, computeError: _compute, timestampStepNs: _step, ...adapterOnly } = GOOD;
  const died = 'the process died (SIGSEGV)';
  const none = () => false;
  expect(concludeDiagnosis(SETTING, adapterOnly, died, none).problems).toEqual([`opening a device: ${died}`]);
  const opened = { ...adapterOnly, deviceError: null };
  expect(concludeDiagnosis(SETTING, opened, died, none).problems).toEqual([`running a shader: ${died}`]);
  const computed = { ...opened, computeError: null };
  expect(concludeDiagnosis(SETTING, computed, died, none).problems).toEqual([`reading timestamps: ${died}`]);
});

test('what a run works without is noted', () => {
  expect(conclude({ features: ['subgroups'] }).notes).toEqual([
    expect.stringContaining('no timestamp-query'),
  ]);
  expect(conclude({ timestampStepNs: 65_536 }).notes).toEqual([
    expect.stringContaining('rounded to 65536 ns'),
  ]);
  expect(conclude({ timestampStepNs: null }).notes).toEqual([expect.stringContaining('do not advance')]);
  const software = { adapter: { ...ADAPTER, software: true } };
  expect(conclude(software).notes).toEqual([expect.stringContaining('labelled as software')]);
  expect(conclude(software, null, ['/dev/nvidia0']).notes[1]).toContain('without its Vulkan driver');
});

test('findings are put together line by line, and a line that was cut off is left out', () => {
  const text = '{"adapter":null}\n{"backend":"vulkan"}\n{"deviceErr';
  expect(parseExamination(text)).toEqual({ adapter: null, backend: 'vulkan' });
  expect(parseExamination('')).toEqual({});
  expect(() => parseExamination('{"limits":{"maxBufferSize":"much"}}\n')).toThrow();
});

test('the timestamp step is what divides all differences', () => {
  expect(timestampStepNs(BigUint64Array.of(1_000_032n, 1_000_064n, 1_000_160n))).toBe(32);
  expect(timestampStepNs(BigUint64Array.of(65_536n * 9n, 65_536n * 4n, 65_536n * 7n))).toBe(65_536);
  expect(timestampStepNs(BigUint64Array.of(5n, 5n, 5n))).toBeNull();
  expect(timestampStepNs(new BigUint64Array(0))).toBeNull();
});
