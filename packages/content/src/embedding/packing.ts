import { coreError } from '@waggle/core';

/** Texts that run together: `rows` index the input, `width` is the longest of them in tokens. */
export interface PackedBatch {
  readonly rows: Uint32Array;
  readonly width: number;
}

export interface PackingLimits {
  /** rows × width of one batch; a single longer text still gets a batch of its own. */
  readonly tokenBudget: number;
  /** Largest part of a batch that may be padding, in [0, 1). */
  readonly maxPadding: number;
}

export const DEFAULT_PACKING: PackingLimits = { tokenBudget: 512, maxPadding: 0.08 };

/**
 * Groups texts by length so that little is computed on padding: longest first, each batch filled with the next
 * shorter ones while it stays within its budget and its padding within `maxPadding`. The bound holds for every
 * batch, hence for the whole, whatever the lengths are. Longest first also lets the short batches even out the
 * workers at the end.
 *
 * @param lengths tokens per text, [n], each ≥ 1
 * @returns batches that together name every row once; deterministic (ties by row); O(n log n)
 * @throws WAGGLE_INVALID_ARGUMENT for limits outside their domain
 */
export function packByLength(
  lengths: Uint32Array | readonly number[],
  limits: PackingLimits = DEFAULT_PACKING,
): PackedBatch[] {
  const { tokenBudget, maxPadding } = limits;
  if (!(tokenBudget >= 1) || !(maxPadding >= 0 && maxPadding < 1)) {
    throw coreError(
      'WAGGLE_INVALID_ARGUMENT',
      'tokenBudget must be at least 1 and maxPadding in [0, 1)',
    );
  }
  const order = Uint32Array.from(lengths, (_, row) => row).sort(
    (a, b) => lengths[b]! - lengths[a]! || a - b,
  );
  const batches: PackedBatch[] = [];
  let from = 0;
  while (from < order.length) {
    const width = lengths[order[from]!]!;
    let tokens = width;
    let to = from + 1;
    while (to < order.length) {
      const padded = width * (to - from + 1);
      const withNext = tokens + lengths[order[to]!]!;
      if (padded > tokenBudget || padded - withNext > maxPadding * padded) break;
      tokens = withNext;
      to++;
    }
    batches.push({ rows: order.slice(from, to), width });
    from = to;
  }
  return batches;
}

/** Part of the computed tokens that is padding, in [0, 1). O(n) */
export function paddingWaste(
  lengths: Uint32Array | readonly number[],
  batches: readonly PackedBatch[],
): number {
  let tokens = 0;
  let padded = 0;
  for (const batch of batches) {
    padded += batch.width * batch.rows.length;
    for (const row of batch.rows) tokens += lengths[row]!;
  }
  return padded === 0 ? 0 : 1 - tokens / padded;
}
