import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Logger } from '@waggle/core';
import { addon, addonPath, type RawBackendInfo } from './loader.js';

const execFileAsync = promisify(execFile);

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

/** Before the child's answer: drivers and preloaded modules may print, too. */
const MARKER = 'waggle-backend-info:';

const PROBE = `const a=require(process.argv[1]);a.start();process.stdout.write(\`\\n${MARKER}\${JSON.stringify(a.backendInfo())}\\n\`)`;

/**
 * Tries an accelerator in a child process first, so that a broken driver costs a log line and not the server.
 * Never rejects. Takes as long as the driver needs to start, up to `timeoutMs` (default 30,000).
 */
export async function probeInChild(
  backend: Exclude<BackendName, 'cpu'> = 'cuda',
  options: { readonly timeoutMs?: number | undefined } = {},
): Promise<ChildProbe> {
  try {
    const { stdout } = await execFileAsync(process.execPath, ['-e', PROBE, addonPath], {
      env: { ...process.env, WAGGLE_BACKEND: backend, WAGGLE_SIMD: 'auto' },
      timeout: options.timeoutMs ?? 30_000,
      windowsHide: true,
    });
    const answer = stdout.split('\n').findLast((text) => text.startsWith(MARKER));
    if (answer === undefined) return { ok: false, reason: 'the child ended without an answer' };
    const info = JSON.parse(answer.slice(MARKER.length)) as RawBackendInfo;
    return { ok: true, device: info.device };
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    const line = stderr?.split('\n').find((text) => text.includes('Error:'));
    return { ok: false, reason: line?.replace(/^.*Error: /, '') ?? message };
  }
}
