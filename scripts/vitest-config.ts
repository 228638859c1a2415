import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/**
 * One configuration for every package: workspace imports read TypeScript sources
 * (`waggle-source`), each test file gets its own process, results are also written as JSON
 * so that `npm test` can count them.
 */
export function defineWaggleConfig(configUrl: string) {
  const root = fileURLToPath(new URL('.', configUrl));
  const fastCheck = fileURLToPath(new URL('fast-check.ts', import.meta.url));
  return defineConfig({
    root,
    resolve: {
      alias: [{ find: /^fast-check$/, replacement: fastCheck }],
      conditions: ['waggle-source', 'node', 'import', 'module', 'default'],
    },
    ssr: { resolve: { conditions: ['waggle-source', 'node', 'import', 'module', 'default'] } },
    test: {
      include: ['test/**/*.test.ts'],
      passWithNoTests: !existsSync(`${root}/test`),
      pool: 'forks',
      isolate: true,
      maxWorkers: 2,
      // Against what hangs, not what is slow: a busy machine takes six times as long.
      testTimeout: 180_000,
      hookTimeout: 240_000,
      reporters: ['default', 'json'],
      outputFile: { json: '.vitest/results.json' },
    },
  });
}
