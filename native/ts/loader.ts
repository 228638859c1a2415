import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { fromAddon, nativeError } from './errors.js';
import type { SparseRowsArguments, SparseTargetsArguments } from './sparse.js';
import type { RawTreesDump } from './trees-dump.js';

/** What a job function of the addon returns: `cancel(id)` stops it, `promise` settles with what the job made. */
export interface SubmittedJob<Result = void> {
  readonly id: number;
  readonly promise: Promise<Result>;
}

export interface RawBackendInfo {
  readonly backend: 'cpu' | 'cuda';
  readonly simd: 'scalar' | 'avx2' | 'avx512' | 'neon';
  readonly available: readonly string[];
  readonly rejected: readonly { readonly name: string; readonly reason: string }[];
  readonly threads: number;
  readonly requestedBackend: string;
  readonly requestedSimd: string;
  readonly device: string;
  readonly deviceOperations: readonly string[];
  readonly deviceLibraries: string;
  readonly pluginPath: string;
}

/** Rates this machine reached just now; see `probeMachine`. */
export interface MachineLimits {
  /** Bytes/s that all engine threads together read from a buffer of 256 MiB. */
  readonly readBytesPerSecond: number;
  /** float32 operations/s (a fused multiply-add counts as two) of all threads together, in registers. */
  readonly flopsPerSecond: number;
  /** The same of one thread alone. */
  readonly flopsPerSecondOneThread: number;
  readonly threads: number;
}

type Column<A> = A | undefined;

/** An opaque object of the addon; see `addon/handle.hpp`. */
export interface NativeHandle {
  readonly __native: unique symbol;
}

/** The compiled module. Everything is positional; meanings are in `addon/jobs/*_job.cpp`. */
export interface Addon {
  start(): void;
  backendInfo(): RawBackendInfo;
  cancel(id: number): void;
  queueDepth(): number;
  topk(...args: TopkArguments): SubmittedJob;
  topkSync(...args: TopkArguments): void;
  encodeMatrix(...args: EncodeArguments): SubmittedJob;
  topkEncoded(...args: TopkEncodedArguments): SubmittedJob<TopkEncodedReport>;
  deviceMatrixOpen(
    matrix: Float32Array,
    nRows: number,
    dim: number,
    dtype: number,
    keepExact: boolean,
  ): SubmittedJob<{ readonly handle: NativeHandle; readonly deviceBytes: number }>;
  deviceMatrixTopk(
    handle: NativeHandle,
    queries: Float32Array,
    nQueries: number,
    k: number,
    metric: number,
    filter: Column<Uint8Array>,
    filters: Column<Uint8Array>,
    allowRows: Column<Int32Array>,
    scores: Float32Array,
    rows: Int32Array,
  ): SubmittedJob<{ readonly nInDoubt: number; readonly nRescored: number }>;
  deviceMatrixClose(handle: NativeHandle): void;
  deviceItemsOpen(
    nItems: number,
    embeddings: Column<Float32Array>,
    dim: number,
    itemFeatures: Column<Float32Array>,
    nItemFeatures: number,
  ): SubmittedJob<{ readonly handle: NativeHandle; readonly deviceBytes: number }>;
  deviceItemsClose(handle: NativeHandle): void;
  scoreRank(...args: ScoreRankArguments): SubmittedJob;
  scoreRankSync(...args: ScoreRankArguments): void;
  glmFit(...args: GlmFitArguments): SubmittedJob;
  rankBatch(...args: RankBatchArguments): SubmittedJob;
  loadTrees(bytes: Uint8Array, size: number, format: number): SubmittedJob<RawTrees>;
  treesFit(...args: TreesFitArguments): SubmittedJob<RawTreesFit>;
  treesPredict(...args: TreesPredictArguments): SubmittedJob;
  treesPredictSync(...args: TreesPredictArguments): void;
  treesShap(...args: TreesShapArguments): SubmittedJob;
  dumpTrees(model: NativeHandle): RawTreesDump;
  writeTrees(model: NativeHandle): Uint8Array;
  closeTrees(model: NativeHandle): void;
  machineProbe(): SubmittedJob<MachineLimits>;
  kmeans(...args: KmeansArguments): SubmittedJob;
  ivfBuild(...args: IvfBuildArguments): SubmittedJob<IvfIndexHandle>;
  ivfSearch(...args: IvfSearchArguments): SubmittedJob<RawIvfReport>;
  ivfSave(index: IvfIndexHandle, path: string): SubmittedJob;
  ivfLoad(path: string): SubmittedJob<IvfIndexHandle>;
  ivfStats(index: IvfIndexHandle): RawIvfStats;
  ivfClose(index: IvfIndexHandle): void;
  indexCreate(
    dim: number,
    metric: number,
    storage: number,
    keepF32: boolean,
    idType: number,
    maxRows: number,
  ): IndexHandle;
  indexLoad(path: string, verifyAll: boolean): SubmittedJob<LoadedIndex>;
  indexUpsert(index: IndexHandle, ...args: [...IdArguments, vectors: Float32Array]): SubmittedJob;
  indexDelete(index: IndexHandle, ...args: IdArguments): SubmittedJob<number>;
  indexSearch(index: IndexHandle, ...args: IndexSearchArguments): SubmittedJob<RawIndexAnswer>;
  indexCompact(index: IndexHandle): SubmittedJob;
  indexSave(index: IndexHandle, path: string): SubmittedJob;
  indexStats(index: IndexHandle): RawIndexStats;
  indexClose(index: IndexHandle): void;
  hashFeatures(
    nRows: number,
    columns: readonly HashColumnArguments[],
    bits: number,
    seed: bigint,
    count: boolean,
    indices: Int32Array,
    values: Column<Float32Array>,
  ): SubmittedJob<RawHashReport>;
  effectsFit(...args: EffectsFitArguments): SubmittedJob<RawEffectsFit>;
  glmSparse(...args: GlmSparseArguments): SubmittedJob<RawGlmSparse>;
  ftrlCreate(
    nFeatures: number,
    alpha: number,
    beta: number,
    l1: number,
    l2: number,
    intercept: boolean,
  ): SubmittedJob<RawFtrl>;
  ftrlLearn(
    model: NativeHandle,
    ...args: [
      ...SparseRowsArguments,
      ...SparseTargetsArguments,
      predictions: Column<Float64Array>,
      progress: Float64Array,
      summary: Float64Array,
    ]
  ): SubmittedJob;
  ftrlPredict(model: NativeHandle, ...args: SparsePredictArguments): SubmittedJob;
  ftrlWeights(model: NativeHandle): SubmittedJob<{
    readonly indices: Int32Array;
    readonly values: Float64Array;
    readonly intercept: number;
  }>;
  ftrlStats(model: NativeHandle): SubmittedJob<RawFtrlStats>;
  ftrlSave(model: NativeHandle, path: string): SubmittedJob;
  ftrlLoad(path: string): SubmittedJob<RawFtrl>;
  ftrlClose(model: NativeHandle): void;
  ffmCreate(
    nFeatures: number,
    nFields: number,
    k: number,
    learningRate: number,
    accumulator: number,
    l2: number,
    linearL2: number,
    normalize: boolean,
    linear: boolean,
    seed: number,
  ): SubmittedJob<RawFfm>;
  ffmFit(
    model: NativeHandle,
    ...args: FfmFitArguments
  ): SubmittedJob<{ readonly epochs: number; readonly bestEpoch: number }>;
  ffmPredict(model: NativeHandle, ...args: SparsePredictArguments): SubmittedJob;
  ffmWeights(
    model: NativeHandle,
    linear: Float32Array,
    interactions: Float32Array,
  ): SubmittedJob<number>;
  ffmStats(model: NativeHandle): SubmittedJob<{ readonly epochs: number; readonly bytes: number }>;
  ffmSave(model: NativeHandle, path: string): SubmittedJob;
  ffmLoad(path: string): SubmittedJob<RawFfm>;
  ffmClose(model: NativeHandle): void;
}

/** One column: integers, or UTF-8 bytes with the end of each. */
export type HashColumnArguments = [
  field: Uint8Array,
  narrow: Column<Int32Array>,
  wide: Column<BigInt64Array>,
  text: Column<Uint8Array>,
  ends: Column<Uint32Array>,
];

export interface RawHashReport {
  readonly distinct: readonly number[];
  readonly buckets: number;
  readonly collisions: number;
}

export type GlmSparseArguments = [
  ...SparseRowsArguments,
  ...SparseTargetsArguments,
  nFeatures: number,
  l1: number | Float64Array,
  l2: number | Float64Array,
  intercept: boolean,
  maxIterations: number,
  tolerance: number,
  start: Column<Float64Array>,
  coefficients: Float64Array,
];

export type EffectsFitArguments = [
  link: number,
  nRows: number,
  successes: Float64Array,
  exposure: Float64Array,
  offset: Column<Float64Array>,
  levels: Float64Array,
  codes: Int32Array,
  columns: Column<Float64Array>,
  nColumns: number,
  columnBeliefs: Column<Float64Array>,
  baseMean: number,
  baseVariance: number,
  dispersion: number,
  meanRates: boolean,
  maxIterations: number,
  tolerance: number,
  traceProbes: number,
  start: Column<Float64Array>,
  state: Float64Array,
  information: Float64Array,
  traces: Column<Float64Array>,
];

export interface RawEffectsFit {
  readonly iterations: number;
  readonly products: number;
  readonly converged: boolean;
}

export interface RawGlmSparse {
  readonly intercept: number;
  readonly iterations: number;
  readonly converged: boolean;
  readonly deviance: number;
  readonly logLikelihood: number;
  readonly nNonZero: number;
  readonly l1Activation: number;
}

export interface RawFtrl {
  readonly handle: NativeHandle;
  readonly nFeatures: number;
  readonly alpha: number;
  readonly beta: number;
  readonly l1: number;
  readonly l2: number;
  readonly intercept: boolean;
}

export interface RawFtrlStats {
  readonly nRows: number;
  readonly totalWeight: number;
  readonly loss: number;
  readonly nTouched: number;
  readonly nNonZero: number;
  readonly bytes: number;
}

export interface RawFfm {
  readonly handle: NativeHandle;
  readonly nFeatures: number;
  readonly nFields: number;
  readonly k: number;
  readonly learningRate: number;
  readonly accumulator: number;
  readonly l2: number;
  readonly linearL2: number;
  readonly normalize: boolean;
  readonly linear: boolean;
  readonly seed: number;
}

export type SparsePredictArguments = [
  ...SparseRowsArguments,
  offset: Column<Float64Array>,
  out: Float64Array,
];

export type FfmFitArguments = [
  ...SparseRowsArguments,
  ...SparseTargetsArguments,
  epochs: number,
  shuffle: boolean,
  schedule: number,
  patience: number,
  trainLoss: Float64Array,
  validationLoss: Float64Array,
  progress: Float64Array,
  ...validation: readonly unknown[],
];

/** An opaque object that owns a native index. */
export type IndexHandle = object & { readonly __index?: never };

export interface LoadedIndex {
  readonly handle: IndexHandle;
  readonly dim: number;
  readonly metric: number;
  readonly storage: number;
  readonly keepF32: boolean;
  readonly idType: number;
  readonly maxRows: number;
}

/** Ids of either type: numbers, or UTF-8 bytes with the end of each. */
export type IdArguments = [
  count: number,
  numbers: Column<BigUint64Array>,
  bytes: Column<Uint8Array>,
  ends: Column<Uint32Array>,
];

export type IndexSearchArguments = [
  queries: Float32Array,
  nQueries: number,
  k: number,
  scores: Float32Array,
  rows: Int32Array,
  nInDoubt: Int32Array,
  ids: Column<BigUint64Array>,
  bitmap: Column<Uint8Array>,
  filterRows: Column<Int32Array>,
  nFilterRows: number,
  layout: number,
  hasFilterIds: boolean,
  ...filterIds: IdArguments,
];

export interface RawIndexAnswer {
  readonly version: number;
  readonly layout: number;
  readonly certified: boolean;
  readonly idBytes?: Uint8Array;
  readonly idEnds?: Uint32Array;
}

export interface RawIndexStats {
  readonly live: number;
  readonly deleted: number;
  readonly segments: number;
  readonly version: number;
  readonly layout: number;
  readonly vectors: number;
  readonly encoded: number;
  readonly ids: number;
  readonly idMap: number;
  readonly bitmaps: number;
  readonly mapped: number;
  readonly reserved: number;
}

declare const ivfIndex: unique symbol;
/** An opaque object of the addon. */
export interface IvfIndexHandle {
  readonly [ivfIndex]: true;
}

export interface RawIvfReport {
  readonly rowsScanned: number;
  readonly listsProbed: number;
  readonly exhaustive: number;
}

export interface RawIvfStats {
  readonly nRows: number;
  readonly dim: number;
  readonly metric: number;
  readonly nLists: number;
  readonly int8Lists: boolean;
  readonly keepsRows: boolean;
  readonly nProbe: number;
  readonly recallTarget: number;
  readonly recallK: number;
  readonly nMeasured: number;
  readonly heldOut: boolean;
  readonly largestList: number;
  readonly bytes: number;
  readonly curve: readonly {
    readonly nProbe: number;
    readonly recall: number;
    readonly standardError: number;
  }[];
}

export type KmeansArguments = [
  x: Float32Array,
  nRows: number,
  dim: number,
  k: number,
  seed: number,
  maxIterations: number,
  tolerance: number,
  samplesPerCluster: number,
  start: Column<Float32Array>,
  centroids: Float32Array,
  assignments: Int32Array,
  summary: Float64Array,
];

export type IvfBuildArguments = [
  matrix: Float32Array,
  nRows: number,
  dim: number,
  metric: number,
  nLists: number,
  int8Lists: boolean,
  keepRows: boolean,
  recall: number,
  recallK: number,
  heldOut: Column<Float32Array>,
  nHeldOut: number,
  nSample: number,
  seed: number,
  progress: Float64Array,
];

export type IvfSearchArguments = [
  index: IvfIndexHandle,
  queries: Float32Array,
  nQueries: number,
  k: number,
  nProbe: number,
  filter: Column<Uint8Array>,
  filters: Column<Uint8Array>,
  allowRows: Column<Int32Array>,
  scores: Float32Array,
  rows: Int32Array,
];

export type TopkArguments = [
  queries: Float32Array,
  nQueries: number,
  matrix: Float32Array,
  nRows: number,
  dim: number,
  k: number,
  metric: number,
  filter: Column<Uint8Array>,
  filters: Column<Uint8Array>,
  allowRows: Column<Int32Array>,
  scores: Float32Array,
  rows: Int32Array,
];

export type EncodeArguments = [
  matrix: Float32Array,
  nRows: number,
  dim: number,
  dtype: number,
  data: Int8Array | Uint16Array,
  scale: Column<Float32Array>,
  error: Float32Array,
  norm: Float32Array,
  lower: Column<Uint16Array>,
];

export type TopkEncodedArguments = [
  queries: Float32Array,
  nQueries: number,
  nRows: number,
  dim: number,
  dtype: number,
  data: Int8Array | Uint16Array,
  scale: Column<Float32Array>,
  error: Float32Array,
  norm: Float32Array,
  lower: Column<Uint16Array>,
  matrix: Column<Float32Array>,
  k: number,
  metric: number,
  filter: Column<Uint8Array>,
  filters: Column<Uint8Array>,
  allowRows: Column<Int32Array>,
  scores: Float32Array,
  rows: Int32Array,
  nInDoubt: Int32Array,
  isCertified: Uint8Array,
];

export interface TopkEncodedReport {
  readonly certified: boolean;
  readonly nRescored: number;
}

export type ScoreRankArguments = [
  params: Float64Array,
  q: Float32Array,
  spend: Float32Array,
  payout: Float32Array,
  fit: Float32Array,
  advertiser: Column<Float32Array>,
  explore: Column<Float32Array>,
  goalUnits: Column<Float32Array>,
  frequency: Column<Float32Array>,
  mu: Column<Float32Array>,
  omega: Column<Float32Array>,
  rho: Column<Float32Array>,
  filter: Column<Uint8Array>,
  group: Column<Int32Array>,
  separation: Column<Int32Array>,
  rows: Int32Array,
  scores: Float64Array,
  terms: Float64Array,
  counts: Int32Array,
];

export type RankBatchArguments = [
  params: Float64Array,
  eligible: Column<Uint8Array>,
  candidates: Column<Int32Array>,
  offsets: Column<Int32Array>,
  queries: Column<Float32Array>,
  embeddings: Column<Float32Array>,
  itemFeatures: Column<Float32Array>,
  requestFeatures: Column<Float32Array>,
  trees: NativeHandle | undefined,
  coefficients: Column<Float64Array>,
  price: Float32Array,
  volume: Column<Float32Array>,
  fixedSpend: Column<Float32Array>,
  payoutShare: Column<Float32Array>,
  q: Column<Float32Array>,
  fit: Column<Float32Array>,
  advertiser: Column<Float32Array>,
  explore: Column<Float32Array>,
  goalUnits: Column<Float32Array>,
  frequency: Column<Float32Array>,
  mu: Column<Float32Array>,
  omega: Column<Float32Array>,
  rho: Column<Float32Array>,
  group: Column<Int32Array>,
  separation: Column<Int32Array>,
  items: Int32Array,
  scores: Float64Array,
  terms: Float64Array,
  predictions: Float32Array,
  counts: Int32Array,
  resident: NativeHandle | undefined,
];

export interface RawTrees {
  readonly handle: NativeHandle;
  readonly nFeatures: number;
  readonly nTargets: number;
  readonly nOutputs: number;
  readonly nTrees: number;
  readonly hasCovers: boolean;
  readonly kind: number;
  readonly bytes: number;
}

/** Columns of a set of rows; `x` undefined = there is none. */
export type TreesFitRowsArguments = [
  x: Column<Float32Array>,
  nRows: number,
  y: Column<Float64Array>,
  trials: Column<Float64Array>,
  weights: Column<Float64Array>,
  offset: Column<Float64Array>,
  groups: Column<Uint32Array>,
];

export type TreesFitArguments = [
  ...train: TreesFitRowsArguments,
  ...validation: TreesFitRowsArguments,
  nFeatures: number,
  nTargets: number,
  categorical: Column<Int32Array>,
  monotone: Column<Int8Array>,
  numbers: Float64Array,
  progress: Float64Array,
];

export interface RawTreesFit {
  readonly trees: RawTrees;
  readonly bestTree: number;
  readonly trainLoss: Float64Array;
  readonly validationLoss: Float64Array;
  readonly gain: Float64Array;
  readonly splits: Float64Array;
}

export type TreesShapArguments = [
  model: NativeHandle,
  x: Float32Array,
  nRows: number,
  background: Column<Float32Array>,
  nBackground: number,
  threads: number,
  out: Float64Array,
];

export type TreesPredictArguments = [
  model: NativeHandle,
  x: Float32Array,
  nRows: number,
  raw: boolean,
  threads: number,
  out: Float32Array,
];

export type GlmFitArguments = [
  x: Float32Array,
  nRows: number,
  nFeatures: number,
  successes: Float64Array,
  trials: Float64Array,
  weights: Column<Float64Array>,
  offset: Column<Float64Array>,
  l2: Float64Array,
  l1: Column<Float64Array>,
  intercept: boolean,
  standardize: boolean,
  maxIterations: number,
  tolerance: number,
  start: Column<Float64Array>,
  coefficients: Float64Array,
  standardErrors: Float64Array,
  summary: Float64Array,
];

/** `build/Release` of the package, from `ts/` and from `dist/` alike. */
export const addonPath = fileURLToPath(
  new URL('../build/Release/waggle_native.node', import.meta.url),
);

/** What builds it, in the repository and in an installed package. */
const builder = fileURLToPath(new URL('../build-addon.mjs', import.meta.url));

let loaded: Addon | undefined;

/**
 * The addon, loaded on first use, once per environment.
 * @throws WAGGLE_NATIVE_LOAD when it is missing or cannot be loaded; WAGGLE_NATIVE_BACKEND when WAGGLE_BACKEND
 *   or WAGGLE_SIMD force something this machine cannot do.
 */
export function addon(): Addon {
  loaded ??= loadAddon(addonPath);
  return loaded;
}

/** Loads and starts the compiled engine at `path`; every failure says what to do. */
export function loadAddon(path: string): Addon {
  if (!existsSync(path)) {
    throw nativeError('WAGGLE_NATIVE_LOAD', `the compiled engine is not at ${path}`, {
      details: { path: path },
      // npm builds it when it installs the package, unless scripts of dependencies are switched off.
      remedy: existsSync(builder)
        ? `Build it, with CMake ≥ 3.22 and a C++20 compiler: node ${builder}`
        : 'Leave @waggle/native out of the bundle (esbuild: --external:@waggle/native): it loads files of its own package.',
    });
  }
  let module: Addon;
  try {
    module = createRequire(import.meta.url)(path) as Addon;
  } catch (error) {
    throw nativeError(
      'WAGGLE_NATIVE_LOAD',
      `the compiled engine at ${path} cannot be loaded: ${(error as Error).message}`,
      {
        cause: error,
        details: { path: path, node: process.version, arch: process.arch },
        remedy: `Rebuild it on this machine: node ${builder} --force (the message above names what is missing).`,
      },
    );
  }
  try {
    module.start();
  } catch (error) {
    throw fromAddon(error);
  }
  return module;
}
