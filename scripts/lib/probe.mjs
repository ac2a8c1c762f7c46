// Looks for a WebGPU adapter and prints what it finds as one line of JSON. A process of its own: a broken driver may
// take the process that loads it down.

/** @returns {Promise<import('./machine.d.mts').Probe>} */
async function probe() {
  let gpu;
  try {
    const webgpu = await import('webgpu');
    Object.assign(globalThis, webgpu.globals);
    gpu = webgpu.create(['enable-dawn-features=allow_unsafe_apis']);
  } catch (error) {
    return { found: false, loadError: String(error.message).split('\n')[0] };
  }
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null) return { found: false, loadError: null };
  return { found: true, description: adapter.info.description || adapter.info.device, loadError: null };
}

const line = `${JSON.stringify(await probe())}\n`;
// Leaves without waiting for the handles the library keeps.
process.stdout.write(line, () => process.exit(0));
