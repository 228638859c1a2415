import { type BenchContext, levels, memoryAvailable, say } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { readInto } from '../data/files.js';
import { type InterleaveOptions, interleave, type Run } from '../interleave.js';
import { type Recorder, type SuiteOptions, wanted } from '../record.js';
import { recall } from '../statistics.js';
import { placeOf, speedupRecord, timeRecord } from './measurement.js';
import { DIM, K, type Matrix, type SearchData } from './search-data.js';

const QUERY_COUNTS = [1, 64, 1_024] as const;
const SIZES = [1_000_000, 10_000_000] as const;
/** Side of the square matrices whose product gives the device's tensor rate. */
const PRODUCT_SIDE = 16_384;
const BANDWIDTH_BYTES = 8 * 2 ** 30;
/** The peer ranks by products of half precision, so neighbours swap; we re-score from floats. */
const LEAST_AGREEMENT = 0.97;

/**
 * `topk/…/cuda`: a matrix resident on the GPU against PyTorch's chunked matmul and topk on the same device in half
 * precision, in turn; read bandwidth and the rate of a large half-precision product from PyTorch in the same rounds.
 * Nothing where there is no GPU that the engine can use.
 */
export async function measureTopkOnGpu(
  context: BenchContext,
  data: SearchData,
  options: SuiteOptions,
  records: Recorder,
): Promise<void> {
  if (!levels().includes('cuda')) return;
  for (const rows of options.quick ? SIZES.slice(0, 1) : SIZES) {
    const size = rows === SIZES[0] ? '' : '/n10m';
    const ids = QUERY_COUNTS.flatMap((q) => [`f16/q${q}${size}/cuda`, `int8/q${q}${size}/cuda`]);
    if (!ids.some((id) => wanted(options, id))) continue;
    if (memoryAvailable() < 3.5 * rows * DIM * 4) {
      say(`bench: ${rows} rows on the GPU SKIPPED: not enough memory on the host`);
      continue;
    }
    await measureSize(context, data, options, records, data.matrix(rows), size);
  }
}

async function measureSize(
  context: BenchContext,
  data: SearchData,
  options: SuiteOptions,
  records: Recorder,
  matrix: Matrix,
  size: string,
): Promise<void> {
  const ours = await context.ours('cuda');
  await data.load(ours, matrix, QUERY_COUNTS);
  for (const dtype of ['f16', 'int8']) await ours.call('deviceOpen', { matrix: 'matrix', dtype });
  const torch = await context.peer('torch', { env: { WAGGLE_BENCH_DEVICE: 'cuda' } });
  if (torch !== undefined) {
    await data.load(torch, matrix, QUERY_COUNTS);
    for (const name of ['matrix', ...QUERY_COUNTS.map((q) => `q${q}`)]) {
      await torch.call('convert', { name, as: `${name}-half`, dtype: 'float16' });
    }
  }
  const rounds: InterleaveOptions = {
    ...{ warmups: 2, minRounds: 5, maxRounds: 21, budgetMs: 15_000, pauseMs: 20 },
    ...(options.quick ? { maxRounds: 9, budgetMs: 5_000 } : {}),
  };
  for (const nQueries of QUERY_COUNTS) {
    const device = (dtype: string, more: object = {}): Run => {
      return () => ours.time('deviceTopk', { queries: `q${nQueries}`, k: K, dtype, ...more });
    };
    const half = (more: object = {}): Run => {
      const what = { queries: `q${nQueries}-half`, matrix: 'matrix-half', k: K };
      return () => torch!.time('topk', { ...what, ...more });
    };
    const runs: Record<string, Run> = { f16: device('f16'), int8: device('int8') };
    if (torch !== undefined) {
      await checkAgreement(context, device, half, nQueries);
      runs['peer'] = half();
      runs['limit'] = () => limitMs(torch, nQueries, matrix.rows);
    }
    const times = await interleave(runs, rounds);
    const on = placeOf(ours);
    const common = { suite: 'topk', seed: options.seed } as const;
    const peer =
      torch === undefined
        ? undefined
        : { name: torch.hello.name, version: torch.hello.version, times: times['peer']! };
    const limit =
      torch === undefined
        ? undefined
        : {
            name: nQueries === 1 ? 'read bandwidth (PyTorch)' : 'large f16 product (PyTorch)',
            times: times['limit']!,
          };
    const int8 = `int8/q${nQueries}${size}/cuda`;
    records.push(
      timeRecord({
        ...common,
        ...{ case: `f16/q${nQueries}${size}/cuda`, ours: times['f16']!, peer, limit, on },
      }),
      timeRecord({ ...common, case: int8, ours: times['int8']!, peer, on }),
      {
        ...speedupRecord({
          ...common,
          ...{ case: int8, metric: 'speedup_vs_f16', slow: times['f16']!, fast: times['int8']! },
        }),
        on,
      },
    );
  }
  await context.end(ours, torch);
}

/** What reading the half-precision rows once, or multiplying them with the queries, takes at the device's rates. */
async function limitMs(torch: Contender, nQueries: number, rows: number): Promise<number> {
  if (nQueries === 1) {
    const { gbPerS } = (await torch.call('bandwidth', { bytes: BANDWIDTH_BYTES })) as {
      gbPerS: number;
    };
    return (rows * DIM * 2) / (gbPerS * 1e6);
  }
  const { gflops } = (await torch.call('matmul', { n: PRODUCT_SIDE, dtype: 'float16' })) as {
    gflops: number;
  };
  return (2 * nQueries * rows * DIM) / (gflops * 1e6);
}

async function checkAgreement(
  context: BenchContext,
  ours: (dtype: string, more: object) => Run,
  peer: (more: object) => Run,
  nQueries: number,
): Promise<void> {
  const rowsOf = (save: string) => readInto(`${save}.rows`, new Int32Array(nQueries * K));
  const save = context.file('device');
  await peer({ save })();
  const theirs = rowsOf(save);
  for (const dtype of ['f16', 'int8']) {
    await ours(dtype, { save })();
    const same = recall(theirs, rowsOf(save), K);
    if (!(same >= LEAST_AGREEMENT)) {
      throw new Error(`on the GPU, PyTorch finds only ${same} of the rows that ${dtype} does`);
    }
  }
}
