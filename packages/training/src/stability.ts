/**
 * Features whose distribution has moved by the time a model is used. A linear model extrapolates along them: while a
 * network is young its histories only grow, so that "sends in 28 days" is the calendar in disguise, and a coefficient
 * learned on the first week is applied where no row of that week has been.
 */
export interface MovedFeature {
  readonly feature: number;
  /** (mean later − mean in training) / standard deviation in training. */
  readonly shift: number;
  /** Standard deviation later over the one in training. */
  readonly spread: number;
}

/** A mean that moved by more than this many training deviations has left what was learned. */
export const MAX_SHIFT = 0.5;
/** So has a feature that spreads more than this many times wider. */
export const MAX_SPREAD = 2;

/**
 * Compares features (never labels) of later rows with those trained on. O((nTrain + nLater)·nFeatures).
 * @param train,later float32 [rows × nFeatures], row-major
 * @returns features beyond `MAX_SHIFT` or `MAX_SPREAD`; none when either side has fewer than 30 rows
 */
export function findMoved(
  train: Float32Array,
  later: Float32Array,
  nFeatures: number,
): MovedFeature[] {
  const nTrain = train.length / nFeatures;
  const nLater = later.length / nFeatures;
  if (nTrain < 30 || nLater < 30) return [];
  const moved: MovedFeature[] = [];
  for (let f = 0; f < nFeatures; f++) {
    const before = moments(train, f, nFeatures);
    const after = moments(later, f, nFeatures);
    if (!(before.sd > 0)) continue;
    const shift = (after.mean - before.mean) / before.sd;
    const spread = after.sd / before.sd;
    if (Math.abs(shift) > MAX_SHIFT || spread > MAX_SPREAD)
      moved.push({ feature: f, shift, spread });
  }
  return moved;
}

function moments(
  x: Float32Array,
  feature: number,
  nFeatures: number,
): { mean: number; sd: number } {
  const n = x.length / nFeatures;
  let mean = 0;
  for (let i = feature; i < x.length; i += nFeatures) mean += x[i]! / n;
  let square = 0;
  for (let i = feature; i < x.length; i += nFeatures) square += (x[i]! - mean) ** 2 / n;
  return { mean, sd: Math.sqrt(square) };
}
