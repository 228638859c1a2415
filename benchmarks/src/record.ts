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
export type Measurement = Omit<BenchRecord, 'machine' | 'commit'>;

export interface SuiteOptions {
  readonly quick: boolean;
  readonly seed: number;
}

export function machineFacts(): MachineFacts {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    simd: backendInfo().chosen.simd,
    cores: processors.length,
    memGiB: Math.round(totalmem() / 2 ** 30),
    node: process.versions.node,
  };
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

/** Median and interquartile range (linear interpolation between order statistics). */
export function summarize(values: readonly number[]): { value: number; runs: number; iqr: number } {
  const sorted = [...values].sort((a, b) => a - b);
  const quantile = (p: number): number => {
    const at = (sorted.length - 1) * p;
    const low = Math.floor(at);
    const high = Math.ceil(at);
    return sorted[low]! + (sorted[high]! - sorted[low]!) * (at - low);
  };
  return { value: quantile(0.5), runs: sorted.length, iqr: quantile(0.75) - quantile(0.25) };
}
