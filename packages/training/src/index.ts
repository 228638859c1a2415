export {
  type CalibrationFit,
  type CalibrationRows,
  calibrationWeights,
  fitCalibration,
  fitPlatt,
  MIN_CALIBRATION_CLUSTERS,
  MIN_CALIBRATION_SUCCESSES,
  MIN_ISOTONIC_ROWS,
} from './calibrate.js';
export {
  type BelievedSpread,
  fitBeta,
  fitIsotonic,
  fitSliceShifts,
  fitTemperature,
  type SliceShiftFit,
  type WeightedRows,
} from './calibration-fits.js';
export {
  checkDataset,
  LABEL_HORIZON_MS,
  type SplitOptions,
  selectRows,
  splitByTime,
  type TimeSplit,
  type TrainingDataset,
} from './dataset.js';
export {
  type EffectPriorOptions,
  type EffectPriors,
  type EffectRows,
  estimateEffectPriors,
  NO_GROUP,
} from './effect-priors.js';
export { trainingErrors } from './errors.js';
export { exportLinearOnnx, ONNX_TOLERANCE } from './export/onnx.js';
export { decodeOnnx, type OnnxExport } from './export/onnx-model.js';
export {
  exportFfmOnnx,
  exportSparseLinearOnnx,
  SPARSE_ONNX_TOLERANCE,
  type SparseOnnxOptions,
} from './export/sparse-onnx.js';
export {
  exportTreesOnnx,
  TREES_ONNX_TOLERANCE,
  type TreesOnnxExport,
  type TreesOnnxOptions,
} from './export/trees-onnx.js';
export {
  ACCEPT_EFFECT_PARAMS,
  CTR_EFFECT_PARAMS,
  describedPart,
  type EffectParams,
  estimateAcceptParams,
  estimateCtrParams,
  estimateFeatureParams,
  estimateSentParams,
  type FeatureParamsOptions,
  type OffsetTerm,
} from './feature-params.js';
export { buildDesign, type Design, WINSOR_SHARE } from './fit/design.js';
export {
  type Dispersion,
  type DispersionSample,
  dispersionWeights,
  estimateDispersion,
} from './fit/dispersion.js';
export {
  type FitOptions,
  type FitRows,
  fitLogistic,
  type LogisticFit,
  RIDGE_GRID,
} from './fit/logistic.js';
export {
  type GateCheck,
  type GateFallback,
  type GateMetrics,
  type GateOptions,
  type GateReport,
  type GateRows,
  MAX_LOG_CALIBRATION,
  MAX_RELATIVE_LOSS,
  runGate,
} from './gate.js';
export {
  gateImported,
  type ImportedScores,
  type ImportedVerdict,
  learnableUntil,
} from './gate-imported.js';
export { findLeaks, LEAK_AUC, type LeakSuspect } from './leakage.js';
export { evaluateOracleGap, type OracleGap, type OracleGapRows } from './oracle-gap.js';
export {
  betaPriorStrength,
  type PriorStrength,
  type RateCounts,
  type StrengthOptions,
  shrunkRate,
} from './prior.js';
export {
  advantageInSlot,
  fitJudgedSelection,
  fitSelectionCalibration,
  type JudgedSelection,
  measureSelection,
  releasedInWeek,
  type SelectedRows,
  type SelectionDecile,
  type SelectionFit,
  type SelectionReport,
  type SelectionRows,
  type SelectionVerdict,
  topPerSlot,
  weekSince,
} from './selection.js';
export { findMoved, MAX_SHIFT, MAX_SPREAD, type MovedFeature } from './stability.js';
export {
  type AnswerHead,
  type AnswerTraining,
  type TrainedAnswers,
  trainAnswers,
} from './suite/answers.js';
export {
  type ContentFitHead,
  type ContentFitTraining,
  type TrainedContentFit,
  trainContentFit,
} from './suite/content-fit.js';
export {
  type ContentQualityHead,
  type ContentQualityTraining,
  type Quality,
  type TrainedContentQuality,
  trainContentQuality,
} from './suite/content-quality.js';
export {
  type HumanHead,
  humanClicks,
  ringShare,
  type TrainedHuman,
  trainHuman,
  weighSuccesses,
} from './suite/human.js';
export { importedModelCard, linearModelCard, treesModelCard } from './suite/linear-card.js';
export { type ModelCard, renderModelCard } from './suite/model-card.js';
export {
  type ConversionLabels,
  checkConversionRows,
  fitPcvr,
  type PcvrModel,
  type PcvrTraining,
  scorePcvr,
  type TrainedPcvr,
  trainPcvr,
} from './suite/pcvr.js';
export {
  type JudgedRows,
  type Limits,
  type SliceOfModel,
  sliceTable,
} from './suite/slice-table.js';
export type { SuiteGate } from './suite/suite-gate.js';
export type { SuiteModel } from './suite/suite-model.js';
export {
  rawLogits,
  type TrainedModel,
  type TrainingSummary,
  type TrainOptions,
  trainAccept,
  trainCtr,
  trainSent,
} from './train.js';
export { type TrainedTrees, type TreesSummary, trainTrees } from './train-trees.js';
