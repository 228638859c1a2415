import { BenchContext, bestLevel, levels } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { readInto, writeRaw } from '../data/files.js';
import { FastRandom } from '../data/vectors.js';
import { type InterleaveOptions, interleave, type Run } from '../interleave.js';
import { type Measurement, Recorder, type SuiteOptions, wanted } from '../record.js';
import { recall } from '../statistics.js';
import { placeOf, speedupRecord, timeRecord } from './measurement.js';
import { K, ROWS, rowsThatFit, SearchData } from './search-data.js';
import { sizeName } from './size-name.js';

const QUERIES = 64;
/** What the figures without a share in their name are measured at. */
const SHARE = 0.01;
const OTHER_SHARES = [0.001, 0.1, 0.5];
const LEAST_AGREEMENT = 0.999;

interface Case {
  readonly id: string;
  readonly nQueries: number;
  readonly filter: { readonly filter: string } | { readonly filters: string };
}

/** Rows that a random share of the bitmap's bits allows; a bitmap per query when `n` > 1, [n × ceil(rows / 8)] bytes. */
function randomBitmaps(n: number, rows: number, share: number, seed: number): Uint8Array {
  const rng = new FastRandom(seed, 0x62697473);
  const stride = Math.ceil(rows / 8);
  const bits = new Uint8Array(n * stride);
  for (let i = 0; i < n; i++) {
    for (let row = 0; row < rows; row++) {
      if (rng.uint32() < share * 2 ** 32) bits[i * stride + (row >> 3)]! |= 1 << (row & 7);
    }
  }
  return bits;
}

/**
 * `filter/*`: ours with a filter against ours without one, at the same queries and rows; FAISS flat with the same
 * bitmaps (`IDSelectorBitmap`) beside the times. `filter/int8/*`: the same over certified int8, which must answer alike.
 */
export async function filterSuite(options: SuiteOptions): Promise<Measurement[]> {
  const context = new BenchContext();
  try {
    return await run(context, options);
  } finally {
    await context.close();
  }
}

async function run(context: BenchContext, options: SuiteOptions): Promise<Measurement[]> {
  const { quick, seed } = options;
  const rows = rowsThatFit(ROWS);
  const suffix = rows === ROWS ? '' : `/n${sizeName(rows)}`;
  const data = new SearchData(context, seed);
  const matrix = data.matrix(rows);
  const records = new Recorder(options);
  const rounds: InterleaveOptions = quick
    ? { warmups: 1, minRounds: 3, maxRounds: 5, budgetMs: 10_000, pauseMs: 100 }
    : { warmups: 1, minRounds: 5, maxRounds: 15, budgetMs: 25_000, pauseMs: 100 };

  const load = async (contender: Contender, share: number): Promise<void> => {
    for (const [as, n] of [
      ['shared', 1],
      ['perQuery', QUERIES],
    ] as const) {
      const path = context.file(`${as}-${share}.bits`);
      if (!written.has(path)) writeRaw(path, randomBitmaps(n, rows, share, seed + n));
      written.add(path);
      const cols = Math.ceil(rows / 8);
      await contender.call('load', { as, path, rows: n, cols, dtype: 'u8' });
    }
  };
  const written = new Set<string>();
  const search = (contender: Contender, nQueries: number, more: object = {}): Run => {
    return () =>
      contender.time('topk', { queries: `q${nQueries}`, matrix: 'matrix', k: K, ...more });
  };
  const cases = (share: number): Case[] => {
    const at = `${suffix}${share === SHARE ? '' : `/p${share}`}`;
    return [
      { id: `shared/q${QUERIES}${at}`, nQueries: QUERIES, filter: { filter: 'shared' } },
      { id: `per-query/q${QUERIES}${at}`, nQueries: QUERIES, filter: { filters: 'perQuery' } },
      { id: `q1${at}`, nQueries: 1, filter: { filter: 'shared' } },
    ];
  };

  const measure = async (ours: Contender, faiss: Contender | undefined, share: number) => {
    await load(ours, share);
    if (faiss !== undefined) await load(faiss, share);
    for (const { id, nQueries, filter } of cases(share)) {
      if (!wanted(options, id)) continue;
      const runs: Record<string, Run> = {
        filtered: search(ours, nQueries, filter),
        unfiltered: search(ours, nQueries),
      };
      if (faiss !== undefined) {
        await checkAgreement(context, ours, faiss, search, nQueries, filter);
        runs['peer'] = search(faiss, nQueries, filter);
      }
      const times = await interleave(runs, rounds);
      const common = { suite: 'filter', case: id, seed };
      records.push(
        speedupRecord({
          ...common,
          metric: 'speedup_vs_unfiltered',
          slow: times['unfiltered']!,
          fast: times['filtered']!,
        }),
        timeRecord({
          ...common,
          ours: times['filtered']!,
          peer:
            faiss === undefined
              ? undefined
              : { name: 'FAISS flat', version: faiss.hello.version, times: times['peer']! },
        }),
      );
    }
  };

  const measureInt8 = async (ours: Contender) => {
    const wantedCases = cases(SHARE).filter(({ id }) => wanted(options, `int8/${id}`));
    if (wantedCases.length === 0) return;
    await ours.call('encode', { matrix: 'matrix', dtype: 'int8' });
    const scan = (nQueries: number, more: object = {}): Run => {
      const what = { queries: `q${nQueries}`, matrix: 'matrix', k: K, dtype: 'int8', ...more };
      return () => ours.time('topkEncoded', what);
    };
    await load(ours, SHARE);
    for (const { id, nQueries, filter } of wantedCases) {
      const [exact, certified] = [context.file('exact'), context.file('certified')];
      await search(ours, nQueries, { ...filter, save: exact })();
      await scan(nQueries, { ...filter, save: certified })();
      const rowsOf = (prefix: string) => readInto(`${prefix}.rows`, new Int32Array(nQueries * K));
      if (recall(rowsOf(exact), rowsOf(certified), K) !== 1) {
        throw new Error(`filter/int8/${id}: the answer is not that of the floats`);
      }
      const times = await interleave(
        { filtered: scan(nQueries, filter), unfiltered: scan(nQueries) },
        rounds,
      );
      const common = { suite: 'filter', case: `int8/${id}`, seed };
      const metric = 'speedup_vs_unfiltered';
      const { unfiltered: slow, filtered: fast } = times;
      records.push(
        speedupRecord({ ...common, metric, slow, fast }),
        timeRecord({ ...common, ours: fast }),
      );
    }
  };

  const ours = await context.ours();
  await data.load(ours, matrix, [1, QUERIES]);
  const faiss = await context.peer('faiss');
  if (faiss !== undefined) {
    await data.load(faiss, matrix, [1, QUERIES]);
    await faiss.call('build_flat', { matrix: 'matrix' });
  }
  await measure(ours, faiss, SHARE);
  if (!quick) for (const share of OTHER_SHARES) await measure(ours, faiss, share);
  await measureInt8(ours);
  await context.end(ours, faiss);

  if (!quick) {
    const small = data.matrix(100_000);
    for (const level of levels()) {
      if (level === bestLevel() || level === 'cuda') continue;
      const other = await context.ours(level);
      await data.load(other, small, [1, QUERIES]);
      const path = writeRaw(context.file('small.bits'), randomBitmaps(1, small.rows, SHARE, seed));
      const shape = { rows: 1, cols: Math.ceil(small.rows / 8), dtype: 'u8' };
      await other.call('load', { as: 'shared', path, ...shape });
      for (const nQueries of [1, QUERIES]) {
        const id = `${nQueries === 1 ? 'q1' : `shared/q${QUERIES}`}/n${small.name}/${level}`;
        if (!wanted(options, id)) continue;
        const times = await interleave(
          {
            filtered: search(other, nQueries, { filter: 'shared' }),
            unfiltered: search(other, nQueries),
          },
          { ...rounds, minRounds: 3, maxRounds: 5, budgetMs: 10_000 },
        );
        const metric = 'speedup_vs_unfiltered';
        const { unfiltered: slow, filtered: fast } = times;
        records.push({
          ...speedupRecord({ suite: 'filter', case: id, seed, metric, slow, fast }),
          on: placeOf(other),
        });
      }
      await context.end(other);
    }
  }
  return records.records;
}

async function checkAgreement(
  context: BenchContext,
  ours: Contender,
  peer: Contender,
  search: (contender: Contender, nQueries: number, more: object) => Run,
  nQueries: number,
  filter: object,
): Promise<void> {
  const answers: Int32Array[] = [];
  for (const contender of [ours, peer]) {
    const save = context.file('answer');
    await search(contender, nQueries, { ...filter, save })();
    answers.push(readInto(`${save}.rows`, new Int32Array(nQueries * K)));
  }
  const same = recall(answers[1]!, answers[0]!, K);
  if (!(same >= LEAST_AGREEMENT)) {
    throw new Error(`with a filter, ${peer.hello.name} finds only ${same} of the rows that we do`);
  }
}
