/** Conversions that "every pace alike" is worth against what was seen. */
const PRIOR_WORTH = 5;
/** Paces differ by this factor from one to the next: finer ones cannot be told apart by buckets that double or triple. */
const PACE_FACTOR = 2;
const ROUNDS = 500;
const SETTLED = 1e-7;

/**
 * Shares of a window's conversions by delay bucket, for buckets that few or no clicks are old enough to have seen too: a mixture of
 * exponential delays whose means run from the window down to an eighth of the first bucket, each half of the one before, fitted to
 * the buckets that were seen by expectation-maximisation (a Poisson count of conversions per bucket; Jewell 1982,
 * "Mixtures of exponential distributions"). Nothing is known of a network before it shows it: all paces are alike to begin with, which
 * is worth five conversions. What nobody has seen yet follows from the slow paces that what was seen leaves possible.
 * O(rounds · paces · buckets).
 * @param o `came` [nBuckets] conversions seen per bucket; `promised` [nBuckets] conversions that its observing clicks were to
 *   bring in the whole window
 * @returns [nBuckets], adds up to 1
 */
export function delayShares(o: {
  readonly bucketsMs: readonly number[];
  readonly came: ArrayLike<number>;
  readonly promised: ArrayLike<number>;
}): number[] {
  const { bucketsMs, came, promised } = o;
  const windowMs = bucketsMs.at(-1)!;
  const means: number[] = [];
  for (let mean = windowMs; mean > bucketsMs[0]! / 8; mean /= PACE_FACTOR) means.push(mean);
  // Of the conversions of the window.
  const shares = means.map((mean) => {
    const all = -Math.expm1(-windowMs / mean);
    return bucketsMs.map(
      (end, b) => (Math.exp(-(bucketsMs[b - 1] ?? 0) / mean) - Math.exp(-end / mean)) / all,
    );
  });
  const prior = 1 / means.length;
  let weights = means.map(() => prior);
  const mixed = () =>
    bucketsMs.map((_, b) => weights.reduce((sum, w, k) => sum + w * shares[k]![b]!, 0));
  for (let round = 0; round < ROUNDS; round++) {
    const mixture = mixed();
    const next = weights.map((w, k) => {
      let own = PRIOR_WORTH * prior;
      let whole = PRIOR_WORTH;
      for (let b = 0; b < bucketsMs.length; b++) {
        if (mixture[b]! > 0) own += (came[b]! * w * shares[k]![b]!) / mixture[b]!;
        whole += promised[b]! * shares[k]![b]!;
      }
      return own / whole;
    });
    const sum = next.reduce((all, w) => all + w, 0);
    const moved = next.reduce((most, w, k) => Math.max(most, Math.abs(w / sum - weights[k]!)), 0);
    weights = next.map((w) => w / sum);
    if (moved < SETTLED) break;
  }
  return mixed();
}
