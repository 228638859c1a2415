/** What a split asks of a value, by its code in {@link TreesDump.decision}; true goes left. */
export const TREES_DECISIONS = [
  /** x < threshold */
  'less',
  /** x ≤ threshold */
  'less-or-equal',
  /** x = threshold */
  'equal',
  /** x equals one of `count` values from `members[first]`. */
  'member',
  /** The integer part of x is in the bitset of `count` words from `categories[first]`; a negative x is not. */
  'category',
  /** The same with x rounded towards zero first: −0.5 is category 0. */
  'category-truncated',
] as const;

/** Which values a split sends where `defaultLeft` says, by their code in {@link TreesDump.missing}. */
export const TREES_MISSINGS = [
  'nan',
  /** |x| ≤ 1e-35 (as a float32) as well. */
  'zero-or-nan',
  /** None: NaN is asked as if it were 0. */
  'nan-is-zero',
] as const;

/** What becomes of a score, by the native number. */
const TRANSFORMS = [
  'none',
  'logistic',
  'softmax',
  'softmax-zero',
  'probit',
  'exp',
  'hinge',
  'signed-square',
  'log1p-exp',
  'complement',
  'two-logistic',
  'negate',
] as const;

export type TreesTransform = (typeof TRANSFORMS)[number];

/**
 * The structure of an ensemble: `score[t] = base[t] + scale · Σ leaf values of target t`, in float64 in the order of the
 * trees, then the transform. Nodes of a tree follow each other, its root first; `left` and `right` count from there.
 */
export interface TreesDump {
  readonly transform: TreesTransform;
  /** p of `logistic`: 1 / (1 + e^(−p·score)). */
  readonly transformParameter: number;
  readonly scale: number;
  /** [nTargets] */
  readonly base: Float64Array;
  /** [nTrees] number of the root among all nodes */
  readonly treeFirstNode: Uint32Array;
  /** [nTrees] */
  readonly treeNodes: Uint32Array;
  /** [nTrees] the target that a leaf's first value is for; the others follow */
  readonly treeTarget: Int32Array;
  /** [nTrees] values per leaf */
  readonly treeValues: Int32Array;
  /** [nNodes] −1 marks a leaf, whose values start at `values[first]` */
  readonly feature: Int32Array;
  readonly left: Int32Array;
  readonly right: Int32Array;
  readonly threshold: Float32Array;
  /** [nNodes] index into {@link TREES_DECISIONS} */
  readonly decision: Uint8Array;
  /** [nNodes] index into {@link TREES_MISSINGS} */
  readonly missing: Uint8Array;
  readonly defaultLeft: Uint8Array;
  readonly first: Uint32Array;
  readonly count: Uint32Array;
  readonly values: Float32Array;
  readonly members: Float32Array;
  readonly categories: Uint32Array;
  /** [nNodes] how much of the training data met each node; empty when not known */
  readonly covers: Float32Array;
}

/** What the addon gives: the vectors of `trees::Ensemble` (include/waggle/trees.hpp), one array per field. */
export type RawTreesDump = Omit<TreesDump, 'transform'> & { readonly transform: number };

/** Made into what `Trees.dump` returns. */
export function treesDump(raw: RawTreesDump): TreesDump {
  return { ...raw, transform: TRANSFORMS[raw.transform] ?? 'none' };
}
