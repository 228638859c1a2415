import { boundedLogit, sigmoid } from './calibration.js';

/**
 * What the best of many candidates promises too much or too little, see `fitSelectionCalibration` of @waggle/training:
 * logit' = z + level + edge·advantage, where advantage is the logit minus the mean logit of the slot's candidates. With
 * edge > −1 the order of a slot's candidates stays as it was.
 */
export interface SelectionCalibration {
  readonly level: number;
  /** Slope between candidates minus 1. */
  readonly edge: number;
}

/** Logit after correction. @param advantage logit minus the mean logit of the candidates of its slot */
export function selectedLogit(
  { level, edge }: SelectionCalibration,
  logit: number,
  advantage: number,
): number {
  return logit + level + edge * advantage;
}

/** Mean `boundedLogit` of a slot's candidates, which an advantage is counted from. O(n). @param p [≥ nRows], nRows > 0 */
export function meanLogit(p: Float32Array | Float64Array, nRows: number): number {
  let mean = 0;
  for (let i = 0; i < nRows; i++) mean += boundedLogit(p[i]!) / nRows;
  return mean;
}

/**
 * Corrects the probabilities of a slot's candidates in place. O(n).
 * @param p [≥ nRows] of all candidates, each campaign once, with the creative that would run
 * @param mean mean logit of the slot's candidates, where `p` holds not all of them
 */
export function correctSelected(
  selection: SelectionCalibration,
  p: Float32Array | Float64Array,
  nRows: number,
  mean = meanLogit(p, nRows),
): void {
  for (let i = 0; i < nRows; i++) {
    const z = boundedLogit(p[i]!);
    p[i] = sigmoid(selectedLogit(selection, z, z - mean));
  }
}

/** Why an untrusted correction cannot be used; undefined when it can, or when there is none. */
export function selectionFault(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'object' || value === null) return 'is not an object';
  const { level, edge } = value as Record<string, unknown>;
  if (!Number.isFinite(level) || !Number.isFinite(edge)) return 'lacks a finite level and edge';
  return (edge as number) > -1
    ? undefined
    : `has edge ${edge as number}, which turns the order around`;
}
