import { type CalibrationRatio, calibrationRatio, logLoss } from '@waggle/measurement';
import { trainingError } from './errors.js';

export interface OracleGapRows {
  /** [nRows] probability of a visible success by the model, by the truth without send noise. */
  readonly model: ArrayLike<number>;
  readonly oracle: ArrayLike<number>;
  /** The rate of the training data, times maturity where rows are young: a constant or one per row. */
  readonly global: ArrayLike<number> | number;
  readonly successes: ArrayLike<number>;
  readonly trials: ArrayLike<number>;
  /** Codes for the standard error of calibration. */
  readonly publications: ArrayLike<number>;
  readonly campaigns: ArrayLike<number>;
}

export interface OracleGap {
  readonly logLossGlobal: number;
  readonly logLossModel: number;
  readonly logLossOracle: number;
  /** (LL(global) − LL(model)) / (LL(global) − LL(oracle)): 0 = knows the average, 1 = knows the truth. */
  readonly gapClosed: number;
  readonly calibration: CalibrationRatio;
  readonly calibrationOfOracle: CalibrationRatio;
  readonly rows: number;
}

/**
 * How much of what there is to know a model knows, on rows later than its training. Only simulated worlds have
 * an oracle. O(n).
 * @throws WAGGLE_TRAINING_SHAPE when the oracle is no better than the global rate, and what @waggle/measurement throws
 */
export function evaluateOracleGap(rows: OracleGapRows): OracleGap {
  const { successes, trials, global } = rows;
  const constant =
    typeof global === 'number' ? new Float64Array(rows.model.length).fill(global) : global;
  const loss = (probability: ArrayLike<number>) => logLoss({ probability, successes, trials });
  const logLossGlobal = loss(constant);
  const logLossModel = loss(rows.model);
  const logLossOracle = loss(rows.oracle);
  if (!(logLossOracle < logLossGlobal)) {
    throw trainingError(
      'WAGGLE_TRAINING_SHAPE',
      `the oracle (${logLossOracle}) is no better than the global rate (${logLossGlobal}): the rows do not belong together`,
    );
  }
  const calibration = (probability: ArrayLike<number>) =>
    calibrationRatio({ probability, successes, trials }, rows.publications, rows.campaigns);
  return {
    logLossGlobal,
    logLossModel,
    logLossOracle,
    gapClosed: (logLossGlobal - logLossModel) / (logLossGlobal - logLossOracle),
    calibration: calibration(rows.model),
    calibrationOfOracle: calibration(rows.oracle),
    rows: rows.model.length,
  };
}
