import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The folder of the emulated plugin, from the C++ tests' build; without one, the GPU face is tested for its refusals alone. */
export const emulated = ['.', 'preset/dev', 'preset/release']
  .map((build) =>
    fileURLToPath(new URL(`../../build/${build}/test/cuda_emulator`, import.meta.url)),
  )
  .find((directory) => existsSync(`${directory}/libwaggle_backend_cuda.so`));
if (emulated === undefined) {
  console.warn('SKIP: no emulated plugin; run `npm run test:cpp -w @waggle/native` first');
}

/** What a process that chooses the plugin imports. */
export const built = fileURLToPath(new URL('../../dist/index.js', import.meta.url));
