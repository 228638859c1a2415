import { existsSync, readFileSync } from 'node:fs';
import { freemem, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backendInfo } from '@waggle/native';
import { Absent, type Contender, startContender } from './contenders/protocol.js';
import { buildHnswlib } from './peers/build-hnswlib.js';
import { openScratch, removeScratch } from './scratch.js';

const contenderMain = fileURLToPath(new URL('./contenders/main.js', import.meta.url));
const peersFolder = fileURLToPath(new URL('../peers', import.meta.url));

export type PythonPeer =
  | 'faiss'
  | 'usearch'
  | 'numpy'
  | 'torch'
  | 'lightgbm'
  | 'xgboost'
  | 'statsforecast';
export type NodePeer = 'onnxruntime' | 'hnswlib';
export type PeerName = PythonPeer | NodePeer;

export const say = (text: string): void => void process.stderr.write(`${text}\n`);

function python(): string {
  const given = process.env['WAGGLE_BENCH_PYTHON'];
  if (given) return given;
  const own = fileURLToPath(new URL('../.venv/bin/python', import.meta.url));
  return existsSync(own) ? own : 'python3';
}

/** Bytes that can be used without pushing anything out. */
export function memoryAvailable(): number {
  try {
    const line = readFileSync('/proc/meminfo', 'utf8').match(/MemAvailable:\s+(\d+) kB/);
    if (line !== null) return Number(line[1]) * 1024;
  } catch {
    // Not Linux.
  }
  return freemem();
}

/** How busy the machine is before a suite; a warning, for a figure taken then is worth little. */
export function warnUnlessQuiet(): void {
  const [oneMinute = 0] = loadavg();
  if (oneMinute > 0.5) {
    say(
      `bench: the load average is ${oneMinute.toFixed(2)}: something else is running (or was, a minute ago). Ratios hold better than times; for figures to keep, wait until it is below 0.5.`,
    );
  }
}

/** Why no GPU is measured, where none is: somebody who came to measure one should not look for it in the figures. */
export function sayWithoutGpu(): void {
  const { available, rejected } = backendInfo();
  if (available.includes('cuda')) return;
  const why = rejected.find(({ name }) => name === 'cuda')?.reason ?? 'there is no plugin for one';
  say(`bench: no GPU is used, so the cases …/cuda are left out: ${why}`);
}

/**
 * What a suite works with: a folder for its data, the contenders that it started, and the record of those that could
 * not take part. Everything ends with {@link close}.
 */
export class BenchContext {
  readonly folder: string;
  /** Threads of our engine in a process of its own; peers get as many. */
  readonly threads: number;
  readonly #open = new Set<Contender>();
  readonly #absent = new Map<string, string>();

  constructor() {
    this.folder = openScratch('waggle-bench-');
    this.threads = backendInfo().threads;
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  /**
   * Our engine at one instruction set, or on the GPU. `oneCpu` binds the process to one processor (Linux), which
   * gives the engine one thread.
   */
  async ours(
    level: string = bestLevel(),
    options: { readonly oneCpu?: boolean } = {},
  ): Promise<Contender> {
    const env: Record<string, string> =
      level === 'cuda'
        ? { WAGGLE_BACKEND: 'cuda', WAGGLE_SIMD: 'auto' }
        : { WAGGLE_BACKEND: 'cpu', WAGGLE_SIMD: level };
    return this.#start('ours', `waggle ${level}`, options.oneCpu === true, {
      command: process.execPath,
      args: ['--max-old-space-size=8192', contenderMain, 'ours'],
      env,
    });
  }

  /** A peer, or nothing, said aloud once, where it cannot run here. */
  async peer(
    name: PeerName,
    options: { readonly oneCpu?: boolean; readonly env?: Record<string, string> } = {},
  ): Promise<Contender | undefined> {
    if (this.#absent.has(name)) return undefined;
    const oneCpu = options.oneCpu === true;
    const threads = String(oneCpu ? 1 : this.threads);
    try {
      if (name === 'hnswlib') buildHnswlib(say);
      if (name === 'onnxruntime' || name === 'hnswlib') {
        return await this.#start(name, name, oneCpu, {
          command: process.execPath,
          args: ['--max-old-space-size=8192', contenderMain, name, threads],
          env: { WAGGLE_BACKEND: 'cpu', ...options.env },
        });
      }
      const isGbdt = name === 'lightgbm' || name === 'xgboost';
      return await this.#start(name, name, oneCpu, {
        command: python(),
        args: [join(peersFolder, `${isGbdt ? 'gbdt' : name}_peer.py`)],
        env: {
          WAGGLE_BENCH_THREADS: threads,
          OMP_NUM_THREADS: threads,
          OPENBLAS_NUM_THREADS: threads,
          MKL_NUM_THREADS: threads,
          PYTHONDONTWRITEBYTECODE: '1',
          ...(isGbdt ? { WAGGLE_BENCH_GBDT: name } : {}),
          ...options.env,
        },
      });
    } catch (error) {
      if (!(error instanceof Absent)) throw error;
      this.#absent.set(name, error.message);
      say(`bench: peer ${name} SKIPPED: ${error.message}`);
      return undefined;
    }
  }

  async end(...contenders: readonly (Contender | undefined)[]): Promise<void> {
    for (const contender of contenders) {
      if (contender === undefined) continue;
      this.#open.delete(contender);
      await contender.close();
    }
  }

  async close(): Promise<void> {
    await this.end(...this.#open);
    removeScratch(this.folder);
  }

  async #start(
    role: string,
    label: string,
    oneCpu: boolean,
    spec: { command: string; args: readonly string[]; env: Readonly<Record<string, string>> },
  ): Promise<Contender> {
    const bound = oneCpu && process.platform === 'linux';
    const contender = await startContender({
      command: bound ? 'taskset' : spec.command,
      args: bound ? ['-c', '0', spec.command, ...spec.args] : spec.args,
      env: spec.env,
      label,
    });
    say(
      `bench: ${contender.hello.name} ${contender.hello.version}, ${contender.hello.threads} thread(s)${role === 'ours' ? `, ${contender.hello.gpu ?? contender.hello.simd ?? ''}` : ''}`,
    );
    this.#open.add(contender);
    return contender;
  }
}

/** The instruction sets this machine can be forced to, slowest first, then the GPU where there is one. */
export function levels(): string[] {
  const { available } = backendInfo();
  const cpu = ['scalar', 'neon', 'avx2', 'avx512'].filter(
    (l) => l === 'scalar' || available.includes(l),
  );
  return available.includes('cuda') ? [...cpu, 'cuda'] : cpu;
}

/** The widest instruction set of the processor. */
export function bestLevel(): string {
  return levels()
    .filter((l) => l !== 'cuda')
    .at(-1)!;
}
