import { measurementError } from './errors.js';
import { type BootstrapInterval, type BootstrapOptions, quantileOfSorted } from './intervals.js';
import { checkLength, finite, outOfRange } from './metrics/sample.js';
import {
  metricInterval,
  type SampleMetric,
  valueOrReason,
  type WeightedSample,
} from './resampling.js';

export interface SliceOptions {
  /** Slices with fewer rows of weight are reported as small and not measured; 30 when absent. */
  readonly minRows?: number;
  /** [nRows] cluster codes; needed for `minClusters` and `bootstrap`. */
  readonly clusters?: ArrayLike<number> | undefined;
  /** Slices with fewer clusters are small as well; 2 when absent. */
  readonly minClusters?: number;
  /** When given, every measured metric gets limits over the clusters. */
  readonly bootstrap?: BootstrapOptions | undefined;
}

export interface SliceMetric {
  /** null where the slice is small or the metric has no value on it; `reason` says which. */
  readonly value: number | null;
  readonly reason?: string;
  readonly interval?: BootstrapInterval;
}

export interface Slice<K extends string> {
  readonly name: string;
  /** Rows that carry weight, and their weight. */
  readonly nRows: number;
  readonly weight: number;
  readonly nClusters: number | null;
  /** Too small to be measured by itself. */
  readonly small: boolean;
  readonly metrics: Readonly<Record<K, SliceMetric>>;
}

export interface SliceReport<K extends string> {
  /** Every value of the column that occurs, the heaviest slice first. */
  readonly slices: readonly Slice<K>[];
  /** All rows of small slices together, measured when they are enough together; null when no slice is small. */
  readonly smallTogether: Slice<K> | null;
  readonly all: Slice<K>;
}

/**
 * Measures a sample by the values of a column (publication category, new or known, price band: `bandsOf`). Small slices
 * are listed with their size and without numbers, which would be noise, and are measured together; nothing is
 * dropped. O(n log n + metrics × slices).
 *
 * @param sample any sample of this room; columns are cut by row, `probability` of several classes in blocks
 * @param column [nRows] slice of each row
 * @throws WAGGLE_MEASUREMENT_SHAPE, _EMPTY, _NOT_FINITE and _OUT_OF_RANGE for weights, and what the metrics throw for wrong input
 */
export function evaluateSlices<S extends WeightedSample & object, K extends string>(
  sample: S,
  column: ArrayLike<string | number>,
  metrics: Readonly<Record<K, SampleMetric<S>>>,
  options: SliceOptions = {},
): SliceReport<K> {
  const { minRows = 30, minClusters = 2, clusters, bootstrap } = options;
  const nRows = column.length;
  const { weights } = sample;
  if (weights !== undefined) checkLength('weights', weights, nRows);
  if (clusters !== undefined) checkLength('clusters', clusters, nRows);
  if (bootstrap !== undefined && clusters === undefined) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_TOO_FEW_CLUSTERS',
      'limits of slices need clusters',
      { remedy: 'Pass the publication of each row as `clusters`.' },
    );
  }
  const rowsOf = new Map<string, number[]>();
  const all: number[] = [];
  for (let i = 0; i < nRows; i++) {
    if (weights !== undefined) {
      const weight = finite('weights', weights, i);
      if (weight < 0) throw outOfRange('weights', i, weight, 'at least 0');
      if (weight === 0) continue;
    }
    const name = String(column[i]);
    const rows = rowsOf.get(name);
    if (rows === undefined) rowsOf.set(name, [i]);
    else rows.push(i);
    all.push(i);
  }
  if (all.length === 0) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_EMPTY',
      nRows === 0 ? 'the sample has no rows' : `none of ${nRows} rows has weight`,
    );
  }
  const names = Object.keys(metrics) as K[];
  const measure = (name: string, rows: readonly number[]): Slice<K> => {
    const own = clusters === undefined ? undefined : rows.map((i) => clusters[i]!);
    const nClusters = own === undefined ? null : new Set(own).size;
    const few =
      rows.length < minRows
        ? `${rows.length} rows, ${minRows} are asked for`
        : nClusters !== null && nClusters < minClusters
          ? `${nClusters} clusters, ${minClusters} are asked for`
          : undefined;
    const part = few === undefined ? takeRows(sample, nRows, rows) : undefined;
    const one = (metric: SampleMetric<S>): SliceMetric => {
      if (part === undefined) return { value: null, reason: few! };
      const result = valueOrReason(metric, part);
      if ('reason' in result) return { value: null, reason: result.reason };
      if (bootstrap === undefined || own === undefined || nClusters! < 2) return result;
      // Limits that the resamples do not allow must not cost the value.
      const limits = valueOrReason(() => metricInterval(part, own, metric, bootstrap), part);
      return 'reason' in limits
        ? { ...result, reason: limits.reason }
        : { ...result, interval: limits.value };
    };
    return {
      name,
      nRows: rows.length,
      weight: rows.reduce((sum, i) => sum + (weights === undefined ? 1 : weights[i]!), 0),
      nClusters,
      small: few !== undefined,
      metrics: Object.fromEntries(names.map((k) => [k, one(metrics[k])])) as Record<K, SliceMetric>,
    };
  };
  const slices = [...rowsOf]
    .map(([name, rows]) => measure(name, rows))
    .sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1));
  const small = slices.filter((slice) => slice.small).flatMap(({ name }) => rowsOf.get(name)!);
  return {
    slices,
    smallTogether:
      small.length === 0
        ? null
        : measure(
            'small slices together',
            small.sort((a, b) => a - b),
          ),
    all: measure('all', all),
  };
}

/**
 * Labels of equally filled bands of a numeric column, for slicing by it: "3 of 4: 120 … 350". Equal values share a band.
 * O(n log n).
 * @param nBands 2 … 100
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE, _NOT_FINITE, _EMPTY
 */
export function bandsOf(column: ArrayLike<number>, nBands = 4): string[] {
  if (!Number.isInteger(nBands) || nBands < 2 || nBands > 100) {
    throw measurementError(
      'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
      `nBands is ${nBands}, allowed is 2 … 100`,
    );
  }
  const sorted = Float64Array.from({ length: column.length }, (_, i) =>
    finite('column', column, i),
  ).sort();
  const limits = Array.from({ length: nBands - 1 }, (_, b) =>
    quantileOfSorted(sorted, (b + 1) / nBands),
  );
  const bandOf = (value: number): number => limits.filter((limit) => value > limit).length;
  const lowest = new Array<number>(nBands).fill(Number.POSITIVE_INFINITY);
  const highest = new Array<number>(nBands).fill(Number.NEGATIVE_INFINITY);
  for (const value of sorted) {
    const b = bandOf(value);
    lowest[b] = Math.min(lowest[b]!, value);
    highest[b] = Math.max(highest[b]!, value);
  }
  const short = (value: number): string => String(Number(value.toPrecision(4)));
  const labels = lowest.map(
    (low, b) => `${b + 1} of ${nBands}: ${short(low)} … ${short(highest[b]!)}`,
  );
  return Array.from({ length: column.length }, (_, i) => labels[bandOf(column[i]!)]!);
}

/** The same sample with these rows only: columns by row, blocks per row where a column holds several values a row. */
function takeRows<S extends object>(sample: S, nRows: number, rows: readonly number[]): S {
  const cut = (name: string, value: unknown): unknown => {
    if (!isColumn(value)) return value;
    const width = value.length / nRows;
    if (!Number.isInteger(width) || width < 1) {
      throw measurementError(
        'WAGGLE_MEASUREMENT_SHAPE',
        `${name} has ${value.length} values, no multiple of ${nRows} rows`,
        { details: { column: name, rows: value.length, expected: nRows } },
      );
    }
    const out = new Float64Array(rows.length * width);
    rows.forEach((row, i) => {
      for (let k = 0; k < width; k++) out[i * width + k] = value[row * width + k]!;
    });
    return out;
  };
  return Object.fromEntries(
    Object.entries(sample).map(([name, value]) => [name, cut(name, value)]),
  ) as S;
}

function isColumn(value: unknown): value is ArrayLike<number> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}
