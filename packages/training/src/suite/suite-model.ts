import type { StringColumn } from '@waggle/core';
import type { ModelCard } from './model-card.js';

/** A trained model of the suite as the registry keeps it. */
export interface SuiteModel {
  readonly name: string;
  /** File name → content: what serves or reports read, and its ONNX form. */
  readonly artifacts: Readonly<Record<string, Uint8Array>>;
  readonly card: ModelCard;
  /** Of the features or keys that it reads. */
  readonly fingerprint: string;
  readonly metrics: Readonly<Record<string, number | null>>;
}

export const jsonBytes = (value: unknown): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(value));

export const isoOrNull = (ms: number): string | null =>
  Number.isFinite(ms) ? new Date(ms).toISOString() : null;

/** When the entity of each of the given rows was first decided on in the whole dataset. */
export function firstSeen(
  entity: StringColumn,
  decisionTsMs: Float64Array,
  rows: Uint32Array,
): Float64Array {
  const first = new Map<number, number>();
  entity.codes.forEach((code, i) => {
    first.set(code, Math.min(first.get(code) ?? Number.POSITIVE_INFINITY, decisionTsMs[i]!));
  });
  return Float64Array.from(rows, (row) => first.get(entity.codes[row]!)!);
}
