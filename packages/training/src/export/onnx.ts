import type { LinearModel } from '@waggle/ranking';
import { trainingError } from '../errors.js';
import { calibrationGraph } from './calibration-graph.js';
import { encodeOnnx, floats, int64s, node, type OnnxExport, value } from './onnx-model.js';

/**
 * The float32 twin agrees with the double scorer to this, absolutely, on features within a few standard deviations
 * of `centers`: a sum of F float32 products of size |w·(x − c)| errs by about F·2⁻²⁴·Σ|w·(x − c)| on the logit,
 * and a probability by a quarter of that at most.
 */
export const ONNX_TOLERANCE = 1e-6;

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
  const calibration = calibrationGraph(model.name, model.calibration);
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
  return encodeOnnx({
    name: model.name,
    docString: `${model.name}: P = sigmoid(${calibration.formula})`,
    metadata: {
      'waggle.model': model.name,
      'waggle.feature_set': model.featureSetFingerprint,
      'waggle.features': model.featureNames.join(','),
    },
    nodes: [
      node('Sub', ['features', 'center'], 'centered'),
      node('Gemm', ['centered', 'weights', 'intercept'], 'logit_column'),
      node('Squeeze', ['logit_column', 'column_axis'], 'logit'),
      ...calibration.nodes,
      node('Sigmoid', ['calibrated'], 'probability'),
    ],
    initializers: [
      floats('center', [nFeatures], center),
      floats('weights', [nFeatures, 1], weights),
      floats('intercept', [1], [bias]),
      int64s('column_axis', [1], [1]),
      ...calibration.initializers,
    ],
    inputs: [value('features', ['N', nFeatures])],
    outputs: [value('probability', ['N'])],
  });
}
