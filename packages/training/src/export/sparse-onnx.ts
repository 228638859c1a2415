import type { FfmOptions, FfmWeights, SparseWeights } from '@waggle/native';
import { type Calibration, calibrationLine } from '@waggle/ranking';
import { trainingError } from '../errors.js';
import { calibrationGraph } from './calibration-graph.js';
import {
  doubles,
  encodeOnnx,
  floats,
  int64s,
  intAttribute,
  node,
  type OnnxExport,
  value,
} from './onnx-model.js';
import { ONNX_DOUBLE, ONNX_FLOAT, ONNX_INT64 } from './onnx-schema.js';

/**
 * Sums are in double on both sides, so probabilities differ by the rounding of the float32 output, 2⁻²⁵ at most, and,
 * for factorisation machines, by that of their float32 lanes: pairs · 2⁻²⁴ · Σ|terms| / 4 on the probability.
 */
export const SPARSE_ONNX_TOLERANCE = 1e-6;

/** A file of protocol buffers holds 2 GiB. */
const MAX_WEIGHT_BYTES = 2 ** 31 - 2 ** 20;

export interface SparseOnnxOptions {
  readonly name: string;
  /** Entries of a row: `indices` is int64 [N, nFields], the hashes or raw features in this order. */
  readonly nFields: number;
  /** Default false: every value is 1. True adds an input `values`, float32 [N, nFields]. */
  readonly values?: boolean | undefined;
  /** Default identity. */
  readonly calibration?: Calibration | undefined;
  /** Said in the file, such as how features were hashed. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** Nodes and constants as they come to be. */
class Graph {
  readonly nodes: object[] = [];
  readonly initializers: object[] = [];

  add(op: string, inputs: readonly string[], name: string, ...attributes: object[]): string {
    this.nodes.push(node(op, inputs, name, attributes));
    return name;
  }

  double(name: string, v: number): string {
    this.initializers.push(doubles(name, [], [v]));
    return name;
  }

  int(name: string, v: readonly number[]): string {
    this.initializers.push(int64s(name, [v.length], v));
    return name;
  }

  asDouble(input: string, name: string): string {
    return this.add('Cast', [input], name, intAttribute('to', ONNX_DOUBLE));
  }

  sum(input: string, axis: number, name: string): string {
    const axes = this.int(`${name}_axis`, [axis]);
    return this.add('ReduceSum', [input, axes], name, intAttribute('keepdims', 0));
  }

  /** Calibration and probability of a double logit [N]. */
  finish(logit: string, o: SparseOnnxOptions, what: string, nFeatures: number): OnnxExport {
    const calibration = o.calibration ?? { kind: 'identity' };
    const line = calibrationLine(calibration);
    if (line !== undefined) {
      this.add('Mul', [logit, this.double('calibration_a', line.a)], 'scaled');
      this.add('Add', ['scaled', this.double('calibration_b', line.b)], 'calibrated');
      this.add('Sigmoid', ['calibrated'], 'double_probability');
      this.add('Cast', ['double_probability'], 'probability', intAttribute('to', ONNX_FLOAT));
    } else {
      this.add('Cast', [logit], 'float_logit', intAttribute('to', ONNX_FLOAT));
      const graph = calibrationGraph(o.name, calibration, 'float_logit');
      this.int('column_axis', [1]);
      this.initializers.push(...graph.initializers);
      this.nodes.push(...graph.nodes);
      this.add('Sigmoid', ['calibrated'], 'probability');
    }
    return encodeOnnx({
      name: o.name,
      docString: `${o.name}: ${what}`,
      metadata: {
        'waggle.model': o.name,
        'waggle.features': `${o.nFields} indices of 0 to ${nFeatures - 1}`,
        ...o.metadata,
      },
      nodes: this.nodes,
      initializers: this.initializers,
      inputs: [
        integerInput('indices', o.nFields),
        ...(o.values ? [value('values', ['N', o.nFields])] : []),
      ],
      outputs: [value('probability', ['N'])],
    });
  }
}

function integerInput(name: string, width: number): object {
  const dim = [{ dimParam: 'N' }, { dimValue: width }];
  return { name, type: { tensorType: { elemType: ONNX_INT64, shape: { dim } } } };
}

function checkWeights(
  o: SparseOnnxOptions,
  bytes: number,
  weights: Iterable<ArrayLike<number>>,
): void {
  if (!Number.isSafeInteger(o.nFields) || o.nFields < 1) {
    throw trainingError('WAGGLE_TRAINING_SHAPE', `nFields is ${o.nFields}; it must be at least 1`);
  }
  if (bytes > MAX_WEIGHT_BYTES) {
    throw trainingError(
      'WAGGLE_TRAINING_EXPORT_MISMATCH',
      `the weights take ${bytes} bytes; an ONNX file holds ${MAX_WEIGHT_BYTES}`,
      { remedy: 'Hash to fewer bits, or serve the model from its own file.' },
    );
  }
  for (const column of weights) {
    for (let i = 0; i < column.length; i++) {
      if (Number.isFinite(column[i]!)) continue;
      throw trainingError('WAGGLE_TRAINING_EXPORT_MISMATCH', `weight ${i} is ${column[i]}`);
    }
  }
}

/**
 * Writes the weights of `Ftrl` or `glmFitSparse` as ONNX: Gather → (Mul values) → ReduceSum → Add intercept →
 * calibration → Sigmoid in float64; int64 [N, nFields] `indices` to float32 [N] `probability`. An index of
 * nFeatures or more is an error of the runtime; a negative one counts from the end there: pass none. 8 bytes a feature.
 *
 * @throws WAGGLE_TRAINING_SHAPE, WAGGLE_TRAINING_EXPORT_MISMATCH when a weight is not finite or the file too large
 */
export function exportSparseLinearOnnx(
  model: SparseWeights & { readonly nFeatures: number },
  o: SparseOnnxOptions,
): OnnxExport {
  const { nFeatures, indices, values, intercept } = model;
  checkWeights(o, 8 * nFeatures, [values, [intercept]]);
  const dense = new Float64Array(nFeatures);
  for (const [at, index] of indices.entries()) {
    if (index < 0 || index >= nFeatures) {
      throw trainingError('WAGGLE_TRAINING_SHAPE', `index ${index} of ${nFeatures} features`);
    }
    dense[index] = values[at]!;
  }
  const graph = new Graph();
  graph.initializers.push(doubles('weights', [nFeatures], dense));
  let terms = graph.add('Gather', ['weights', 'indices'], 'terms');
  if (o.values) terms = graph.add('Mul', [terms, graph.asDouble('values', 'x')], 'products');
  const sum = graph.sum(terms, 1, 'sum');
  const logit = graph.add('Add', [sum, graph.double('intercept', intercept)], 'logit');
  return graph.finish(logit, o, 'P = sigmoid(a·(b0 + Σ w[index]·x) + b)', nFeatures);
}

/**
 * Writes a field-aware factorisation machine as ONNX: int64 [N, nFields] `indices`, one of each field in order, to
 * float32 [N] `probability`. For each pair of fields both sides' weights are gathered, multiplied and summed in float64.
 * 4·nFeatures·(nFields·k + 1) bytes.
 *
 * @param model `options` and `weights()` of an `Ffm` whose rows have one entry per field
 * @throws WAGGLE_TRAINING_SHAPE, WAGGLE_TRAINING_EXPORT_MISMATCH when a weight is not finite or the file too large
 */
export function exportFfmOnnx(
  model: FfmWeights & { readonly options: FfmOptions },
  o: Omit<SparseOnnxOptions, 'nFields'>,
): OnnxExport {
  const { options, intercept, linear, interactions } = model;
  const { nFeatures, nFields, k } = options;
  const all = { ...o, nFields };
  if (linear.length !== nFeatures || interactions.length !== nFeatures * nFields * k) {
    throw trainingError('WAGGLE_TRAINING_SHAPE', 'the weights do not fit the options');
  }
  checkWeights(all, 4 * (interactions.length + linear.length), [linear, interactions, [intercept]]);
  const graph = new Graph();
  const left: number[] = [];
  const right: number[] = [];
  for (let a = 0; a < nFields; a++) {
    for (let b = a + 1; b < nFields; b++) {
      left.push(a);
      right.push(b);
    }
  }
  graph.initializers.push(
    floats('linear', [nFeatures], linear),
    floats('interactions', [nFeatures * nFields, k], interactions),
  );
  const x = entryValues(graph, all, options.normalize);
  const onFields = intAttribute('axis', 1);
  const fields = { left: graph.int('left', left), right: graph.int('right', right) };

  /** float64 [N, pairs, k]: weights of one side's features for the other side's fields. */
  const side = (own: 'left' | 'right', other: 'left' | 'right'): string => {
    const features = graph.add('Gather', ['indices', fields[own]], `${own}_features`, onFields);
    const rows = graph.add('Mul', [features, 'fields_per_feature'], `${own}_blocks`);
    const slots = graph.add('Add', [rows, fields[other]], `${own}_slots`);
    const weights = graph.add('Gather', ['interactions', slots], `${own}_weights`);
    return graph.asDouble(weights, `${own}_factors`);
  };
  graph.int('fields_per_feature', [nFields]);
  const products = graph.add('Mul', [side('left', 'right'), side('right', 'left')], 'products');
  const dots = graph.sum(products, 2, 'dots');
  const xLeft = graph.add('Gather', [x, fields.left], 'x_left', onFields);
  const xRight = graph.add('Gather', [x, fields.right], 'x_right', onFields);
  const pairs = graph.add('Mul', [dots, graph.add('Mul', [xLeft, xRight], 'x_pairs')], 'pairs');
  const interaction = graph.sum(pairs, 1, 'interaction');
  const weights = graph.add('Gather', ['linear', 'indices'], 'linear_weights');
  const terms = graph.add('Mul', [graph.asDouble(weights, 'linear_factors'), x], 'linear_terms');
  const both = graph.add('Add', [interaction, graph.sum(terms, 1, 'linear_sum')], 'both');
  const logit = graph.add('Add', [both, graph.double('intercept', intercept)], 'logit');
  return graph.finish(
    logit,
    all,
    'P = sigmoid(a·(b0 + Σ w·x + Σ pairs ⟨v, v⟩·x·x) + b)',
    nFeatures,
  );
}

/** float64 [N, nFields]: the values of a row, divided by its length where the model was fitted so. */
function entryValues(graph: Graph, o: SparseOnnxOptions, normalize: boolean): string {
  if (!o.values) {
    // The shape of the indices, filled: they are finite, so that times 0 is 0.
    const zeros = graph.add(
      'Mul',
      [graph.asDouble('indices', 'index'), graph.double('zero', 0)],
      'zeros',
    );
    const one = normalize ? Math.fround(1 / Math.sqrt(o.nFields)) : 1;
    return graph.add('Add', [zeros, graph.double('entry_value', one)], 'x');
  }
  const raw = graph.asDouble('values', normalize ? 'raw_x' : 'x');
  if (!normalize) return raw;
  const squares = graph.add('Mul', [raw, raw], 'squares');
  const axes = graph.int('row_axis', [1]);
  const square = graph.add('ReduceSum', [squares, axes], 'square', intAttribute('keepdims', 1));
  // Of a row of zeros nothing is left either way.
  const safe = graph.add('Max', [square, graph.double('smallest', 1e-300)], 'safe_square');
  return graph.add('Div', [raw, graph.add('Sqrt', [safe], 'length')], 'x');
}
