// The C++ lint, for npm run check and, in depth, for npm run check:slow. native/.clang-tidy lists the checks.
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { gather } from './processes.mjs';
import { root } from './setup.mjs';

/**
 * Resolves with { ok, output }.
 * @param options.deep follow paths as far as the analyzer goes by itself, which takes twice as long
 */
export function clangTidy({ deep = false } = {}) {
  // A fifth of the states that the analyzer visits by itself: half the time, the same findings so far.
  const limit = ['-Xclang', '-analyzer-config', '-Xclang', 'max-nodes=50000'];
  const depth = deep ? '' : limit.map((part) => `--extra-arg=${part}`).join(' ');
  // Kernels compiled per instruction set are left to the conformance cases.
  const command = `cmake -S . -B build/tidy -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DWAGGLE_TESTS=OFF -DWAGGLE_CUDA=OFF >/dev/null &&
     git ls-files 'src/*.cpp' 'cpu/*.cpp' | grep -v '^cpu/simd/' | xargs -P ${availableParallelism()} -n 1 clang-tidy -p build/tidy --quiet ${depth}`;
  return gather('sh', ['-c', command], { cwd: join(root, 'native') });
}
