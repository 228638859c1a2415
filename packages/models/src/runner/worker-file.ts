import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { modelsError } from '../errors.js';

/**
 * Workers run compiled JavaScript. From `dist` the file lies beside this one; from `src` (tests, which read
 * TypeScript) it is the same file in `dist`.
 * @throws WAGGLE_RUNNER_WORKER_MISSING when the package has not been built
 */
export function compiledFile(relative: string, from: string): URL {
  const beside = new URL(relative, from);
  if (existsSync(beside)) return beside;
  const built = new URL(beside.href.replace(/\/src\/(?!.*\/src\/)/, '/dist/'));
  if (existsSync(built)) return built;
  throw modelsError('WAGGLE_RUNNER_WORKER_MISSING', `${fileURLToPath(built)} does not exist`, {
    details: { path: fileURLToPath(built) },
  });
}
