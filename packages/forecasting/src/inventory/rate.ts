/**
 * Rates of publications by empirical Bayes: a send's outcome is rate × exposure × factor, its variance that of counting plus
 * `dispersion`·rate² for what varies from send to send. Rates of publications spread around their cell's with variance
 * `spread`·rate² (linear Bayes, Bühlmann & Straub 1970). Weekday factors are common to all.
 */
export interface RateModel {
  /** Network's rate. */
  readonly base: number;
  /** [nCells] rates of cells, shrunk to the network's. */
  readonly cells: Float64Array;
  /** [7] by local weekday, of weighted mean 1. */
  readonly weekday: Float64Array;
  readonly dispersion: number;
  readonly spread: number;
  /** Counts are at most the exposure: their variance is binomial. */
  readonly binomial: boolean;
}

/** Outcomes of past sends, grouped by publication: rows of publication p are offsets[p] … offsets[p + 1). */
export interface RateData {
  readonly nPublications: number;
  readonly offsets: Uint32Array;
  readonly count: Float64Array;
  readonly exposure: Float64Array;
  readonly weekday: Uint8Array;
  /** [nPublications] */
  readonly cell: Uint8Array;
  readonly nCells: number;
}

export interface RateEstimate {
  readonly rate: number;
  /** Variance of the estimate. */
  readonly variance: number;
}

const countVariance = (model: Pick<RateModel, 'binomial'>, rate: number, exposure: number) =>
  (rate * (model.binomial ? Math.max(1e-6, 1 - rate) : 1)) / exposure;

/** Rate of one publication from its rows [from, to) and what is known of others. O(rows) */
export function estimateRate(
  model: RateModel,
  data: Pick<RateData, 'count' | 'exposure' | 'weekday'>,
  rows: { readonly from: number; readonly to: number; readonly cell: number },
): RateEstimate {
  const prior = model.cells[rows.cell]!;
  let rate = prior;
  let precision = 0;
  // Weights depend on the rate: three rounds settle.
  for (let round = 0; round < 3; round++) {
    precision = 1 / Math.max(1e-18, model.spread * prior * prior);
    let sum = precision * prior;
    for (let i = rows.from; i < rows.to; i++) {
      const effective = data.exposure[i]! * model.weekday[data.weekday[i]!]!;
      if (!(effective > 0)) continue;
      const weight =
        1 / (countVariance(model, rate, effective) + model.dispersion * rate * rate + 1e-18);
      precision += weight;
      sum += (weight * data.count[i]!) / effective;
    }
    rate = Math.max(sum / precision, prior * 1e-3);
  }
  return { rate, variance: 1 / precision };
}

const WEEKDAY_STRENGTH = 200;

/**
 * Network-level parameters from all finished sends: rates by cell, weekday factors by alternating means, dispersion and spread
 * by moments. O(rounds · rows)
 */
export function fitRates(data: RateData, binomial: boolean): RateModel {
  const { nPublications, offsets, count, exposure } = data;
  let counts = 0;
  let exposures = 0;
  const cellCounts = new Float64Array(data.nCells);
  const cellExposures = new Float64Array(data.nCells);
  // Publications count alike up to a cap: the largest list does not say how the others are read.
  for (let p = 0; p < nPublications; p++) {
    let c = 0;
    let e = 0;
    for (let i = offsets[p]!; i < offsets[p + 1]!; i++) {
      c += count[i]!;
      e += exposure[i]!;
    }
    if (!(e > 0)) continue;
    const weight = Math.min(1, e / 5000);
    counts += (weight * c) / e;
    exposures += weight;
    cellCounts[data.cell[p]!]! += (weight * c) / e;
    cellExposures[data.cell[p]!]! += weight;
  }
  const base = exposures > 0 ? Math.max(counts / exposures, 1e-9) : 1e-9;
  const cells = cellCounts.map((c, i) => (c + 4 * base) / (cellExposures[i]! + 4));
  let model: RateModel = {
    base,
    cells,
    weekday: new Float64Array(7).fill(1),
    dispersion: 0.01,
    spread: 0.1,
    binomial,
  };
  for (let round = 0; round < 4; round++) model = { ...model, ...refine(model, data) };
  return model;
}

function refine(
  model: RateModel,
  data: RateData,
): Pick<RateModel, 'weekday' | 'dispersion' | 'spread'> {
  const { nPublications, offsets, count, exposure } = data;
  const dayTop = new Float64Array(7);
  const dayBottom = new Float64Array(7);
  let excess = 0;
  let excessWeight = 0;
  let between = 0;
  let betweenWeight = 0;
  for (let p = 0; p < nPublications; p++) {
    const from = offsets[p]!;
    const to = offsets[p + 1]!;
    const n = to - from;
    if (n === 0) continue;
    const cell = data.cell[p]!;
    const { rate } = estimateRate(model, data, { from, to, cell });
    // The publication's own mean, by the same weights, without prior.
    let weights = 0;
    let sum = 0;
    for (let i = from; i < to; i++) {
      const effective = exposure[i]! * model.weekday[data.weekday[i]!]!;
      if (!(effective > 0)) continue;
      const w = 1 / (countVariance(model, rate, effective) + model.dispersion * rate * rate);
      weights += w;
      sum += (w * count[i]!) / effective;
    }
    if (!(weights > 0)) continue;
    const own = sum / weights;
    for (let i = from; i < to; i++) {
      const effective = exposure[i]! * model.weekday[data.weekday[i]!]!;
      if (!(effective > 0)) continue;
      const variance = countVariance(model, rate, effective);
      const w = 1 / (variance + model.dispersion * rate * rate);
      if (n >= 2 && own > 0) {
        const day = data.weekday[i]!;
        dayTop[day]! += w * rate * (count[i]! / exposure[i]!);
        dayBottom[day]! += w * rate * own;
      }
      if (n >= 3) {
        const residual = count[i]! / effective - own;
        // A mean of n weighted values takes its share of the residual.
        const shrink = 1 - w / weights;
        if (shrink > 0.05) {
          const weight = (w * w) ** 0.5 * rate * rate;
          excess += (weight * ((residual * residual) / shrink - variance)) / (rate * rate);
          excessWeight += weight;
        }
      }
    }
    const prior = model.cells[cell]!;
    const noise = 1 / weights;
    const weight = 1 / (noise / (prior * prior) + model.spread);
    between += weight * (((own - prior) ** 2 - noise) / (prior * prior));
    betweenWeight += weight;
  }
  const weekday = new Float64Array(7);
  for (let d = 0; d < 7; d++) {
    weekday[d] =
      dayBottom[d]! > 0 ? (dayTop[d]! + WEEKDAY_STRENGTH) / (dayBottom[d]! + WEEKDAY_STRENGTH) : 1;
  }
  return {
    weekday,
    dispersion:
      excessWeight > 0 ? Math.min(4, Math.max(1e-6, excess / excessWeight)) : model.dispersion,
    spread: betweenWeight > 0 ? Math.min(4, Math.max(1e-4, between / betweenWeight)) : model.spread,
  };
}
