import { execFileSync } from 'node:child_process';
import { cpus, totalmem } from 'node:os';
import { backendInfo } from '@waggle/native';

export interface Peer {
  readonly name: string;
  readonly version: string;
  readonly value: number;
}

/** One measured figure. `ratio > 1` always means Waggle is ahead; `fractionOfLimit` is 1 at the limit. */
export interface BenchRecord {
  readonly suite: string;
  readonly case: string;
  readonly metric: string;
  readonly unit: string;
  /** Median of `runs` runs. */
  readonly value: number;
  readonly better: 'higher' | 'lower';
  readonly runs: number;
  /** Interquartile range over the runs. */
  readonly iqr: number;
  readonly peer?: Peer;
  readonly ratio?: number;
  readonly limit?: { readonly name: string; readonly value: number };
  readonly fractionOfLimit?: number;
  readonly machine: MachineFacts;
  readonly commit: string;
  readonly seed: number;
}

export interface MachineFacts {
  readonly cpu: string;
  readonly simd: string;
  readonly cores: number;
  readonly memGiB: number;
  readonly gpu?: string;
  readonly node: string;
}

/** What a suite returns; the runner adds machine and commit. */
export type Measurement = Omit<BenchRecord, 'machine' | 'commit'> & {
  /** Where it was not measured with what this process chooses by itself. */
  readonly on?: { readonly simd?: string; readonly gpu?: string };
};

export interface SuiteOptions {
  readonly quick: boolean;
  /** Everything up to what memory holds; takes as long as it takes. */
  readonly full: boolean;
  readonly seed: number;
  /** Cases asked for, each with those below it; all when empty. */
  readonly only: readonly string[];
  /** Hears of each figure as soon as it is there. */
  readonly onRecord?: (record: Measurement) => void;
}

/** Collects what a suite measures, and says it as it comes. */
export class Recorder {
  readonly records: Measurement[] = [];
  readonly #onRecord: ((record: Measurement) => void) | undefined;

  constructor(options: SuiteOptions) {
    this.#onRecord = options.onRecord;
  }

  push(...records: readonly Measurement[]): void {
    for (const record of records) {
      this.records.push(record);
      this.#onRecord?.(record);
    }
  }
}

/** Whether `id` is `of` or lies below it: `f32/q1` is above `f32/q1/n10k`, not above `f32/q1024`. */
const within = (id: string, of: string): boolean => id === of || id.startsWith(`${of}/`);

type Asked = Pick<SuiteOptions, 'only'>;

/** Whether a case was asked for, by itself or with all below something above it. */
export function wanted({ only }: Asked, id: string): boolean {
  return only.length === 0 || only.some((asked) => within(id, asked));
}

/** Whether one of these cases, or something below one of them, was asked for. */
export function touched({ only }: Asked, ...cases: readonly string[]): boolean {
  return (
    only.length === 0 ||
    cases.some((id) => only.some((asked) => within(id, asked) || within(asked, id)))
  );
}

export function machineFacts(): MachineFacts {
  const processors = cpus();
  const { device } = backendInfo();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    simd: backendInfo().chosen.simd,
    cores: processors.length,
    memGiB: Math.round(totalmem() / 2 ** 30),
    ...(device === undefined ? {} : { gpu: device.name }),
    node: process.versions.node,
  };
}

const isObject = (x: unknown): x is Record<string, unknown> =>
  typeof x === 'object' && x !== null && !Array.isArray(x);

/**
 * Checks what was read from a result file.
 * @throws Error naming the field that is missing or wrong
 */
export function parseRecords(value: unknown, where: string): BenchRecord[] {
  if (!Array.isArray(value)) throw new Error(`${where}: not an array of records`);
  return value.map((record: unknown, i) => {
    const at = `${where}: record ${i}`;
    const need = (holder: Record<string, unknown>, name: string, type: string): void => {
      if (typeof holder[name] !== type) throw new Error(`${at}: ${name} is not a ${type}`);
    };
    if (!isObject(record)) throw new Error(`${at} is not an object`);
    for (const name of ['suite', 'case', 'metric', 'unit', 'commit']) need(record, name, 'string');
    for (const name of ['value', 'runs', 'iqr', 'seed']) need(record, name, 'number');
    if (record['better'] !== 'higher' && record['better'] !== 'lower') {
      throw new Error(`${at}: better is neither higher nor lower`);
    }
    const { machine, peer, limit } = record;
    if (!isObject(machine)) throw new Error(`${at}: machine is not an object`);
    for (const name of ['cpu', 'simd', 'node']) need(machine, name, 'string');
    for (const name of ['cores', 'memGiB']) need(machine, name, 'number');
    if (peer !== undefined) {
      if (!isObject(peer)) throw new Error(`${at}: peer is not an object`);
      for (const name of ['name', 'version']) need(peer, name, 'string');
      need(peer, 'value', 'number');
      need(record, 'ratio', 'number');
    }
    if (limit !== undefined) {
      if (!isObject(limit)) throw new Error(`${at}: limit is not an object`);
      need(limit, 'name', 'string');
      need(limit, 'value', 'number');
      need(record, 'fractionOfLimit', 'number');
    }
    return record as unknown as BenchRecord;
  });
}

export function currentCommit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short=12', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown';
  }
}

export { summarize } from './statistics.js';
