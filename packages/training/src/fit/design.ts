/**
 * The matrix a fit really sees: columns that vary, values pulled in to the column's own extreme quantiles so that
 * one broken counter cannot steer a coefficient. Serving scores raw values; only the fit is protected.
 */
export interface Design {
  /** float32 [nRows × columns.length], row-major. */
  readonly x: Float32Array;
  readonly nRows: number;
  /** Feature numbers of the columns that are fitted. */
  readonly columns: readonly number[];
  /** Feature numbers that do not vary on these rows; they get coefficient 0. */
  readonly constant: readonly number[];
  /** [nFeatures] mean of each feature after winsorising. */
  readonly means: Float64Array;
}

/** Share of rows on each side whose values are pulled in. */
export const WINSOR_SHARE = 0.001;
/** Quantiles are read from at most this many rows, evenly spread. */
const QUANTILE_ROWS = 50_000;

/**
 * @param x float32 [nRows × nFeatures], finite
 * @param exclude features that are not fitted; they are listed neither as columns nor as constant
 * @returns a copy; O(nFeatures · nRows log nRows)
 */
export function buildDesign(
  x: Float32Array,
  nRows: number,
  nFeatures: number,
  exclude: ReadonlySet<number> = new Set(),
): Design {
  const step = Math.max(1, Math.floor(nRows / QUANTILE_ROWS));
  const nSample = nRows === 0 ? 0 : Math.ceil(nRows / step);
  const sample = new Float32Array(nSample);
  const low = new Float32Array(nFeatures);
  const high = new Float32Array(nFeatures);
  const columns: number[] = [];
  const constant: number[] = [];
  for (let f = 0; f < nFeatures; f++) {
    for (let i = 0; i < nSample; i++) sample[i] = x[i * step * nFeatures + f]!;
    sample.sort();
    const cut = Math.floor(nSample * WINSOR_SHARE);
    low[f] = sample[cut] ?? 0;
    high[f] = sample[nSample - 1 - cut] ?? 0;
    // A rare indicator lives entirely beyond the quantiles: keep it as it is.
    if (low[f] === high[f] && nSample > 0) {
      low[f] = sample[0]!;
      high[f] = sample[nSample - 1]!;
    }
    if (!(low[f]! < high[f]!)) constant.push(f);
    else if (!exclude.has(f)) columns.push(f);
  }
  const out = new Float32Array(nRows * columns.length);
  const means = new Float64Array(nFeatures);
  for (let i = 0; i < nRows; i++) {
    const from = i * nFeatures;
    const to = i * columns.length;
    for (let c = 0; c < columns.length; c++) {
      const f = columns[c]!;
      const value = Math.min(Math.max(x[from + f]!, low[f]!), high[f]!);
      out[to + c] = value;
      means[f] = means[f]! + value / nRows;
    }
  }
  for (const f of constant) means[f] = low[f]!;
  return { x: out, nRows, columns, constant, means };
}
