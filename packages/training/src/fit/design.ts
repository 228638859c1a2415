/**
 * The matrix a fit really sees: columns that vary, in standard deviations around their mean, values pulled in to the
 * column's own extreme quantiles so that one broken counter cannot steer a coefficient. Serving scores raw values;
 * only the fit is protected.
 */
export interface Design {
  /** float32 [nRows × (columns.length + 1)], row-major; the last column is 1, the level. */
  readonly x: Float32Array;
  /** columns.length + 1 */
  readonly width: number;
  readonly nRows: number;
  /** Feature numbers of the columns that are fitted. */
  readonly columns: readonly number[];
  /** Feature numbers that do not vary on these rows; they get coefficient 0. */
  readonly constant: readonly number[];
  /** [nFeatures] mean and standard deviation of each feature after winsorising. */
  readonly means: Float64Array;
  readonly deviations: Float64Array;
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
  const means = new Float64Array(nFeatures);
  const deviations = new Float64Array(nFeatures);
  const valueAt = (row: number, f: number): number =>
    Math.min(Math.max(x[row * nFeatures + f]!, low[f]!), high[f]!);
  for (const f of columns) {
    let mean = 0;
    for (let i = 0; i < nRows; i++) mean += valueAt(i, f) / nRows;
    let square = 0;
    for (let i = 0; i < nRows; i++) square += (valueAt(i, f) - mean) ** 2 / nRows;
    means[f] = mean;
    deviations[f] = Math.sqrt(square);
  }
  for (const f of constant) means[f] = low[f]!;
  const fitted = columns.filter((f) => deviations[f]! > 0);
  const width = fitted.length + 1;
  const out = new Float32Array(nRows * width);
  for (let i = 0; i < nRows; i++) {
    const to = i * width;
    for (let c = 0; c < fitted.length; c++) {
      const f = fitted[c]!;
      out[to + c] = (valueAt(i, f) - means[f]!) / deviations[f]!;
    }
    out[to + fitted.length] = 1;
  }
  return { x: out, width, nRows, columns: fitted, constant, means, deviations };
}

/** Coefficients on raw feature scale and the intercept that belongs to them. */
export function toRawScale(
  design: Design,
  standardised: Float64Array,
  nFeatures: number,
): { coefficients: Float64Array; intercept: number } {
  const coefficients = new Float64Array(nFeatures);
  let intercept = standardised[design.columns.length]!;
  design.columns.forEach((f, c) => {
    coefficients[f] = standardised[c]! / design.deviations[f]!;
    intercept -= coefficients[f]! * design.means[f]!;
  });
  return { coefficients, intercept };
}
