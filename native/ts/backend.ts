import { execFile } from 'node:child_process';
import type { Logger } from '@waggle/core';
import { addon, addonPath, type RawBackendInfo } from './loader.js';

export type BackendName = 'cpu' | 'cuda';
export type SimdName = 'scalar' | 'avx2' | 'avx512' | 'neon';

export interface BackendInfo {
  readonly chosen: { readonly backend: BackendName; readonly simd: SimdName };
  /** Instruction sets and accelerators this process could use. */
  readonly available: readonly string[];
  /** What was looked at and left out, and why. */
  readonly rejected: readonly { readonly name: string; readonly reason: string }[];
  /** Threads of the engine's own pool. */
  readonly threads: number;
  readonly requested: { readonly backend: string; readonly simd: string };
  /**
   * The accelerator in use: its description, what it can do (the rest is the processor's), its run-time libraries beyond
   * the driver, the plugin file.
   */
  readonly device?: {
    readonly name: string;
    readonly operations: readonly string[];
    readonly libraries: string;
    readonly plugin: string;
  };
}

function describe(raw: RawBackendInfo): BackendInfo {
  return {
    chosen: { backend: raw.backend, simd: raw.simd },
    available: raw.available,
    rejected: raw.rejected,
    threads: raw.threads,
    requested: { backend: raw.requestedBackend, simd: raw.requestedSimd },
    ...(raw.device === ''
      ? {}
      : {
          device: {
            name: raw.device,
            operations: raw.deviceOperations,
            libraries: raw.deviceLibraries,
            plugin: raw.pluginPath,
          },
        }),
  };
}

/**
 * What this process computes with, decided on first use from WAGGLE_BACKEND, WAGGLE_SIMD and the machine.
 * @throws WAGGLE_NATIVE_LOAD; WAGGLE_NATIVE_BACKEND when a forced choice cannot be had
 */
export function backendInfo(): BackendInfo {
  return describe(addon().backendInfo());
}

/** One line: what was chosen, and what was rejected and why. */
export function logBackend(logger: Logger): void {
  const info = backendInfo();
  logger.info(
    { chosen: info.chosen, threads: info.threads, rejected: info.rejected, device: info.device },
    `native engine: ${info.chosen.backend}, ${info.chosen.simd}, ${info.threads} threads`,
  );
}

export type ChildProbe =
  | { readonly ok: true; readonly device: string }
  | { readonly ok: false; readonly reason: string };

/**
 * Tries an accelerator in a child process first, so that a broken driver costs a log line and not the server.
 * Never rejects. Takes as long as the driver needs to start, up to `timeoutMs`.
 */
export function probeInChild(
  backend: Exclude<BackendName, 'cpu'> = 'cuda',
  options: { readonly timeoutMs?: number } = {},
): Promise<ChildProbe> {
  const script =
    'const a=require(process.argv[1]);a.start();process.stdout.write(JSON.stringify(a.backendInfo()))';
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['-e', script, addonPath],
      {
        env: { ...process.env, WAGGLE_BACKEND: backend, WAGGLE_SIMD: 'auto' },
        timeout: options.timeoutMs ?? 30_000,
        windowsHide: true,
      },
      (error, stdout, stderr) => {
        if (error === null) {
          resolve({ ok: true, device: (JSON.parse(stdout) as RawBackendInfo).device });
          return;
        }
        const line = stderr.split('\n').find((text) => text.includes('Error:'));
        resolve({ ok: false, reason: line?.replace(/^.*Error: /, '') ?? error.message });
      },
    );
  });
}
