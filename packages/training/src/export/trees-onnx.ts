import { TREES_DECISIONS, TREES_MISSINGS, type Trees, type TreesDump } from '@waggle/native';
import type { Calibration } from '@waggle/ranking';
import { trainingError } from '../errors.js';
import { calibrationGraph } from './calibration-graph.js';
import {
  doubles,
  encodeOnnx,
  floats,
  int64s,
  intAttribute,
  intsAttribute,
  node,
  type OnnxExport,
  stringAttribute,
  stringsAttribute,
  tensorAttribute,
  value,
} from './onnx-model.js';

/**
 * A probability from onnxruntime agrees with `Trees.predict` to this, absolutely; any other output to this times
 * 1 + |output|, and an exponential one to this times 1 + |score| relatively. Leaves are added in float64 on both
 * sides, so that a score differs by its rounding to float32 at most. (`probit`, whose inverse onnxruntime computes by a
 * formula good to about 1e-4, is the exception: 5e-4.)
 */
export const TREES_ONNX_TOLERANCE = 1e-6;

/** Numbers in all category tables of a file: 256 MiB. */
const MOST_TABLE_NUMBERS = 2 ** 26;
/** LightGBM's idea of zero, and ours. */
const ZERO = Math.fround(1e-35);

export interface TreesOnnxOptions {
  /** Names the graph. */
  readonly name: string;
  /** One per column of `features`, in order. */
  readonly featureNames: readonly string[];
  /** Fingerprint of the feature set; kept in the file's metadata. */
  readonly featureSetFingerprint: string;
  /** Column that is added to the logit of a `logistic` model: the logit of a prior. */
  readonly offsetFeature?: string | undefined;
  /** Applied to the logit of a `logistic` model with one target. @default identity */
  readonly calibration?: Calibration | undefined;
  /** Scores before the transform. @default false */
  readonly raw?: boolean | undefined;
}

export interface TreesOnnxExport extends OnnxExport {
  /** `probability`, `probabilities`, `prediction` or `score`. */
  readonly output: string;
  /** Of the output; null stands for the rows. */
  readonly outputDims: readonly (number | null)[];
}

/**
 * Writes a tree ensemble as ONNX (opset 17, ai.onnx.ml 3): float32 [N, F] `features`, NaN = missing, to float32
 *   `probability` [N] of a logistic model with one target, `probabilities` [N, outputs] of more and of softmax,
 *   `prediction` [N] or [N, targets] of any other, `score` when `raw`.
 *
 * The trees are one TreeEnsembleRegressor over doubles. What its comparisons cannot say is computed before it as further
 * columns of 0 and 1, by operators on whose meaning implementations agree: categories are looked up in a table of one
 * row per category and one column per distinct set, members compared one by one, zeros that count as missing become
 * NaN. Base scores, scale and transform are in the graph. Byte-stable for equal content.
 *
 * @throws WAGGLE_TRAINING_SHAPE when names, offset or calibration do not fit the model; WAGGLE_TRAINING_EXPORT_TOO_LARGE;
 *   WAGGLE_NATIVE_CLOSED
 */
export function exportTreesOnnx(trees: Trees, options: TreesOnnxOptions): TreesOnnxExport {
  const dump = trees.dump();
  const { nFeatures, nTargets } = trees;
  checkOptions(trees, dump, options);
  const graph: Graph = { nodes: [], initializers: [] };
  const derived = addDerivedColumns(dump, nFeatures, options.name, graph);
  const ensemble = ensembleAttributes(dump, nTargets, derived);
  const input = derived.width > nFeatures ? 'columns' : 'features';
  graph.nodes.push(
    node('Cast', [input], 'doubles', [intAttribute('to', 11)]),
    node('TreeEnsembleRegressor', ['doubles'], 'scores', ensemble, 'ai.onnx.ml'),
  );
  const { output, outputDims } = finish(dump, trees, options, graph);
  const encoded = encodeOnnx({
    name: options.name,
    docString: `${options.name}: ${trees.nTrees} trees, ${dump.transform}`,
    metadata: {
      'waggle.model': options.name,
      'waggle.feature_set': options.featureSetFingerprint,
      'waggle.features': options.featureNames.join(','),
    },
    domains: { 'ai.onnx.ml': 3 },
    nodes: graph.nodes,
    initializers: graph.initializers,
    inputs: [value('features', ['N', nFeatures])],
    outputs: [
      value(
        output,
        outputDims.map((dim) => dim ?? 'N'),
      ),
    ],
  });
  return { ...encoded, output, outputDims };
}

interface Graph {
  readonly nodes: object[];
  readonly initializers: object[];
}

function checkOptions(trees: Trees, dump: TreesDump, o: TreesOnnxOptions): void {
  const fail = (why: string) => trainingError('WAGGLE_TRAINING_SHAPE', `${o.name}: ${why}`);
  if (o.featureNames.length !== trees.nFeatures) {
    throw fail(`${o.featureNames.length} names for ${trees.nFeatures} features`);
  }
  if (o.offsetFeature !== undefined && !o.featureNames.includes(o.offsetFeature)) {
    throw fail(`the offset ${o.offsetFeature} is not one of the features`);
  }
  const shifted =
    o.offsetFeature !== undefined || (o.calibration?.kind ?? 'identity') !== 'identity';
  if (shifted && (dump.transform !== 'logistic' || trees.nTargets !== 1 || o.raw === true)) {
    throw fail(
      `an offset and a calibration need a logistic model with one target, not ${dump.transform} with ${trees.nTargets}`,
    );
  }
}

/** A question that only a further column answers, and where it is asked first. */
interface Question {
  readonly kind: 'zero' | 'set' | 'member';
  readonly feature: number;
  readonly node: number;
}

/** Columns behind the features: 0 where a row goes left and 1 where it goes right, or a feature without its zeros. */
interface Derived {
  /** [nNodes] the column that each split looks at. */
  readonly column: Int32Array;
  readonly width: number;
}

function questionOf(
  dump: TreesDump,
  i: number,
): { key: string; kind: Question['kind'] } | undefined {
  const decision = TREES_DECISIONS[dump.decision[i]!]!;
  const feature = dump.feature[i]!;
  const from = dump.first[i]!;
  const to = from + dump.count[i]!;
  const missing = `${dump.missing[i]}:${dump.defaultLeft[i]}`;
  switch (decision) {
    case 'less':
    case 'less-or-equal':
      return TREES_MISSINGS[dump.missing[i]!] === 'zero-or-nan'
        ? { key: `zero:${feature}`, kind: 'zero' }
        : undefined;
    case 'equal':
      return { key: `member:${feature}:${missing}:${dump.threshold[i]}`, kind: 'member' };
    case 'member':
      return {
        key: `member:${feature}:${missing}:${dump.members.subarray(from, to).join(',')}`,
        kind: 'member',
      };
    case 'category':
    case 'category-truncated':
      return {
        key: `set:${feature}:${missing}:${decision}:${dump.categories.subarray(from, to).join(',')}`,
        kind: 'set',
      };
  }
}

/** Finds what needs columns of its own, each question once, and adds the operators that fill them. */
function addDerivedColumns(
  dump: TreesDump,
  nFeatures: number,
  name: string,
  graph: Graph,
): Derived {
  const questions = new Map<string, Question>();
  const keys: (string | undefined)[] = [];
  for (const [i, feature] of dump.feature.entries()) {
    const asked = feature < 0 ? undefined : questionOf(dump, i);
    keys.push(asked?.key);
    if (asked !== undefined && !questions.has(asked.key)) {
      questions.set(asked.key, { kind: asked.kind, feature, node: i });
    }
  }
  const column = Int32Array.from(dump.feature);
  if (questions.size === 0) return { column, width: nFeatures };
  graph.initializers.push(
    floats('nan', [], [Number.NaN]),
    floats('zero', [], [0]),
    floats('one', [], [1]),
    floats('tiny', [], [ZERO]),
    int64s('axis_1', [1], [1]),
  );
  const place = new Map<string, number>();
  const parts = ['features'];
  const take = (part: string, some: readonly [string, Question][]): void => {
    for (const [key] of some) place.set(key, nFeatures + place.size);
    parts.push(part);
  };
  const ofKind = (kind: Question['kind']) => [...questions].filter(([, q]) => q.kind === kind);
  const zeros = ofKind('zero');
  if (zeros.length > 0) {
    take(
      addZeroColumns(
        zeros.map(([, q]) => q.feature),
        graph,
      ),
      zeros,
    );
  }
  const byFeature = new Map<number, [string, Question][]>();
  for (const entry of ofKind('set')) {
    const { feature } = entry[1];
    const known = byFeature.get(feature);
    if (known === undefined) byFeature.set(feature, [entry]);
    else known.push(entry);
  }
  const left = { numbers: MOST_TABLE_NUMBERS };
  for (const [feature, sets] of byFeature) {
    const nodes = sets.map(([, q]) => q.node);
    take(addSetColumns(dump, feature, nodes, { name, left }, graph), sets);
  }
  for (const entry of ofKind('member')) take(addMemberColumn(dump, entry[1].node, graph), [entry]);
  graph.nodes.push(node('Concat', parts, 'columns', [intAttribute('axis', 1)]));
  for (const [i, key] of keys.entries()) {
    if (key !== undefined) column[i] = place.get(key)!;
  }
  return { column, width: nFeatures + place.size };
}

/** NaN for every |x| ≤ 1e-35. */
function addZeroColumns(features: readonly number[], graph: Graph): string {
  graph.initializers.push(int64s('zero_features', [features.length], features));
  graph.nodes.push(
    node('Gather', ['features', 'zero_features'], 'zero_raw', [intAttribute('axis', 1)]),
    node('Abs', ['zero_raw'], 'zero_size'),
    node('LessOrEqual', ['zero_size', 'tiny'], 'zero_is'),
    node('Where', ['zero_is', 'nan', 'zero_raw'], 'zero_columns'),
  );
  return 'zero_columns';
}

/** Rows of a category table before category 0: kinds of value that a set may treat apart. */
const TABLE_ROWS = ['nan', 'tiny', 'tiny-negative', 'below', 'above-minus-one'] as const;

/** One look-up per feature and row: [categories, sets] of 0 (left) and 1. */
function addSetColumns(
  dump: TreesDump,
  feature: number,
  nodes: readonly number[],
  limit: { readonly name: string; readonly left: { numbers: number } },
  graph: Graph,
): string {
  const inSet = (i: number, category: number): boolean =>
    category < 32 * dump.count[i]! &&
    ((dump.categories[dump.first[i]! + (category >> 5)]! >>> (category & 31)) & 1) === 1;
  let nCategories = 0;
  for (const i of nodes) {
    let last = 32 * dump.count[i]! - 1;
    while (last >= 0 && !inSet(i, last)) last--;
    nCategories = Math.max(nCategories, last + 1);
  }
  const nRows = TABLE_ROWS.length + nCategories + 1;
  limit.left.numbers -= nRows * nodes.length;
  if (limit.left.numbers < 0) {
    throw trainingError(
      'WAGGLE_TRAINING_EXPORT_TOO_LARGE',
      `${limit.name}: feature ${feature} has ${nodes.length} sets of categories up to ${nCategories - 1}`,
    );
  }
  const table = new Float32Array(nRows * nodes.length).fill(1);
  for (const [s, i] of nodes.entries()) {
    const truncated = TREES_DECISIONS[dump.decision[i]!] === 'category-truncated';
    const missing = TREES_MISSINGS[dump.missing[i]!];
    const byDefault = dump.defaultLeft[i] === 1;
    const goesLeft = {
      nan: missing === 'nan-is-zero' ? inSet(i, 0) : byDefault,
      tiny: missing === 'zero-or-nan' ? byDefault : inSet(i, 0),
      'tiny-negative': missing === 'zero-or-nan' ? byDefault : truncated && inSet(i, 0),
      below: false,
      'above-minus-one': truncated && inSet(i, 0),
    };
    for (const [row, kind] of TABLE_ROWS.entries()) {
      if (goesLeft[kind]) table[row * nodes.length + s] = 0;
    }
    for (let c = 0; c < nCategories; c++) {
      if (inSet(i, c)) table[(TABLE_ROWS.length + c) * nodes.length + s] = 0;
    }
  }
  const at = `set_${feature}`;
  graph.initializers.push(
    floats(`${at}_table`, [nRows, nodes.length], table),
    int64s(`${at}_feature`, [], [feature]),
    floats(`${at}_first`, [], [-1]),
    floats(`${at}_most`, [], [nCategories]),
    floats(`${at}_below`, [], [-2]),
    floats(`${at}_tiny_negative`, [], [-3]),
    floats(`${at}_tiny`, [], [-4]),
    floats(`${at}_missing`, [], [-5]),
    floats(`${at}_shift`, [], [TABLE_ROWS.length]),
  );
  graph.nodes.push(
    node('Gather', ['features', `${at}_feature`], `${at}_x`, [intAttribute('axis', 1)]),
    node('Floor', [`${at}_x`], `${at}_floor`),
    node('Clip', [`${at}_floor`, `${at}_first`, `${at}_most`], `${at}_clipped`),
    node('LessOrEqual', [`${at}_x`, `${at}_first`], `${at}_is_below`),
    node('Where', [`${at}_is_below`, `${at}_below`, `${at}_clipped`], `${at}_signed`),
    node('Abs', [`${at}_x`], `${at}_size`),
    node('LessOrEqual', [`${at}_size`, 'tiny'], `${at}_is_tiny`),
    node('Less', [`${at}_x`, 'zero'], `${at}_is_negative`),
    node('Where', [`${at}_is_negative`, `${at}_tiny_negative`, `${at}_tiny`], `${at}_tiny_row`),
    node('Where', [`${at}_is_tiny`, `${at}_tiny_row`, `${at}_signed`], `${at}_known`),
    node('IsNaN', [`${at}_x`], `${at}_is_nan`),
    node('Where', [`${at}_is_nan`, `${at}_missing`, `${at}_known`], `${at}_number`),
    node('Add', [`${at}_number`, `${at}_shift`], `${at}_row`),
    node('Cast', [`${at}_row`], `${at}_index`, [intAttribute('to', 7)]),
    node('Gather', [`${at}_table`, `${at}_index`], `${at}_columns`, [intAttribute('axis', 0)]),
  );
  return `${at}_columns`;
}

/** Whether x equals one of a node's values: 0 (left) if so. */
function addMemberColumn(dump: TreesDump, i: number, graph: Graph): string {
  const values =
    TREES_DECISIONS[dump.decision[i]!] === 'equal'
      ? [dump.threshold[i]!]
      : Array.from(dump.members.subarray(dump.first[i]!, dump.first[i]! + dump.count[i]!));
  const missing = TREES_MISSINGS[dump.missing[i]!];
  const byDefault = dump.defaultLeft[i] === 1 ? 'zero' : 'one';
  // NaN equals nothing: the empty set.
  const listed = values.length > 0 ? values : [Number.NaN];
  const ofNan = missing !== 'nan-is-zero' ? byDefault : values.includes(0) ? 'zero' : 'one';
  const at = `member_${i}`;
  graph.initializers.push(
    floats(`${at}_values`, [listed.length], listed),
    int64s(`${at}_feature`, [1], [dump.feature[i]!]),
  );
  graph.nodes.push(
    node('Gather', ['features', `${at}_feature`], `${at}_x`, [intAttribute('axis', 1)]),
    node('Equal', [`${at}_x`, `${at}_values`], `${at}_equal`),
    node('Cast', [`${at}_equal`], `${at}_each`, [intAttribute('to', 1)]),
    node('ReduceMax', [`${at}_each`], `${at}_any`, [intsAttribute('axes', [1])]),
    node('Sub', ['one', `${at}_any`], `${at}_none`),
    node('IsNaN', [`${at}_x`], `${at}_is_nan`),
    node('Where', [`${at}_is_nan`, ofNan, `${at}_none`], `${at}_column`),
  );
  if (missing !== 'zero-or-nan') return `${at}_column`;
  graph.nodes.push(
    node('Abs', [`${at}_x`], `${at}_size`),
    node('LessOrEqual', [`${at}_size`, 'tiny'], `${at}_is_tiny`),
    node('Where', [`${at}_is_tiny`, byDefault, `${at}_column`], `${at}_with_zeros`),
  );
  return `${at}_with_zeros`;
}

/** Attributes of the TreeEnsembleRegressor: nodes and leaf weights as parallel lists. */
function ensembleAttributes(dump: TreesDump, nTargets: number, { column }: Derived): object[] {
  const n = dump.feature.length;
  const trees: number[] = [];
  const ids: number[] = [];
  const modes: string[] = [];
  const features: number[] = [];
  const yes: number[] = [];
  const no: number[] = [];
  const tracks: number[] = [];
  const thresholds = new Float64Array(Math.max(n, 1));
  const leaf = { trees: [] as number[], nodes: [] as number[], targets: [] as number[] };
  const weights: number[] = [];
  for (const [t, first] of dump.treeFirstNode.entries()) {
    for (let k = 0; k < dump.treeNodes[t]!; k++) {
      const i = first + k;
      trees.push(t);
      ids.push(k);
      if (dump.feature[i]! < 0) {
        modes.push('LEAF');
        features.push(0);
        yes.push(0);
        no.push(0);
        tracks.push(0);
        for (let v = 0; v < dump.treeValues[t]!; v++) {
          leaf.trees.push(t);
          leaf.nodes.push(k);
          leaf.targets.push(dump.treeTarget[t]! + v);
          weights.push(dump.scale * dump.values[dump.first[i]! + v]!);
        }
        continue;
      }
      const decision = TREES_DECISIONS[dump.decision[i]!]!;
      const asked = decision !== 'less' && decision !== 'less-or-equal';
      // One mode per ensemble, as far as possible, is what onnxruntime is fast at.
      modes.push(decision === 'less' ? 'BRANCH_LT' : 'BRANCH_LEQ');
      thresholds[i] = asked ? 0.5 : dump.threshold[i]!;
      features.push(column[i]!);
      yes.push(dump.left[i]!);
      no.push(dump.right[i]!);
      const nanIsZero = TREES_MISSINGS[dump.missing[i]!] === 'nan-is-zero';
      const zeroIsLeft = decision === 'less' ? 0 < thresholds[i]! : 0 <= thresholds[i]!;
      tracks.push((nanIsZero ? zeroIsLeft : dump.defaultLeft[i] === 1) ? 1 : 0);
    }
  }
  if (n === 0) {
    // No trees: one that adds nothing.
    for (const list of [
      trees,
      ids,
      features,
      yes,
      no,
      tracks,
      leaf.trees,
      leaf.nodes,
      leaf.targets,
    ]) {
      list.push(0);
    }
    modes.push('LEAF');
    weights.push(0);
  }
  return [
    intAttribute('n_targets', nTargets),
    stringAttribute('aggregate_function', 'SUM'),
    stringAttribute('post_transform', dump.transform === 'probit' ? 'PROBIT' : 'NONE'),
    tensorAttribute('base_values_as_tensor', doubles('base', [nTargets], dump.base)),
    intsAttribute('nodes_treeids', trees),
    intsAttribute('nodes_nodeids', ids),
    stringsAttribute('nodes_modes', modes),
    intsAttribute('nodes_featureids', features),
    tensorAttribute('nodes_values_as_tensor', doubles('splits', [thresholds.length], thresholds)),
    intsAttribute('nodes_truenodeids', yes),
    intsAttribute('nodes_falsenodeids', no),
    intsAttribute('nodes_missing_value_tracks_true', tracks),
    intsAttribute('target_treeids', leaf.trees),
    intsAttribute('target_nodeids', leaf.nodes),
    intsAttribute('target_ids', leaf.targets),
    tensorAttribute('target_weights_as_tensor', doubles('weights', [weights.length], weights)),
  ];
}

/** From `scores` [N, targets] to the output. */
function finish(
  dump: TreesDump,
  trees: Trees,
  o: TreesOnnxOptions,
  graph: Graph,
): Pick<TreesOnnxExport, 'output' | 'outputDims'> {
  const { nodes, initializers } = graph;
  const { nTargets } = trees;
  const constant = (name: string, number: number): string => {
    initializers.push(floats(name, [], [number]));
    return name;
  };
  /** [N, 1] becomes [N]. */
  const flat = (from: string, output: string): Pick<TreesOnnxExport, 'output' | 'outputDims'> => {
    if (nTargets > 1) {
      nodes.push(node('Identity', [from], output));
      return { output, outputDims: [null, nTargets] };
    }
    initializers.push(int64s('column_axis', [1], [1]));
    nodes.push(node('Squeeze', [from, 'column_axis'], output));
    return { output, outputDims: [null] };
  };
  const two = (first: object, second: string): Pick<TreesOnnxExport, 'output' | 'outputDims'> => {
    nodes.push(
      first,
      node('Concat', ['first', second], 'probabilities', [intAttribute('axis', 1)]),
    );
    return { output: 'probabilities', outputDims: [null, 2] };
  };
  const one = (opType: string, inputs: readonly string[]) => {
    nodes.push(node(opType, inputs, 'transformed'));
    return flat('transformed', 'prediction');
  };
  if (o.raw === true) return flat('scores', 'score');
  switch (dump.transform) {
    case 'none':
    case 'probit':
      return flat('scores', 'prediction');
    case 'logistic': {
      let logit = 'scores';
      const step = (opType: string, other: string, output: string): void => {
        nodes.push(node(opType, [logit, other], output));
        logit = output;
      };
      if (dump.transformParameter !== 1) {
        step('Mul', constant('steepness', dump.transformParameter), 'logit');
      }
      if (o.offsetFeature !== undefined) {
        const at = o.featureNames.indexOf(o.offsetFeature);
        initializers.push(int64s('offset_feature', [1], [at]));
        nodes.push(
          node('Gather', ['features', 'offset_feature'], 'offset', [intAttribute('axis', 1)]),
        );
        step('Add', 'offset', 'shifted');
      }
      const calibration = o.calibration ?? { kind: 'identity' };
      if (calibration.kind !== 'identity') {
        const graph = calibrationGraph(o.name, calibration, 'flat_logit');
        initializers.push(int64s('column_axis', [1], [1]), ...graph.initializers);
        nodes.push(node('Squeeze', [logit, 'column_axis'], 'flat_logit'), ...graph.nodes);
        nodes.push(node('Sigmoid', ['calibrated'], 'probability'));
        return { output: 'probability', outputDims: [null] };
      }
      nodes.push(node('Sigmoid', [logit], 'chances'));
      return flat('chances', nTargets > 1 ? 'probabilities' : 'probability');
    }
    case 'softmax':
      nodes.push(node('Softmax', ['scores'], 'probabilities', [intAttribute('axis', 1)]));
      return { output: 'probabilities', outputDims: [null, nTargets] };
    case 'softmax-zero': {
      // Targets that score 0 stay 0 and take no part.
      const axes = [intsAttribute('axes', [1])];
      initializers.push(int64s('sum_axes', [1], [1]));
      nodes.push(
        node('Abs', ['scores'], 'sizes'),
        node('Greater', ['sizes', constant('least', 1e-7)], 'counts'),
        node('Cast', ['counts'], 'mask', [intAttribute('to', 1)]),
        node('ReduceMax', ['scores'], 'most', axes),
        node('Sub', ['scores', 'most'], 'below_most'),
        node('Exp', ['below_most'], 'powers'),
        node('Mul', ['powers', 'mask'], 'counted'),
        node('ReduceSum', ['counted', 'sum_axes'], 'total'),
        node('Div', ['counted', 'total'], 'shares'),
        node('Where', ['counts', 'shares', 'scores'], 'probabilities'),
      );
      return { output: 'probabilities', outputDims: [null, nTargets] };
    }
    case 'exp':
      return one('Exp', ['scores']);
    case 'log1p-exp':
      return one('Softplus', ['scores']);
    case 'hinge':
      nodes.push(
        node('Greater', ['scores', constant('border', 0)], 'above'),
        node('Cast', ['above'], 'transformed', [intAttribute('to', 1)]),
      );
      return flat('transformed', 'prediction');
    case 'signed-square':
      nodes.push(node('Abs', ['scores'], 'sizes'));
      return one('Mul', ['scores', 'sizes']);
    case 'complement':
      return two(node('Sub', [constant('whole', 1), 'scores'], 'first'), 'scores');
    case 'negate':
      return two(node('Neg', ['scores'], 'first'), 'scores');
    case 'two-logistic':
      nodes.push(node('Neg', ['scores'], 'negated'), node('Sigmoid', ['scores'], 'second'));
      return two(node('Sigmoid', ['negated'], 'first'), 'second');
  }
}
