import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { backendInfo } from '@waggle/native';
import { serve } from './protocol.js';

/** One contender as a process: `main.js ours|onnxruntime|hnswlib THREADS`. */
const [role, threadsText] = process.argv.slice(2);
const threads = Number(threadsText ?? '1');

/** Packages need not export their package.json; it lies above the entry point. */
function versionOf(name: string): string {
  const require = createRequire(import.meta.url);
  for (let at = dirname(require.resolve(name)); at !== dirname(at); at = dirname(at)) {
    const file = join(at, 'package.json');
    if (!existsSync(file)) continue;
    const read = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string };
    if (read.name === name && read.version !== undefined) return read.version;
  }
  throw new Error(`no package.json of ${name}`);
}

switch (role) {
  case 'ours': {
    const info = backendInfo();
    const { ourHandlers } = await import('./ours.js');
    await serve(
      {
        name: 'waggle',
        version: versionOf('@waggle/native'),
        threads: info.threads,
        simd: info.chosen.simd,
        ...(info.device === undefined || info.chosen.backend === 'cpu'
          ? {}
          : { gpu: info.device.name }),
      },
      ourHandlers(),
    );
    break;
  }
  case 'onnxruntime': {
    const { onnxHandlers } = await import('./onnxruntime.js');
    await serve(
      { name: 'onnxruntime-node', version: versionOf('onnxruntime-node'), threads },
      onnxHandlers(threads),
    );
    break;
  }
  case 'hnswlib': {
    const { hnswHandlers } = await import('./hnswlib.js');
    try {
      const handlers = await hnswHandlers();
      await serve(
        { name: 'hnswlib-node', version: versionOf('hnswlib-node'), threads: 1 },
        handlers,
      );
    } catch (error) {
      await serve({ skip: error instanceof Error ? error.message : String(error) }, {});
    }
    break;
  }
  default:
    process.stderr.write('usage: main.js ours|onnxruntime|hnswlib THREADS\n');
    process.exitCode = 2;
}
