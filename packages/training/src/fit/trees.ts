import { type Trees, treesFit } from '@waggle/native';
import { sigmoid, softplus } from '@waggle/ranking';
import { trainingError } from '../errors.js';
import { type Dispersion, dispersionWeights, estimateDispersion } from './dispersion.js';
import type { FitRows } from './logistic.js';

export interface TreesHeadFit {
  /** Scores are added to the prior's logit. The caller closes it. */
  readonly trees: Trees;
  readonly nTrees: number;
  readonly maxLeaves: number;
  /** Loss of later rows per candidate at its best round, and of the prior by itself, nats per effective trial. */
  readonly losses: readonly {
    readonly maxLeaves: number;
    readonly nTrees: number;
    readonly loss: number;
  }[];
  readonly priorLoss: number;
  readonly dispersion: Dispersion;
  /** Σ gain of each feature's splits. */
  readonly gain: Float64Array;
}

/** Leaves of a tree: 4 sees pairs of features together, 16 about four. */
const LEAVES: readonly number[] = [4, 8, 16];
const LEARNING_RATE = 0.05;
const MOST_TREES = 400;
const PATIENCE = 40;
/** Share of the rows, the later ones, that choose size and number. */
const VALIDATION_SHARE = 0.3;
/**
 * Information that a leaf needs and that it is weighed against: twenty clicks, or a hundred offers. A leaf that says just
 * enough to be made is believed by half.
 */
const LEAF_INFORMATION = 20;

/**
 * Boosted trees around the prior: its logit and ln F(age) are the offset, rows weigh what their shared luck leaves of them, as
 * in `fitLogistic`. Leaves per tree and rounds are those that later rows like best; the trees are then grown on all rows.
 * Deterministic for a seed. O(sizes · rounds · rows · features).
 * @throws WAGGLE_TRAINING_FIT_FAILED when no number of trees does better than the prior on later rows; WAGGLE_ABORTED
 */
export async function fitTreesHead(
  rows: FitRows,
  o: {
    readonly seed: number;
    /** Features that no tree may use. */
    readonly exclude?: readonly number[];
    readonly signal?: AbortSignal | undefined;
  },
): Promise<TreesHeadFit> {
  const { nRows, nFeatures, successes, trials } = rows;
  const { seed, exclude = [], signal } = o;
  const x = rows.x.slice();
  for (const f of exclude) for (let i = 0; i < nRows; i++) x[i * nFeatures + f] = 0;
  const offset = Float64Array.from(rows.prior, (z, i) => z + Math.log(rows.maturity[i]!));
  const sample = { ...rows, probability: offset.map(sigmoid) };
  const dispersion = estimateDispersion(sample);
  const weights = Float64Array.from(dispersionWeights(sample, dispersion));
  const part = (from: number, to: number) => ({
    x: x.subarray(from * nFeatures, to * nFeatures),
    nRows: to - from,
    y: successes.subarray(from, to),
    trials: trials.subarray(from, to),
    weights: weights.subarray(from, to),
    offset: offset.subarray(from, to),
  });
  const common = {
    nFeatures,
    objective: 'logistic',
    learningRate: LEARNING_RATE,
    minChildWeight: LEAF_INFORMATION,
    l2: LEAF_INFORMATION,
    seed,
    signal,
  } as const;
  let cut = Math.floor(nRows * (1 - VALIDATION_SHARE));
  while (cut < nRows && rows.decisionTsMs[cut] === rows.decisionTsMs[cut - 1]) cut++;
  const losses: { maxLeaves: number; nTrees: number; loss: number }[] = [];
  for (const maxLeaves of LEAVES) {
    const fit = await treesFit({
      ...part(0, cut),
      ...common,
      maxLeaves,
      nTrees: MOST_TREES,
      earlyStoppingRounds: PATIENCE,
      validation: part(cut, nRows),
    });
    await fit.trees.close();
    losses.push({ maxLeaves, nTrees: fit.bestTree, loss: Math.min(...fit.validationLoss) });
  }
  const best = losses.reduce((a, b) => (b.loss < a.loss ? b : a));
  const priorLoss = meanLoss(part(cut, nRows));
  if (!(best.loss < priorLoss)) {
    throw trainingError(
      'WAGGLE_TRAINING_FIT_FAILED',
      `no number of trees tells later rows better than the prior (log-loss ${best.loss.toPrecision(6)} against ${priorLoss.toPrecision(6)})`,
      { details: { loss: best.loss, priorLoss } },
    );
  }
  const { maxLeaves, nTrees } = best;
  const fit = await treesFit({ ...part(0, nRows), ...common, maxLeaves, nTrees });
  return { trees: fit.trees, nTrees, maxLeaves, losses, priorLoss, dispersion, gain: fit.gain };
}

/** Mean log-loss of the offset by itself per effective trial, as `treesFit` counts it. */
function meanLoss(part: {
  readonly y: Float64Array;
  readonly trials: Float64Array;
  readonly weights: Float64Array;
  readonly offset: Float64Array;
}): number {
  let loss = 0;
  let mass = 0;
  part.offset.forEach((z, i) => {
    loss += part.weights[i]! * (part.trials[i]! * softplus(z) - part.y[i]! * z);
    mass += part.weights[i]! * part.trials[i]!;
  });
  return loss / mass;
}
