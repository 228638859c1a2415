import { Rng } from '@waggle/core';

/** A node goes left when x[feature] ≤ threshold; a leaf has feature −1 and its value in `threshold`. */
export interface TreeNode {
  readonly feature: number;
  readonly threshold: number;
  readonly left: number;
  readonly right: number;
}

/** Nodes of each tree; node 0 is its root. The answer is the sum of the leaves reached, added in float32 by the peers. */
export interface Ensemble {
  readonly nFeatures: number;
  readonly trees: readonly (readonly TreeNode[])[];
}

export interface EnsembleShape {
  readonly nTrees: number;
  readonly depth: number;
  readonly nFeatures: number;
}

/**
 * Complete trees of the given depth over standard normal features, thresholds drawn where the features live, so that
 * which way a row goes can hardly be predicted: the hard case for a branchy evaluator and the usual one for a model
 * that learnt much. Every number is a float32.
 */
export function randomEnsemble(shape: EnsembleShape, seed: number): Ensemble {
  const { nTrees, depth, nFeatures } = shape;
  const rng = new Rng(seed, 0x74726565);
  const nInner = 2 ** depth - 1;
  const trees = Array.from({ length: nTrees }, () =>
    Array.from(
      { length: 2 * nInner + 1 },
      (_, i): TreeNode =>
        i < nInner
          ? {
              feature: rng.integer(nFeatures),
              threshold: Math.fround(rng.normal()),
              left: 2 * i + 1,
              right: 2 * i + 2,
            }
          : { feature: -1, threshold: Math.fround(rng.normal() / nTrees), left: -1, right: -1 },
    ),
  );
  return { nFeatures, trees };
}

/** Plain arithmetic in double: the truth that every contender's answers are held against. */
export function evaluateEnsemble(ensemble: Ensemble, x: Float32Array, nRows: number): Float64Array {
  const { nFeatures, trees } = ensemble;
  const out = new Float64Array(nRows);
  for (let row = 0; row < nRows; row++) {
    for (const nodes of trees) {
      let node = nodes[0]!;
      while (node.feature >= 0) {
        const goesLeft = x[row * nFeatures + node.feature]! <= node.threshold;
        node = nodes[goesLeft ? node.left : node.right]!;
      }
      out[row]! += node.threshold;
    }
  }
  return out;
}
