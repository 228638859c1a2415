import { type Calibration, calibrationLine } from '@waggle/ranking';
import { trainingError } from '../errors.js';
import { floats, int64s, node } from './onnx-model.js';

export interface CalibrationGraph {
  /** From the logit to `calibrated`, both float32 [N]. */
  readonly nodes: readonly object[];
  readonly initializers: readonly object[];
  readonly formula: string;
}

/**
 * A calibration as ONNX nodes; the graph around them has `column_axis` = [1].
 * @throws WAGGLE_TRAINING_EXPORT_MISMATCH for one that is no function of the logit
 */
export function calibrationGraph(
  name: string,
  calibration: Calibration,
  logit = 'logit',
): CalibrationGraph {
  const line = calibrationLine(calibration);
  if (line !== undefined) {
    return {
      nodes: [
        node('Mul', [logit, 'calibration_a'], 'scaled'),
        node('Add', ['scaled', 'calibration_b'], 'calibrated'),
      ],
      initializers: [floats('calibration_a', [], [line.a]), floats('calibration_b', [], [line.b])],
      formula: 'a·(w·(x − c) + b0) + b',
    };
  }
  const steps = calibration.kind === 'composed' ? calibration.steps : [calibration];
  const parts = steps.map((step, i) =>
    calibrationStep(name, step, {
      prefix: `calibration_${i}`,
      input: i === 0 ? logit : `calibration_${i - 1}_out`,
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
  const constant = (part: string, value: number) => floats(own(part), [], [value]);
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
      floats(own(part), [values.length], values);
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
