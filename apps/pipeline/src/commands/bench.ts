import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandContext } from '../context.js';
import { pipelineError } from '../errors.js';

/** `waggle bench`: runs the benchmarks package in a process of its own. */
export async function benchCommand(
  context: CommandContext,
  options: Record<string, unknown>,
  suites: readonly string[],
): Promise<number> {
  const entry = join(context.projectRoot, 'benchmarks', 'dist', 'index.js');
  if (!existsSync(entry)) {
    throw pipelineError('WAGGLE_BENCH_FAILED', 'the benchmarks are not built', {
      remedy:
        'Run `npm run setup` in a checkout of the project; installed packages carry no benchmarks.',
    });
  }
  const args = [...suites, '--seed', String(options['seed'])];
  if (options['quick'] === true) args.push('--quick');
  const out = options['out'] ?? (typeof options['json'] === 'string' ? options['json'] : undefined);
  if (out !== undefined) args.push('--json', String(out));
  const child = spawn(process.execPath, [entry, ...args], { stdio: 'inherit' });
  context.signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true });
  return new Promise((resolve, reject) => {
    child.once('error', (cause) =>
      reject(pipelineError('WAGGLE_BENCH_FAILED', cause.message, { cause })),
    );
    child.once('exit', (code) => resolve(code ?? 1));
  });
}
