import type { BenchRecord } from '../record.js';

/** What a figure is held against; the texts are the issue's own. */
export interface Target {
  /** `suite/case` */
  readonly id: string;
  readonly metric: string;
  readonly text: string;
  /** Which number of the record. */
  readonly field: 'value' | 'ratio' | 'fractionOfLimit';
  readonly atLeast?: number;
  readonly atMost?: number;
  /** Only a record with this peer answers it. */
  readonly peer?: string;
  /** The page shows an error beside its limit; a share of an error's limit says nothing to a reader. */
  readonly besideLimit?: true;
  /** Another way to what a target asks for: shown where it was measured, asked of no machine. */
  readonly anotherWay?: true;
}

const time = { metric: 'time_ms' } as const;
const vsF32 = { metric: 'speedup_vs_f32', field: 'value' } as const;
const vsUnfiltered = { metric: 'speedup_vs_unfiltered', field: 'value' } as const;
const faiss = { ...time, field: 'ratio', peer: 'FAISS flat' } as const;
const limit = { ...time, field: 'fractionOfLimit' } as const;
const error = { field: 'fractionOfLimit', besideLimit: true } as const;
const memory = { id: 'topk/memory', field: 'value' } as const;

/** 2 cores with AVX-512, 1M × 384, k = 100, ratios within one run. */
export const TARGETS: readonly Target[] = [
  {
    id: 'topk/f32/q1',
    ...limit,
    atLeast: 0.8,
    text: '≥ 80 % of the read bandwidth measured in the run',
  },
  { id: 'topk/f32/q1', ...faiss, atLeast: 3, text: '≥ 3× FAISS flat' },
  {
    id: 'topk/bf16/q1',
    ...faiss,
    atLeast: 3,
    anotherWay: true,
    text: 'the same answers in the same memory, floats cut in halves: ≥ 3× FAISS flat',
  },
  {
    id: 'topk/f32/q64',
    ...limit,
    atLeast: 0.7,
    text: '≥ 70 % of the rate that a large sgemm reaches in the run',
  },
  { id: 'topk/f32/q64', ...faiss, atLeast: 3, text: '≥ 3× FAISS flat' },
  { id: 'topk/f32/q1024', ...limit, atLeast: 0.75, text: '≥ 75 % of that sgemm rate' },
  { id: 'topk/f32/q1024', ...faiss, atLeast: 1.05, text: '≥ 1.05× FAISS flat' },
  { id: 'topk/int8/q1', ...vsF32, atLeast: 2.8, text: '2.8× our own f32, results identical' },
  { id: 'topk/int8/q1024', ...vsF32, atLeast: 2, text: '2× our own f32, results identical' },
  {
    id: 'filter/shared/q64',
    ...vsUnfiltered,
    atLeast: 40,
    text: '1 % filter: shared bitmap ≥ 40×',
  },
  {
    id: 'filter/per-query/q64',
    ...vsUnfiltered,
    atLeast: 8,
    text: '1 % filter: one per query ≥ 8×',
  },
  { id: 'filter/q1', ...vsUnfiltered, atLeast: 40, text: '1 % filter: single query ≥ 40×' },
  {
    id: 'ivf/1m/q64',
    metric: 'speedup_vs_exact',
    field: 'value',
    atLeast: 25,
    text: 'int8 at recall@10 ≥ 0.95: 25× our exact at 64 queries',
  },
  {
    id: 'ivf/1m/q64',
    metric: 'recall_at_10',
    field: 'value',
    atLeast: 0.95,
    text: 'recall@10 ≥ 0.95',
  },
  {
    id: 'ivf/200k-vs-hnsw',
    metric: 'queries_per_s',
    field: 'ratio',
    peer: 'hnswlib-node',
    atLeast: 1,
    text: 'at equal recall not behind `hnswlib-node` in queries/s',
  },
  {
    id: 'ivf/200k-vs-hnsw',
    metric: 'build_s',
    field: 'ratio',
    peer: 'hnswlib-node',
    atLeast: 5,
    text: 'build ≥ 5× faster',
  },
  {
    id: 'trees/200x6',
    metric: 'rows_per_s',
    field: 'ratio',
    peer: 'onnxruntime-node',
    atLeast: 12,
    text: '200 trees × depth 6: 12× `onnxruntime-node` TreeEnsemble',
  },
  {
    id: 'trees/500x8',
    metric: 'rows_per_s',
    field: 'ratio',
    peer: 'onnxruntime-node',
    atLeast: 8,
    text: '500 × depth 8: 8×',
  },
  {
    id: 'rank-batch/64x1000',
    ...time,
    field: 'ratio',
    peer: 'onnxruntime-node',
    atLeast: 10,
    text: '10× the same done stage by stage with `onnxruntime-node` and JavaScript',
  },
  { ...memory, metric: 'f32_ratio', atMost: 1.05, text: 'f32 index ≤ 1.05× raw' },
  {
    ...memory,
    metric: 'bf16_and_f32_ratio',
    atMost: 1.05,
    anotherWay: true,
    text: 'certified bf16, floats included ≤ 1.05× raw',
  },
  {
    ...memory,
    metric: 'int8_beside_f32_ratio',
    atMost: 1.3,
    text: 'certified int8 beside f32 ≤ 1.30×',
  },
  { ...memory, metric: 'int8_alone_ratio', atMost: 0.28, text: 'int8 alone ≤ 0.28×' },
  { ...memory, metric: 'search_scratch_mb', atMost: 64, text: 'search scratch ≤ 64 MB' },
  {
    id: 'topk/event-loop',
    metric: 'p99_overshoot_ms',
    field: 'value',
    atMost: 1,
    text: 'p99 overshoot of a 1 ms timer ≤ 1 ms with 8 searches of 100 ms queued on a pool of two threads',
  },
];

/** What must be measured on a GPU machine; H200 figures, ratios to PyTorch in the same run. */
export const GPU_TARGETS: readonly Target[] = [
  {
    id: 'topk/f16/q1/cuda',
    ...limit,
    atLeast: 0.8,
    text: 'batch-1 f16 scan ≥ 80 % of read bandwidth',
  },
  {
    id: 'topk/f16/q1024/n10m/cuda',
    ...limit,
    atLeast: 0.45,
    text: '1,024 queries × 10M × 384 f16 ≥ 45 % of the dense tensor rate that a large matrix product reaches there',
  },
  {
    id: 'topk/f16/q1024/n10m/cuda',
    ...time,
    field: 'ratio',
    peer: 'torch',
    atLeast: 5,
    text: '≥ 5× PyTorch chunked matmul + topk',
  },
  {
    id: 'topk/int8/q1024/n10m/cuda',
    metric: 'speedup_vs_f16',
    field: 'value',
    atLeast: 1.6,
    text: 'int8 ≥ 1.6× f16',
  },
  {
    id: 'topk/int8/q1/n100m/cuda',
    ...time,
    field: 'value',
    text: '100M × 384 int8 resident and searched exactly',
  },
  {
    id: 'trees/200x6/n100k/cuda',
    metric: 'speedup_vs_one_cpu_thread',
    field: 'value',
    atLeast: 50,
    text: '`trees.predict` ≥ 50× one CPU thread at 100k rows',
  },
];

/** Series against their competition, inventory against what chance leaves. */
export const FORECAST_TARGETS: readonly Target[] = [
  {
    id: 'forecast/m4-hourly',
    metric: 'mase',
    field: 'value',
    atMost: 1.1,
    text: 'M4 hourly: MASE ≤ 1.10 (seasonal naive 1.193)',
  },
  {
    id: 'forecast/m4-hourly',
    metric: 'mase',
    field: 'ratio',
    atLeast: 1,
    text: 'not worse than the best of StatsForecast’s AutoETS, AutoTheta and MSTL',
  },
  ...(['delivered', 'opens', 'clicks'] as const).flatMap((target): Target[] => [
    {
      id: `forecast/inventory/${target}`,
      metric: 'wmape',
      ...error,
      atLeast: 1 / 1.15,
      text: `${target} per send: WMAPE ≤ 1.15× the irreducible error`,
    },
    {
      id: `forecast/inventory/${target}`,
      metric: 'coverage_miss',
      field: 'value',
      atMost: 0.02,
      text: `${target} per send: P10–P90 coverage 78–82 %`,
    },
  ]),
];

export interface Judged {
  readonly target: Target;
  readonly record?: BenchRecord;
  /** The number that is held against the target. */
  readonly measured?: number;
  readonly state: 'met' | 'missed' | 'not measured';
}

export const caseId = (record: Pick<BenchRecord, 'suite' | 'case'>): string =>
  `${record.suite}/${record.case}`;

/** Holds every target against the newest record that answers it; a target that only asks that it ran is met by a record. */
export function judge(targets: readonly Target[], records: readonly BenchRecord[]): Judged[] {
  const judged = targets.map((target): Judged => {
    const record = records.findLast(
      (one) =>
        caseId(one) === target.id &&
        one.metric === target.metric &&
        one[target.field] !== undefined &&
        (target.peer === undefined || one.peer?.name === target.peer),
    );
    const measured = record?.[target.field];
    if (record === undefined || measured === undefined) return { target, state: 'not measured' };
    const met =
      (target.atLeast === undefined || measured >= target.atLeast) &&
      (target.atMost === undefined || measured <= target.atMost);
    return { target, record, measured, state: met ? 'met' : 'missed' };
  });
  return judged.filter(({ target, record }) => target.anotherWay !== true || record !== undefined);
}

/** Learning; ratios within one run. */
export const TRAIN_TARGETS: readonly Target[] = [
  {
    id: 'train/trees-1m',
    metric: 'time_s',
    field: 'ratio',
    atLeast: 1,
    text: '`trees.fit`, 1M × 50, 200 trees × 63 leaves, 2 threads: time ≤ 1.0× the faster of XGBoost hist and LightGBM',
  },
  {
    id: 'train/trees-1m',
    metric: 'peak_mib',
    field: 'ratio',
    peer: 'lightgbm',
    atLeast: 1,
    text: 'memory ≤ 1.0× LightGBM',
  },
  ...['adult', 'online-shoppers', 'demo'].flatMap((set) =>
    ['logloss', 'auc'].map(
      (metric): Target => ({
        id: `train/quality/${set}`,
        metric: `${metric}_beyond_limit_pct`,
        field: 'value',
        atMost: 0,
        text: `${metric} on ${set} worse than the better peer by ≤ max(0.1 %, 2·SE), 5 seeds × 5 folds`,
      }),
    ),
  ),
  {
    id: 'train/selection-calibration',
    metric: 'ratio',
    ...error,
    atLeast: 1,
    text: 'calibration after selection, top-1 per slot: ratio within max(3 %, 2·SE)',
  },
  {
    id: 'train/selection-calibration',
    metric: 'worst_decile',
    ...error,
    atLeast: 1,
    text: 'deciles by expected clicks within max(10 %, 2.5·SE)',
  },
  {
    id: 'train/ftrl',
    metric: 'examples_per_s_core',
    field: 'value',
    atLeast: 1_000_000,
    text: 'FTRL ≥ 1M examples/s/core, 20 fields',
  },
  {
    id: 'train/ffm',
    metric: 'examples_per_s_core',
    field: 'value',
    atLeast: 100_000,
    text: 'FFM (k = 4) ≥ 100k examples/s/core, 20 fields',
  },
  {
    id: 'train/ffm',
    metric: 'logloss_gain_vs_lr',
    field: 'value',
    atLeast: 0.01,
    text: 'FFM beats LR by ≥ 1 % log-loss on id × id',
  },
  {
    id: 'train/pctr',
    metric: 'gap_closed',
    field: 'value',
    atLeast: 0.92,
    text: 'pCTR on `demo` closes ≥ 92 % of the achievable log-loss gap',
  },
  {
    id: 'train/pctr',
    metric: 'left_open',
    field: 'value',
    atMost: 0.8,
    text: 'and leaves ≥ 20 % less of it than the prior + GLM model',
  },
  {
    id: 'train/pctr',
    metric: 'new_publications',
    field: 'value',
    atLeast: 0.55,
    text: 'new publications ≥ 55 %',
  },
  {
    id: 'train/pctr',
    metric: 'calibration',
    ...error,
    atLeast: 1,
    text: 'calibration within max(5 %, 2·SE)',
  },
  {
    id: 'train/accept',
    metric: 'gap_closed',
    field: 'value',
    atLeast: 0.7,
    text: 'p(accept): log-loss closes ≥ 70 % of the achievable gap',
  },
];
