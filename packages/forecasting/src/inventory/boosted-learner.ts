import type { Trees } from '@waggle/native';
import type { QuantileLearner } from './quantile-model.js';

/** What is needed of the engine's tree fitting. */
export type FitQuantileTrees = (o: {
  readonly x: Float32Array;
  readonly nRows: number;
  readonly nFeatures: number;
  readonly y: Float64Array;
  readonly objective: 'quantile';
  readonly quantile: number;
  readonly nTrees: number;
  readonly learningRate: number;
  readonly maxLeaves: number;
  readonly minChildRows: number;
  readonly l2: number;
  readonly rowSample: number;
  readonly seed: number;
}) => Promise<{ readonly trees: Pick<Trees, 'predict'> }>;

export interface BoostedLearnerOptions {
  readonly nTrees?: number;
  readonly learningRate?: number;
  readonly maxLeaves?: number;
  readonly minChildRows?: number;
  readonly l2?: number;
  readonly rowSample?: number;
  readonly seed?: number;
}

/**
 * Quantiles by gradient-boosted trees on the pinball loss. The base forecast has explained most: few, small, slow trees.
 * @param fit the engine's `treesFit`
 */
export function boostedLearner(
  fit: FitQuantileTrees,
  options: BoostedLearnerOptions = {},
): QuantileLearner {
  return {
    async fit({ x, nRows, nFeatures, y, level }) {
      const { trees } = await fit({
        x,
        nRows,
        nFeatures,
        y,
        objective: 'quantile',
        quantile: level,
        nTrees: options.nTrees ?? 60,
        learningRate: options.learningRate ?? 0.05,
        maxLeaves: options.maxLeaves ?? 8,
        minChildRows: options.minChildRows ?? 100,
        l2: options.l2 ?? 10,
        rowSample: options.rowSample ?? 0.8,
        seed: options.seed ?? 1,
      });
      return {
        predict: async (rows, n) =>
          n === 0
            ? new Float64Array(0)
            : Float64Array.from(await trees.predict({ x: rows, nRows: n })),
      };
    },
  };
}
