import type { Ensemble } from '../data/ensemble.js';
import { FLOAT, INT64, writeOnnx } from './onnx-writer.js';

/**
 * The exact search that onnxruntime's users write: scores = queries · matrixᵀ, then TopK over the rows.
 * float32 `queries` [q × dim] and `matrix` [n × dim] to float32 `scores` and int64 `rows`, both [q × k].
 */
export function topkGraph(dim: number, k: number): Uint8Array {
  return writeOnnx({
    name: 'topk',
    nodes: [
      {
        op: 'Gemm',
        inputs: ['queries', 'matrix'],
        outputs: ['products'],
        attributes: { transB: { int: 1 } },
      },
      {
        op: 'TopK',
        inputs: ['products', 'k'],
        outputs: ['scores', 'rows'],
        attributes: { axis: { int: 1 }, largest: { int: 1 }, sorted: { int: 1 } },
      },
    ],
    constants: [{ name: 'k', shape: [1], data: BigInt64Array.of(BigInt(k)) }],
    inputs: [
      { name: 'queries', type: FLOAT, shape: ['q', dim] },
      { name: 'matrix', type: FLOAT, shape: ['n', dim] },
    ],
    outputs: [
      { name: 'scores', type: FLOAT, shape: ['q', k] },
      { name: 'rows', type: INT64, shape: ['q', k] },
    ],
    opsets: { '': 17 },
  });
}

/** float32 `queries` [q × dim] and `matrix` [n × dim] to float32 `products` [q × n]. */
export function similarityGraph(dim: number): Uint8Array {
  return writeOnnx({
    name: 'similarity',
    nodes: [
      {
        op: 'Gemm',
        inputs: ['queries', 'matrix'],
        outputs: ['products'],
        attributes: { transB: { int: 1 } },
      },
    ],
    inputs: [
      { name: 'queries', type: FLOAT, shape: ['q', dim] },
      { name: 'matrix', type: FLOAT, shape: ['n', dim] },
    ],
    outputs: [{ name: 'products', type: FLOAT, shape: ['q', 'n'] }],
    opsets: { '': 17 },
  });
}

/** TreeEnsembleRegressor (ai.onnx.ml 3): float32 `x` [n × nFeatures] to float32 `y` [n × 1], the sum over the trees. */
export function treesGraph(ensemble: Ensemble): Uint8Array {
  const treeIds: number[] = [];
  const nodeIds: number[] = [];
  const features: number[] = [];
  const values: number[] = [];
  const modes: string[] = [];
  const trueIds: number[] = [];
  const falseIds: number[] = [];
  const leafTrees: number[] = [];
  const leafNodes: number[] = [];
  const leafWeights: number[] = [];
  for (const [tree, nodes] of ensemble.trees.entries()) {
    for (const [id, node] of nodes.entries()) {
      const isLeaf = node.feature < 0;
      treeIds.push(tree);
      nodeIds.push(id);
      features.push(isLeaf ? 0 : node.feature);
      values.push(isLeaf ? 0 : node.threshold);
      modes.push(isLeaf ? 'LEAF' : 'BRANCH_LEQ');
      trueIds.push(isLeaf ? 0 : node.left);
      falseIds.push(isLeaf ? 0 : node.right);
      if (isLeaf) {
        leafTrees.push(tree);
        leafNodes.push(id);
        leafWeights.push(node.threshold);
      }
    }
  }
  return writeOnnx({
    name: 'trees',
    nodes: [
      {
        op: 'TreeEnsembleRegressor',
        domain: 'ai.onnx.ml',
        inputs: ['x'],
        outputs: ['y'],
        attributes: {
          n_targets: { int: 1 },
          aggregate_function: { string: 'SUM' },
          post_transform: { string: 'NONE' },
          nodes_treeids: { ints: treeIds },
          nodes_nodeids: { ints: nodeIds },
          nodes_featureids: { ints: features },
          nodes_values: { floats: values },
          nodes_modes: { strings: modes },
          nodes_truenodeids: { ints: trueIds },
          nodes_falsenodeids: { ints: falseIds },
          nodes_missing_value_tracks_true: { ints: treeIds.map(() => 0) },
          nodes_hitrates: { floats: treeIds.map(() => 1) },
          target_treeids: { ints: leafTrees },
          target_nodeids: { ints: leafNodes },
          target_ids: { ints: leafTrees.map(() => 0) },
          target_weights: { floats: leafWeights },
        },
      },
    ],
    inputs: [{ name: 'x', type: FLOAT, shape: ['n', ensemble.nFeatures] }],
    outputs: [{ name: 'y', type: FLOAT, shape: ['n', 1] }],
    opsets: { '': 17, 'ai.onnx.ml': 3 },
  });
}

/**
 * A perceptron with layers of ReLU: float32 `x` [n × widths[0]] to float32 `y` [n × 1].
 * @param widths inputs, then each hidden layer
 * @param weight of layer, input, output
 */
export function perceptronGraph(
  widths: readonly number[],
  weight: (layer: number, input: number, output: number) => number,
): Uint8Array {
  const layers = widths.map((nInputs, layer) => ({ nInputs, nOutputs: widths[layer + 1] ?? 1 }));
  return writeOnnx({
    name: 'perceptron',
    nodes: layers.flatMap((_, l) => {
      const last = l === layers.length - 1;
      const dot = last ? 'y' : `dot${l}`;
      const inputs = [l === 0 ? 'x' : `active${l - 1}`, `weights${l}`];
      const layer = [{ op: 'Gemm', inputs, outputs: [dot] }];
      return last ? layer : [...layer, { op: 'Relu', inputs: [dot], outputs: [`active${l}`] }];
    }),
    constants: layers.map(({ nInputs, nOutputs }, l) => ({
      name: `weights${l}`,
      shape: [nInputs, nOutputs],
      data: Float32Array.from({ length: nInputs * nOutputs }, (_, k) =>
        weight(l, Math.floor(k / nOutputs), k % nOutputs),
      ),
    })),
    inputs: [{ name: 'x', type: FLOAT, shape: ['n', widths[0]!] }],
    outputs: [{ name: 'y', type: FLOAT, shape: ['n', 1] }],
    opsets: { '': 17 },
  });
}
