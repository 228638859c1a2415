import { DAY_MS } from '@waggle/core';

/** How lists grow: per day, over all publications, and how much publications differ. */
export interface GrowthModel {
  readonly mean: number;
  readonly variance: number;
  /** Variance of a reported ln size around its publication's line. */
  readonly noise: number;
}

export interface SizeEstimate {
  readonly size: number;
  /** Variance of its logarithm. */
  readonly variance: number;
}

/** Reports of one publication in time order: [from, to) of the arrays. */
export interface SizeReports {
  readonly atMs: ArrayLike<number>;
  readonly size: ArrayLike<number>;
  readonly from: number;
  readonly to: number;
}

interface Line {
  readonly slope: number;
  /** Σ (t − t̄)², days². */
  readonly lever: number;
  readonly squares: number;
  readonly n: number;
}

/** Variance of ln size that rounding to whole subscribers alone brings. */
const rounding = (size: number): number => 1 / (12 * size * size);

function lineOf({ atMs, size, from, to }: SizeReports): Line {
  const n = to - from;
  let meanT = 0;
  let meanY = 0;
  const origin = n > 0 ? atMs[from]! : 0;
  for (let i = from; i < to; i++) {
    meanT += (atMs[i]! - origin) / DAY_MS / n;
    meanY += Math.log(Math.max(1, size[i]!)) / n;
  }
  let lever = 0;
  let cross = 0;
  let total = 0;
  for (let i = from; i < to; i++) {
    const t = (atMs[i]! - origin) / DAY_MS - meanT;
    const y = Math.log(Math.max(1, size[i]!)) - meanY;
    lever += t * t;
    cross += t * y;
    total += y * y;
  }
  const slope = lever > 0 ? cross / lever : 0;
  return { slope, lever, squares: Math.max(0, total - slope * cross), n };
}

/** Moments over publications; those with reports over half a day or more take part. O(reports) */
export function fitGrowth(publications: readonly SizeReports[]): GrowthModel {
  const lines: (Line & { rounding: number })[] = [];
  let noise = 0;
  let freedom = 0;
  for (const reports of publications) {
    const line = lineOf(reports);
    if (line.n < 2 || line.lever < 0.125) continue;
    const small = rounding(Math.max(1, reports.size[reports.to - 1]!));
    lines.push({ ...line, rounding: small });
    if (line.n > 2) {
      noise += Math.max(0, line.squares - (line.n - 2) * small);
      freedom += line.n - 2;
    }
  }
  const noiseVariance = freedom > 0 ? noise / freedom : 1e-6;
  let mean = 0;
  let variance = 0;
  // Two rounds: weights need the variance, the variance needs the mean.
  for (let round = 0; round < 3; round++) {
    let weights = 0;
    let sum = 0;
    for (const line of lines) {
      const w = 1 / (variance + (noiseVariance + line.rounding) / line.lever + 1e-9);
      weights += w;
      sum += w * line.slope;
    }
    mean = weights > 0 ? sum / weights : 0;
    let spread = 0;
    let spreadWeights = 0;
    for (const line of lines) {
      const own = (noiseVariance + line.rounding) / line.lever;
      const w = 1 / (variance + own + 1e-9);
      spread += w * ((line.slope - mean) ** 2 - own);
      spreadWeights += w;
    }
    variance = spreadWeights > 0 ? Math.max(1e-10, spread / spreadWeights) : 1e-6;
  }
  return { mean, variance, noise: noiseVariance };
}

/** List size at a time after the last report: the last report, grown by the publication's shrunk slope. O(reports) */
export function estimateSize(
  model: GrowthModel,
  reports: SizeReports,
  atMs: number,
): SizeEstimate | undefined {
  if (reports.to <= reports.from) return undefined;
  const last = Math.max(1, reports.size[reports.to - 1]!);
  const noise = model.noise + rounding(last);
  const line = lineOf(reports);
  const precision = 1 / model.variance;
  const own = line.lever > 0 ? line.lever / noise : 0;
  const slope = (precision * model.mean + own * line.slope) / (precision + own);
  const days = (atMs - reports.atMs[reports.to - 1]!) / DAY_MS;
  return {
    size: last * Math.exp(slope * days),
    variance: noise + (days * days) / (precision + own),
  };
}
