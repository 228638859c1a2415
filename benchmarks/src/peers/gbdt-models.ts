import type { Ensemble } from '../data/ensemble.js';

/** Depth-first order in which LightGBM and XGBoost number what they split: inner nodes and leaves apart. */
function numbered(nodes: Ensemble['trees'][number]): {
  inner: Map<number, number>;
  leaf: Map<number, number>;
} {
  const inner = new Map<number, number>();
  const leaf = new Map<number, number>();
  for (const [id, node] of nodes.entries()) {
    const into = node.feature < 0 ? leaf : inner;
    into.set(id, into.size);
  }
  return { inner, leaf };
}

/**
 * LightGBM's text format (version v4; fields as its documentation and its own files name them). decision_type 0: numeric, ≤,
 * missing values of no type, so NaN counts as 0.
 */
export function lightgbmText(ensemble: Ensemble): string {
  const trees = ensemble.trees.map((nodes, t) => {
    const { inner, leaf } = numbered(nodes);
    const splits = nodes.filter((node) => node.feature >= 0);
    const child = (id: number): number => inner.get(id) ?? ~leaf.get(id)!;
    return [
      `Tree=${t}`,
      `num_leaves=${leaf.size}`,
      'num_cat=0',
      `split_feature=${splits.map((n) => n.feature).join(' ')}`,
      `split_gain=${splits.map(() => 1).join(' ')}`,
      `threshold=${splits.map((n) => n.threshold).join(' ')}`,
      `decision_type=${splits.map(() => 0).join(' ')}`,
      `left_child=${splits.map((n) => child(n.left)).join(' ')}`,
      `right_child=${splits.map((n) => child(n.right)).join(' ')}`,
      `leaf_value=${nodes
        .filter((n) => n.feature < 0)
        .map((n) => n.threshold)
        .join(' ')}`,
      `leaf_weight=${[...leaf].map(() => 1).join(' ')}`,
      `leaf_count=${[...leaf].map(() => 1).join(' ')}`,
      `internal_value=${splits.map(() => 0).join(' ')}`,
      `internal_weight=${splits.map(() => 1).join(' ')}`,
      `internal_count=${splits.map(() => 2).join(' ')}`,
      'is_linear=0',
      'shrinkage=1',
      '',
      '',
    ].join('\n');
  });
  const names = Array.from({ length: ensemble.nFeatures }, (_, i) => `f${i}`);
  return [
    'tree',
    'version=v4',
    'num_class=1',
    'num_tree_per_iteration=1',
    'label_index=0',
    `max_feature_idx=${ensemble.nFeatures - 1}`,
    'objective=regression',
    `feature_names=${names.join(' ')}`,
    `feature_infos=${names.map(() => '[-100:100]').join(' ')}`,
    `tree_sizes=${trees.map((text) => text.length).join(' ')}`,
    '',
    `${trees.join('')}end of trees`,
    '',
    'feature_importances:',
    '',
    'parameters:',
    'end of parameters',
    '',
    'pandas_categorical:null',
    '',
  ].join('\n');
}

/** The next float32 above: x < next(t) asks what x ≤ t asks. */
function nextFloat(value: number): number {
  const bits = new Int32Array(1);
  const float = new Float32Array(bits.buffer);
  float[0] = value;
  if (value === 0) bits[0] = 1;
  else bits[0]! += value > 0 ? 1 : -1;
  return float[0]!;
}

/** XGBoost's reader takes a number without point or exponent for an integer, and refuses it where it wants a float. */
const asFloat = (value: number): string => `float:${value.toExponential()}`;

/** XGBoost's JSON model (its documented schema): one target, no base score; it asks <, so thresholds move up one float. */
export function xgboostJson(ensemble: Ensemble): string {
  const trees = ensemble.trees.map((nodes, id) => {
    const parents = new Array<number>(nodes.length).fill(2_147_483_647);
    for (const [at, node] of nodes.entries()) {
      if (node.feature < 0) continue;
      parents[node.left] = at;
      parents[node.right] = at;
    }
    const isLeaf = (i: number): boolean => nodes[i]!.feature < 0;
    const every = <T>(make: (i: number) => T): T[] => nodes.map((_, i) => make(i));
    return {
      base_weights: every(() => asFloat(0)),
      categories: [],
      categories_nodes: [],
      categories_segments: [],
      categories_sizes: [],
      default_left: every(() => 0),
      id,
      left_children: every((i) => nodes[i]!.left),
      loss_changes: every((i) => asFloat(isLeaf(i) ? 0 : 1)),
      parents,
      right_children: every((i) => nodes[i]!.right),
      split_conditions: every((i) =>
        asFloat(isLeaf(i) ? nodes[i]!.threshold : nextFloat(nodes[i]!.threshold)),
      ),
      split_indices: every((i) => (isLeaf(i) ? 0 : nodes[i]!.feature)),
      split_type: every(() => 0),
      sum_hessian: every(() => asFloat(1)),
      tree_param: {
        num_deleted: '0',
        num_feature: String(ensemble.nFeatures),
        num_nodes: String(nodes.length),
        size_leaf_vector: '1',
      },
    };
  });
  const text = JSON.stringify({
    learner: {
      attributes: {},
      feature_names: [],
      feature_types: [],
      gradient_booster: {
        model: {
          gbtree_model_param: { num_parallel_tree: '1', num_trees: String(trees.length) },
          iteration_indptr: Array.from({ length: trees.length + 1 }, (_, i) => i),
          tree_info: trees.map(() => 0),
          trees,
        },
        name: 'gbtree',
      },
      learner_model_param: {
        base_score: '0E0',
        boost_from_average: '1',
        num_class: '0',
        num_feature: String(ensemble.nFeatures),
        num_target: '1',
      },
      objective: { name: 'reg:squarederror', reg_loss_param: { scale_pos_weight: '1' } },
    },
    version: [2, 1, 0],
  });
  return text.replaceAll(/"float:([^"]+)"/g, '$1');
}
