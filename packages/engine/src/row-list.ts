import { BitSet } from '@waggle/retrieval';

/** Campaign rows as the decision log writes them: a short list, or the whole bitmap in base 64. */
export type RowList = readonly number[] | string;

/** Longer lists are written as bitmaps, of which 4,000 campaigns take 672 characters. */
const LISTED = 64;

export function encodeRows(rows: BitSet): RowList {
  if (rows.count() <= LISTED) return [...rows.toRows()];
  return Buffer.from(rows.bytes.buffer, rows.bytes.byteOffset, rows.bytes.byteLength).toString(
    'base64',
  );
}

/** Inverse of `encodeRows`; rows outside `size` are left out. */
export function decodeRows(list: RowList, size: number): BitSet {
  if (typeof list !== 'string') return BitSet.of(size, list);
  const bytes = Buffer.from(list, 'base64');
  const rows = new BitSet(size);
  for (let row = 0; row < size; row++) {
    if (((bytes[row >>> 3] ?? 0) >>> (row & 7)) & 1) rows.add(row);
  }
  return rows;
}
