import { defineConfig } from 'vitest/config';

// Tests import the built code (`#src/*` → dist/*), so what is tested is what runs, worker threads included.
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // A GPU device lives in a process of its own: worker threads of a test runner and Dawn do not mix.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    server: { deps: { external: [/\/dist\//] } },
  },
});
