import type { Trees } from '@waggle/native';
import { constantLearner, type QuantileLearner } from './quantile-model.js';

interface Rows {
  readonly x: Float32Array;
  readonly nRows: number;
  readonly y: Float64Array;
}

/** What is needed of the engine's tree fitting. */
export type FitQuantileTrees = (
  o: Rows & {
    readonly nFeatures: number;
    readonly objective: 'quantile';
    readonly quantile: number;
    readonly nTrees: number;
    readonly learningRate: number;
    readonly maxLeaves: number;
    readonly minChildRows: number;
    readonly l2: number;
    readonly rowSample: number;
    readonly seed: number;
    readonly validation?: Rows;
  },
) => Promise<{
  readonly trees: Pick<Trees, 'predict'>;
  /** Pinball loss of the validation rows after each round. */
  readonly validationLoss: Float64Array;
}>;

export interface BoostedLearnerOptions {
  /** Rounds at most; default 100. */
  readonly nTrees?: number;
  readonly learningRate?: number;
  readonly maxLeaves?: number;
  readonly minChildRows?: number;
  readonly l2?: number;
  readonly rowSample?: number;
  readonly seed?: number;
}

/** Part of the rows, the earlier ones, that the number of rounds is tried on. */
const TRIED = 0.7;

/**
 * Quantiles by gradient-boosted trees on the pinball loss. The base forecast has explained most: few, small, slow trees. How many
 * is found on the later rows by trees of the earlier ones, and none at all where the same quantile for all rows was no worse there:
 * what a learner makes up costs more than what little is left for it to find.
 * @param fit the engine's `treesFit`
 */
export function boostedLearner(
  fit: FitQuantileTrees,
  options: BoostedLearnerOptions = {},
): QuantileLearner {
  return {
    async fit({ x, nRows, nFeatures, y, level }) {
      const settings = {
        nFeatures,
        objective: 'quantile',
        quantile: level,
        nTrees: options.nTrees ?? 100,
        learningRate: options.learningRate ?? 0.05,
        maxLeaves: options.maxLeaves ?? 8,
        minChildRows: options.minChildRows ?? 100,
        l2: options.l2 ?? 10,
        rowSample: options.rowSample ?? 0.8,
        seed: options.seed ?? 1,
      } as const;
      const n = Math.floor(TRIED * nRows);
      const earlier = { x: x.subarray(0, n * nFeatures), nRows: n, y: y.subarray(0, n) };
      const later = { x: x.subarray(n * nFeatures), nRows: nRows - n, y: y.subarray(n, nRows) };
      const constant = await constantLearner.fit({ ...earlier, nFeatures, level });
      const same = pinball(later.y, await constant.predict(later.x, later.nRows), level);
      const { validationLoss } = await fit({ ...settings, ...earlier, validation: later });
      const nTrees = roundsOf(validationLoss, same);
      if (nTrees === 0) return constantLearner.fit({ x, nRows, nFeatures, y, level });
      const { trees } = await fit({ ...settings, x, nRows, y, nTrees });
      return {
        predict: async (rows, count) =>
          count === 0
            ? new Float64Array(0)
            : Float64Array.from(await trees.predict({ x: rows, nRows: count })),
      };
    },
  };
}

/** Rounds of the lowest loss, 0 where none is below that of no trees at all. */
function roundsOf(losses: Float64Array, without: number): number {
  let rounds = 0;
  let lowest = without;
  losses.forEach((loss, i) => {
    if (loss < lowest) {
      lowest = loss;
      rounds = i + 1;
    }
  });
  return rounds;
}

function pinball(y: Float64Array, forecast: Float64Array, level: number): number {
  let sum = 0;
  y.forEach((value, i) => {
    const error = value - forecast[i]!;
    sum += error >= 0 ? level * error : (level - 1) * error;
  });
  return sum / y.length;
}
