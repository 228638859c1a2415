import type { ColumnTable } from '@waggle/core';

/** A numeric column of a query result whatever its dtype, as an array of numbers. */
export function numbers(table: ColumnTable, name: string): ArrayLike<number> {
  const column = table.columns[name];
  // A result without rows may come without columns as well.
  if (column === undefined && table.nRows === 0) return new Float64Array(0);
  if (column?.kind !== 'numeric') throw new TypeError(`query result has no numeric column ${name}`);
  return column.data instanceof BigInt64Array
    ? Float64Array.from(column.data, Number)
    : column.data;
}
