import { createHash } from 'node:crypto';
import { type Calibration, calibrationLine, type LinearModel } from '@waggle/ranking';
import protobuf from 'protobufjs/light.js';
import { trainingError } from '../errors.js';
import { ONNX_FLOAT, ONNX_INT64, ONNX_SCHEMA } from './onnx-schema.js';

/**
 * The float32 twin agrees with the double scorer to this, absolutely, on features within a few standard deviations
 * of `centers`: a sum of F float32 products of size |w·(x − c)| errs by about F·2⁻²⁴·Σ|w·(x − c)| on the logit,
 * and a probability by a quarter of that at most.
 */
export const ONNX_TOLERANCE = 1e-6;

/** Read by every onnxruntime since 1.12; newer ones still do. */
const IR_VERSION = 8;
const OPSET = 17;

const ModelProto = protobuf.Root.fromJSON(
  // fromJSON wants a mutable type; it does not write to it.
  ONNX_SCHEMA as unknown as protobuf.INamespace,
).lookupType('onnx.ModelProto');

export interface OnnxExport {
  readonly bytes: Uint8Array;
  readonly sha256: string;
}

/**
 * Writes a linear model as ONNX: Sub(center) → Gemm → Squeeze → calibration → Sigmoid, float32 [N, F] `features`
 * to float32 [N] `probability`. Calibration is Mul(a) → Add(b) for a line, softplus sums for beta, a lookup of the knot below
 * and a line from it for isotonic; a shift by slice has no twin, since the slice is no feature. Centering in the graph keeps float32 sums small where features are large numbers
 * that vary little; the constant it removes is added back in double when weights are written. Byte-stable for
 * equal content, so its hash can name it.
 *
 * @param centers typical value of each feature (training means); zeros when absent
 * @throws WAGGLE_TRAINING_SHAPE, WAGGLE_TRAINING_EXPORT_MISMATCH when a number overflows float32 or the calibration
 *   shifts by slice
 */
export function exportLinearOnnx(
  model: Omit<LinearModel, 'version'>,
  centers: ArrayLike<number> = new Float64Array(model.coefficients.length),
): OnnxExport {
  const nFeatures = model.coefficients.length;
  if (centers.length !== nFeatures || model.featureNames.length !== nFeatures) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `${nFeatures} coefficients, ${model.featureNames.length} names, ${centers.length} centers`,
    );
  }
  const calibration = calibrationGraph(model);
  const center = new Float32Array(nFeatures);
  const weights = new Float32Array(nFeatures);
  let bias = model.intercept;
  for (let f = 0; f < nFeatures; f++) {
    const weight = model.coefficients[f]!;
    // A feature that is not used must not bring its rounding along.
    center[f] = weight === 0 ? 0 : Math.fround(centers[f]!);
    weights[f] = weight;
    bias += weight * center[f]!;
    if (!Number.isFinite(center[f]!) || !Number.isFinite(weights[f]!)) {
      throw trainingError(
        'WAGGLE_TRAINING_EXPORT_MISMATCH',
        `feature ${model.featureNames[f]}: coefficient ${weight} or center ${centers[f]} overflows float32`,
      );
    }
  }
  if (!Number.isFinite(Math.fround(bias))) {
    throw trainingError(
      'WAGGLE_TRAINING_EXPORT_MISMATCH',
      `the intercept ${bias} overflows float32`,
    );
  }
  const message = {
    irVersion: IR_VERSION,
    producerName: 'waggle',
    producerVersion: '0.1.0',
    domain: 'waggle',
    modelVersion: 1,
    docString: `${model.name}: P = sigmoid(${calibration.formula})`,
    opsetImport: [{ domain: '', version: OPSET }],
    metadataProps: [
      { key: 'waggle.model', value: model.name },
      { key: 'waggle.feature_set', value: model.featureSetFingerprint },
      { key: 'waggle.features', value: model.featureNames.join(',') },
    ],
    graph: {
      name: model.name,
      node: [
        node('Sub', ['features', 'center'], 'centered'),
        node('Gemm', ['centered', 'weights', 'intercept'], 'logit_column'),
        node('Squeeze', ['logit_column', 'column_axis'], 'logit'),
        ...calibration.nodes,
        node('Sigmoid', ['calibrated'], 'probability'),
      ],
      initializer: [
        floats('center', [nFeatures], center),
        floats('weights', [nFeatures, 1], weights),
        floats('intercept', [1], Float32Array.of(bias)),
        int64s('column_axis', [1], [1]),
        ...calibration.initializers,
      ],
      input: [value('features', [{ dimParam: 'N' }, { dimValue: nFeatures }])],
      output: [value('probability', [{ dimParam: 'N' }])],
    },
  };
  const problem = ModelProto.verify(message);
  if (problem !== null) throw trainingError('WAGGLE_TRAINING_SHAPE', `ONNX message: ${problem}`);
  const bytes = new Uint8Array(ModelProto.encode(message).finish());
  return { bytes, sha256: createHash('sha256').update(bytes).digest('hex') };
}

interface CalibrationGraph {
  /** From `logit` to `calibrated`, both float32 [N]. */
  readonly nodes: ReturnType<typeof node>[];
  readonly initializers: ReturnType<typeof floats | typeof int64s>[];
  readonly formula: string;
}

function calibrationGraph(model: Omit<LinearModel, 'version'>): CalibrationGraph {
  const line = calibrationLine(model.calibration);
  if (line !== undefined) {
    return {
      nodes: [
        node('Mul', ['logit', 'calibration_a'], 'scaled'),
        node('Add', ['scaled', 'calibration_b'], 'calibrated'),
      ],
      initializers: [
        floats('calibration_a', [], Float32Array.of(line.a)),
        floats('calibration_b', [], Float32Array.of(line.b)),
      ],
      formula: 'a·(w·(x − c) + b0) + b',
    };
  }
  const steps =
    model.calibration.kind === 'composed' ? model.calibration.steps : [model.calibration];
  const parts = steps.map((step, i) =>
    calibrationStep(model.name, step, {
      prefix: `calibration_${i}`,
      input: i === 0 ? 'logit' : `calibration_${i - 1}_out`,
      output: i === steps.length - 1 ? 'calibrated' : `calibration_${i}_out`,
    }),
  );
  return {
    nodes: parts.flatMap((part) => part.nodes),
    initializers: parts.flatMap((part) => part.initializers),
    formula: `${steps.map((step) => step.kind).join(' then ')} of w·(x − c) + b0`,
  };
}

function calibrationStep(
  name: string,
  step: Calibration,
  at: { readonly prefix: string; readonly input: string; readonly output: string },
): Omit<CalibrationGraph, 'formula'> {
  const { prefix, input, output } = at;
  const own = (part: string): string => `${prefix}_${part}`;
  const constant = (part: string, value: number) => floats(own(part), [], Float32Array.of(value));
  const line = calibrationLine(step);
  if (line !== undefined) {
    return {
      nodes: [
        node('Mul', [input, own('a')], own('scaled')),
        node('Add', [own('scaled'), own('b')], output),
      ],
      initializers: [constant('a', line.a), constant('b', line.b)],
    };
  }
  if (step.kind === 'beta') {
    return {
      nodes: [
        node('Neg', [input], own('negative')),
        node('Softplus', [own('negative')], own('minus_log_p')),
        node('Softplus', [input], own('minus_log_q')),
        node('Mul', [own('minus_log_p'), own('minus_a')], own('left')),
        node('Mul', [own('minus_log_q'), own('b')], own('right')),
        node('Add', [own('left'), own('right')], own('sum')),
        node('Add', [own('sum'), own('c')], output),
      ],
      initializers: [constant('minus_a', -step.a), constant('b', step.b), constant('c', step.c)],
    };
  }
  if (step.kind === 'isotonic') {
    const { x, y } = step;
    const last = x.length - 1;
    // Row k holds for k knots at or below the logit: the knot to start from and the slope from there.
    const starts = [0, ...x.keys()];
    const slopes = starts.map((k, row) =>
      row === 0 || k === last ? 1 : (y[k + 1]! - y[k]!) / (x[k + 1]! - x[k]!),
    );
    const table = (part: string, values: readonly number[]) =>
      floats(own(part), [values.length], Float32Array.from(values));
    return {
      nodes: [
        node('Unsqueeze', [input, 'column_axis'], own('column')),
        node('GreaterOrEqual', [own('column'), own('knots')], own('passed')),
        node('Where', [own('passed'), own('one'), own('zero')], own('counts')),
        node('ReduceSum', [own('counts'), 'column_axis'], own('row')),
        node('Gather', [own('starts'), own('row')], own('start')),
        node('Gather', [own('values'), own('row')], own('value')),
        node('Gather', [own('slopes'), own('row')], own('slope')),
        node('Sub', [own('column'), own('start')], own('beyond')),
        node('Mul', [own('beyond'), own('slope')], own('rise')),
        node('Add', [own('value'), own('rise')], own('raised')),
        node('Squeeze', [own('raised'), 'column_axis'], output),
      ],
      initializers: [
        table('knots', x),
        int64s(own('one'), [1], [1]),
        int64s(own('zero'), [1], [0]),
        table(
          'starts',
          starts.map((k) => x[k]!),
        ),
        table(
          'values',
          starts.map((k) => y[k]!),
        ),
        table('slopes', slopes),
      ],
    };
  }
  throw trainingError(
    'WAGGLE_TRAINING_EXPORT_MISMATCH',
    `${name}: a calibration of kind ${step.kind} cannot be written as a function of the features`,
    { remedy: 'Serve this model by its linear file; leave the ONNX twin out.' },
  );
}

/** Reads back what `exportLinearOnnx` wrote, as plain objects; for inspection and tests. */
export function decodeOnnx(bytes: Uint8Array): Record<string, unknown> {
  return ModelProto.toObject(ModelProto.decode(bytes), { longs: Number, arrays: true });
}

function node(opType: string, input: string[], output: string) {
  return { opType, name: output, input, output: [output] };
}

function floats(name: string, dims: number[], values: Float32Array) {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, v] of values.entries()) view.setFloat32(4 * i, v, true);
  return { name, dims, dataType: ONNX_FLOAT, rawData: bytes };
}

function int64s(name: string, dims: number[], values: number[]) {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, v] of values.entries()) view.setBigInt64(8 * i, BigInt(v), true);
  return { name, dims, dataType: ONNX_INT64, rawData: bytes };
}

function value(name: string, dim: ({ dimParam: string } | { dimValue: number })[]) {
  return { name, type: { tensorType: { elemType: ONNX_FLOAT, shape: { dim } } } };
}
