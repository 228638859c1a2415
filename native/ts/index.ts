export {
  type BackendInfo,
  type BackendName,
  backendInfo,
  type ChildProbe,
  logBackend,
  probeInChild,
  type SimdName,
} from './backend.js';
export { DeviceItems, type DeviceItemsInput } from './device-items.js';
export {
  type DeviceDtype,
  DeviceMatrix,
  type DeviceMatrixInput,
  type DeviceTopkInput,
  type DeviceTopkResult,
} from './device-matrix.js';
export {
  type EffectsBelief,
  type EffectsFitInput,
  type EffectsFitResult,
  type EffectsLevel,
  effectsFit,
} from './effects-fit.js';
export {
  type EncodedDtype,
  type EncodedMatrix,
  type EncodeInput,
  encodeMatrix,
  type TopkEncodedInput,
  type TopkEncodedResult,
  topkEncoded,
} from './encoded.js';
export { type NativeErrorCode, nativeErrors } from './errors.js';
export {
  FFM_MAX_K,
  Ffm,
  type FfmFitInput,
  type FfmFitResult,
  type FfmOptions,
  type FfmSchedule,
  type FfmWeights,
} from './ffm.js';
export {
  Ftrl,
  type FtrlLearned,
  type FtrlLearnInput,
  type FtrlOptions,
  type FtrlStats,
  type SparsePredictInput,
  type SparseWeights,
} from './ftrl.js';
export { GLM_MAX_FEATURES, type GlmFitInput, type GlmFitResult, glmFit } from './glm-fit.js';
export { type GlmPath, type GlmPathOptions, glmPath, glmPathSparse } from './glm-path.js';
export { type GlmSparseInput, type GlmSparseResult, glmFitSparse } from './glm-sparse.js';
export {
  HASH_MAX_BITS,
  type HashColumn,
  type HashedFeatures,
  type HashFeaturesInput,
  hashFeatures,
} from './hash-features.js';
export {
  IVF_MAX_LISTS,
  type IvfBuildInput,
  IvfIndex,
  type IvfRecallPoint,
  type IvfSearchInput,
  type IvfSearchResult,
  type IvfStage,
  type IvfStats,
} from './ivf.js';
export { MAX_JOBS_IN_FLIGHT, queueDepth } from './jobs.js';
export { KMEANS_MAX_CLUSTERS, type KmeansInput, type KmeansResult, kmeans } from './kmeans.js';
export { type MachineLimits, probeMachine } from './probe.js';
export {
  type LinearRankModel,
  type RankBatchColumns,
  type RankBatchInput,
  type RankBatchResult,
  rankBatch,
} from './rank-batch.js';
export {
  SCORE_RANK_SYNC_MAX,
  SCORE_TERM_COUNT,
  type ScoreRankInput,
  type ScoreRankResult,
  type ScoreWeights,
  scoreRank,
  scoreRankSync,
} from './score-rank.js';
export {
  SPARSE_MAX_FEATURES,
  SPARSE_MAX_FIELDS,
  type SparseRows,
  type SparseTargets,
} from './sparse.js';
export {
  type Metric,
  TOPK_MAX_K,
  TOPK_SYNC_MAX_WORK,
  type TopkInput,
  type TopkResult,
  topk,
  topkSync,
} from './topk.js';
export {
  TREES_SYNC_MAX_WORK,
  Trees,
  type TreesFormat,
  type TreesKind,
  type TreesPredictInput,
  type TreesShapInput,
} from './trees.js';
export {
  TREES_DECISIONS,
  TREES_MISSINGS,
  type TreesDump,
  type TreesTransform,
} from './trees-dump.js';
export {
  type TreesFitInput,
  type TreesFitResult,
  type TreesFitRows,
  type TreesGrowth,
  type TreesObjective,
  treesFit,
} from './trees-fit.js';
export {
  type FileVerification,
  type IdsOf,
  type IdType,
  type StringIds,
  VECTOR_INDEX_MAX_DIM,
  VECTOR_INDEX_MAX_ROWS,
  type VectorDtype,
  VectorIndex,
  type VectorIndexFilter,
  type VectorIndexOptions,
  type VectorIndexQuery,
  type VectorIndexResult,
  type VectorIndexStats,
} from './vector-index.js';
