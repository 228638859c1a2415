/** 10000 → 10k, 1000000 → 1m: as sizes are written in case ids. */
export function sizeName(rows: number): string {
  if (rows >= 1_000_000 && rows % 100_000 === 0) return `${rows / 1_000_000}m`;
  if (rows >= 1_000 && rows % 100 === 0) return `${rows / 1_000}k`;
  return String(rows);
}

/** The reverse of {@link sizeName}; nothing when it is not a size. */
export function parseSize(name: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([km]?)$/.exec(name);
  if (match === null) return undefined;
  return Math.round(
    Number(match[1]) * { '': 1, k: 1_000, m: 1_000_000 }[match[2] as '' | 'k' | 'm'],
  );
}
