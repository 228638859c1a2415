import { readFileSync } from 'node:fs';
import { BenchContext, bestLevel, levels, type PeerName } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { readInto } from '../data/files.js';
import { type InterleaveOptions, interleave, type Run } from '../interleave.js';
import { onnxTopkPeer } from '../peers/onnx-topk.js';
import { type Measurement, Recorder, type SuiteOptions, touched, wanted } from '../record.js';
import { median, recall, summarize } from '../statistics.js';
import { placeOf, singleRecord, speedupRecord, timeRecord } from './measurement.js';
import { DIM, K, type Matrix, ROWS, rowsThatFit, SearchData } from './search-data.js';
import { sizeName } from './size-name.js';
import { measureTopkOnGpu } from './topk-gpu.js';

const QUERY_COUNTS = [1, 64, 1_024] as const;
/** Side of the square matrices whose product gives the rate of a large sgemm. */
const SGEMM_SIDE = 4_096;
/** Answers of exact peers differ from ours where float32 sums in another order swap neighbours. */
const LEAST_AGREEMENT = 0.999;

type Rounds = Pick<InterleaveOptions, 'minRounds' | 'maxRounds' | 'budgetMs'>;

function rounds({ quick, full }: SuiteOptions, nQueries: number): InterleaveOptions {
  const most: Rounds = quick
    ? { minRounds: 3, maxRounds: nQueries === 1 ? 9 : 3, budgetMs: 10_000 }
    : { minRounds: 5, maxRounds: nQueries === 1 ? 21 : 9, budgetMs: full ? 60_000 : 20_000 };
  // Answers are compared first, which warms both up; a heavy run more would cost as much as a figure.
  return { warmups: nQueries === 1 ? 1 : 0, pauseMs: 100, ...most };
}

export async function topkSuite(options: SuiteOptions): Promise<Measurement[]> {
  const context = new BenchContext();
  try {
    return await new TopkBench(context, options).run();
  } finally {
    await context.close();
  }
}

class TopkBench {
  readonly #context: BenchContext;
  readonly #options: SuiteOptions;
  readonly #data: SearchData;
  readonly #records: Recorder;

  constructor(context: BenchContext, options: SuiteOptions) {
    this.#context = context;
    this.#options = options;
    this.#records = new Recorder(options);
    this.#data = new SearchData(context, options.seed);
  }

  async run(): Promise<Measurement[]> {
    const { quick, full } = this.#options;
    const rows = rowsThatFit(ROWS);
    const suffix = rows === ROWS ? '' : `/n${sizeName(rows)}`;
    const main = ['f32', 'int8', 'bf16', 'f16'].flatMap((dtype) =>
      QUERY_COUNTS.map((nQueries) => `${dtype}/q${nQueries}${suffix}`),
    );
    if ([...main, 'event-loop', 'memory'].some((id) => wanted(this.#options, id))) {
      await this.#headline(this.#data.matrix(rows));
    }
    if (!quick) await this.#otherPeers(rows);
    if (!quick) {
      const sizes = [10_000, 100_000, ...(full ? largerSizes(rowsThatFit(64 * ROWS)) : [])];
      for (const size of sizes) {
        const ids = QUERY_COUNTS.map((q) => `f32/q${q}/n${sizeName(size)}`);
        if (ids.some((id) => wanted(this.#options, id))) {
          await this.#size(this.#data.matrix(size));
        }
      }
      const ids = QUERY_COUNTS.map((q) => `f32/q${q}/n100k`);
      if (touched(this.#options, ...ids)) await this.#levels(this.#data.matrix(100_000));
    }
    await measureTopkOnGpu(this.#context, this.#data, this.#options, this.#records);
    return this.#records.records;
  }

  #f32Run(contender: Contender, nQueries: number, more: Record<string, unknown> = {}): Run {
    return () =>
      contender.time('topk', {
        queries: `q${nQueries}`,
        matrix: 'matrix',
        k: K,
        metric: 'ip',
        ...more,
      });
  }

  #rowsOf(contender: string, nQueries: number): Int32Array {
    return readInto(`${this.#context.file(contender)}.rows`, new Int32Array(nQueries * K));
  }

  /** Both answers once, outside the figures: what finds other rows is not a peer. */
  async #checkAgreement(
    ours: Contender,
    peer: Contender,
    nQueries: number,
    more: object = {},
  ): Promise<void> {
    const [a, b] = [this.#context.file('ours'), this.#context.file('peer')];
    await this.#f32Run(ours, nQueries, { save: a })();
    await this.#f32Run(peer, nQueries, { ...more, save: b })();
    const same = recall(this.#rowsOf('peer', nQueries), this.#rowsOf('ours', nQueries), K);
    if (!(same >= LEAST_AGREEMENT)) {
      throw new Error(
        `${peer.hello.name} finds ${((1 - same) * 100).toFixed(2)} % other rows than we do at ${nQueries} queries`,
      );
    }
  }

  async #startPeer(
    name: PeerName,
    data: Matrix,
  ): Promise<{ peer: Contender; more: object } | undefined> {
    if (name === 'onnxruntime')
      return onnxTopkPeer(this.#context, (c) => this.#data.load(c, data, QUERY_COUNTS), DIM, K);
    const peer = await this.#context.peer(name);
    if (peer === undefined) return undefined;
    await this.#data.load(peer, data, QUERY_COUNTS);
    if (name === 'faiss') await peer.call('build_flat', { matrix: 'matrix' });
    return { peer, more: {} };
  }

  /** The cases that the targets name: the best instruction set, a million rows, the machine's limits in the same rounds. */
  async #headline(data: Matrix): Promise<void> {
    const wants = (...cases: string[]) => cases.some((id) => wanted(this.#options, id));
    const suffix = data.rows === ROWS ? '' : `/n${data.name}`;
    const ours = await this.#context.ours();
    await this.#data.load(ours, data, QUERY_COUNTS);
    const f32 = QUERY_COUNTS.map((nQueries) => `f32/q${nQueries}${suffix}`);
    const bf16 = `bf16/q1${suffix}`;
    const faiss = wants(...f32, bf16) ? await this.#startPeer('faiss', data) : undefined;
    const numpy = wants(...f32) ? await this.#context.peer('numpy') : undefined;
    const sgemmRates: number[] = [];
    const readRates: number[] = [];
    for (const nQueries of QUERY_COUNTS) {
      const id = `f32/q${nQueries}${suffix}`;
      if (!wants(id)) continue;
      if (faiss !== undefined) await this.#checkAgreement(ours, faiss.peer, nQueries);
      const runs: Record<string, Run> = { ours: this.#f32Run(ours, nQueries) };
      if (faiss !== undefined) runs['peer'] = this.#f32Run(faiss.peer, nQueries);
      runs['limit'] = async () => {
        const { ms, rate } = await this.#limit(ours, numpy, nQueries, data.rows);
        (nQueries === 1 ? readRates : sgemmRates).push(rate);
        return ms;
      };
      const times = await interleave(runs, rounds(this.#options, nQueries));
      this.#push(id, times['ours']!, faiss?.peer, times['peer'], {
        name:
          nQueries === 1
            ? 'read bandwidth'
            : numpy === undefined
              ? 'FMA peak'
              : 'large sgemm (NumPy)',
        times: times['limit']!,
      });
    }
    this.#pushRate('read_gb_per_s', 'GB/s', readRates);
    this.#pushRate(
      numpy === undefined ? 'fma_gflop_per_s' : 'sgemm_gflop_per_s',
      'GFLOP/s',
      sgemmRates,
    );
    await this.#context.end(numpy);
    // In the memory of the floats alone, so it stands beside FAISS as f32 does.
    if (wants(bf16)) await this.#certified(ours, 'bf16', 1, data, suffix, faiss?.peer);
    await this.#context.end(faiss?.peer);
    for (const dtype of this.#options.quick
      ? (['int8'] as const)
      : (['int8', 'bf16', 'f16'] as const)) {
      for (const nQueries of QUERY_COUNTS) {
        const id = `${dtype}/q${nQueries}${suffix}`;
        if (id === bf16 || !wants(id)) continue;
        await this.#certified(ours, dtype, nQueries, data, suffix);
      }
    }
    if (wants('event-loop')) await this.#eventLoop(ours);
    if (wants('memory')) await this.#scratch(ours);
    await this.#context.end(ours);
    if (wants('memory')) await this.#indexMemory(data);
  }

  readonly #encoded = new Set<string>();

  /** The low-precision scan against our own f32, run by run; its answer must be the same to the bit. */
  async #certified(
    ours: Contender,
    dtype: 'int8' | 'bf16' | 'f16',
    nQueries: number,
    data: Matrix,
    suffix: string,
    faiss?: Contender,
  ): Promise<void> {
    if (!this.#encoded.has(dtype)) await ours.call('encode', { matrix: 'matrix', dtype });
    this.#encoded.add(dtype);
    const low: Run = () =>
      ours.time('topkEncoded', { queries: `q${nQueries}`, matrix: 'matrix', k: K, dtype });
    await this.#checkIdentical(ours, dtype, nQueries);
    const isScan = nQueries === 1;
    const runs: Record<string, Run> = { f32: this.#f32Run(ours, nQueries), low };
    if (isScan) {
      runs['limit'] = async () => (await this.#limit(ours, undefined, 1, data.rows)).ms;
    }
    if (faiss !== undefined) runs['peer'] = this.#f32Run(faiss, nQueries);
    const times = await interleave(runs, rounds(this.#options, nQueries));
    const id = `${dtype}/q${nQueries}${suffix}`;
    const common = { suite: 'topk', case: id, seed: this.#options.seed } as const;
    this.#records.push(
      speedupRecord({
        ...common,
        metric: 'speedup_vs_f32',
        slow: times['f32']!,
        fast: times['low']!,
      }),
      timeRecord({
        ...common,
        ours: times['low']!,
        peer: timedPeer(faiss, times['peer']),
        // The codes alone, at the rate at which floats are read.
        limit: isScan
          ? {
              name: 'read bandwidth',
              times: times['limit']!.map((ms) => ms * (dtype === 'int8' ? 0.25 : 0.5)),
            }
          : undefined,
      }),
    );
  }

  async #checkIdentical(ours: Contender, dtype: string, nQueries: number): Promise<void> {
    const [exact, low] = [this.#context.file('exact'), this.#context.file('low')];
    const common = { queries: `q${nQueries}`, matrix: 'matrix', k: K };
    await ours.call('topk', { ...common, save: exact });
    await ours.call('topkEncoded', { ...common, dtype, save: low });
    for (const part of ['rows', 'scores']) {
      if (!readFileSync(`${exact}.${part}`).equals(readFileSync(`${low}.${part}`))) {
        throw new Error(`${dtype} ${part} differ from those of f32 at ${nQueries} queries`);
      }
    }
  }

  /** Milliseconds that the work takes at the machine's limit, and that limit's rate (GB/s or GFLOP/s). */
  async #limit(
    ours: Contender,
    numpy: Contender | undefined,
    nQueries: number,
    nRows: number,
  ): Promise<{ ms: number; rate: number }> {
    if (nQueries === 1) {
      const { readBytesPerSecond } = (await ours.call('probe')) as { readBytesPerSecond: number };
      return { ms: (nRows * DIM * 4e3) / readBytesPerSecond, rate: readBytesPerSecond / 1e9 };
    }
    const rate =
      numpy === undefined
        ? ((await ours.call('probe')) as { flopsPerSecond: number }).flopsPerSecond / 1e9
        : ((await numpy.call('sgemm', { n: SGEMM_SIDE })) as { gflops: number }).gflops;
    return { ms: (2 * nQueries * nRows * DIM) / (rate * 1e6), rate };
  }

  async #otherPeers(rows: number): Promise<void> {
    for (const name of ['onnxruntime', 'usearch', 'numpy', 'torch'] as const) {
      const asked = QUERY_COUNTS.filter((q) => wanted(this.#options, `f32/q${q}/vs-${name}`));
      if (asked.length === 0) continue;
      const data = this.#data.matrix(rows);
      const started = await this.#startPeer(name, data);
      if (started === undefined) continue;
      const ours = await this.#context.ours();
      await this.#data.load(ours, data, QUERY_COUNTS);
      for (const nQueries of asked) {
        // A thousand queries take these peers most of a minute each.
        if (nQueries > 64 && !this.#options.full) continue;
        await this.#checkAgreement(ours, started.peer, nQueries, started.more);
        const times = await interleave(
          {
            ours: this.#f32Run(ours, nQueries),
            peer: this.#f32Run(started.peer, nQueries, { ...started.more }),
          },
          { ...rounds(this.#options, nQueries), minRounds: 3, warmups: 0, budgetMs: 10_000 },
        );
        this.#push(`f32/q${nQueries}/vs-${name}`, times.ours, started.peer, times.peer);
      }
      await this.#context.end(ours, started.peer);
    }
  }

  async #size(data: Matrix): Promise<void> {
    const ours = await this.#context.ours();
    await this.#data.load(ours, data, QUERY_COUNTS);
    const faiss = await this.#startPeer('faiss', data);
    for (const nQueries of QUERY_COUNTS) {
      const id = `f32/q${nQueries}/n${data.name}`;
      if (!wanted(this.#options, id)) continue;
      const runs: Record<string, Run> = { ours: this.#f32Run(ours, nQueries) };
      if (faiss !== undefined) {
        await this.#checkAgreement(ours, faiss.peer, nQueries);
        runs['peer'] = this.#f32Run(faiss.peer, nQueries);
      }
      const times = await interleave(runs, rounds(this.#options, nQueries));
      this.#push(id, times['ours']!, faiss?.peer, times['peer']);
    }
    await this.#context.end(ours, faiss?.peer);
  }

  async #levels(data: Matrix): Promise<void> {
    for (const level of levels()) {
      if (level === bestLevel() || level === 'cuda') continue;
      const ours = await this.#context.ours(level);
      await this.#data.load(ours, data, QUERY_COUNTS);
      for (const nQueries of QUERY_COUNTS) {
        const id = `f32/q${nQueries}/n${data.name}/${level}`;
        if (!wanted(this.#options, id)) continue;
        // Scalar code is there to be right; half a minute a run says no more about it than 64 queries do.
        if (level === 'scalar' && nQueries > 64) continue;
        const { ours: times } = await interleave(
          { ours: this.#f32Run(ours, nQueries) },
          rounds({ ...this.#options, quick: true }, nQueries),
        );
        this.#push(id, times, undefined, undefined, undefined, ours);
      }
      await this.#context.end(ours);
    }
  }

  async #eventLoop(ours: Contender): Promise<void> {
    const overshoot: number[] = [];
    const idle: number[] = [];
    for (let run = 0; run < 5; run++) {
      const measured = (await ours.call('eventLoop', {
        queries: 'q64',
        matrix: 'matrix',
        k: K,
        searches: 8,
        searchMs: 100,
      })) as { p99Ms: number; idleP99Ms: number };
      overshoot.push(measured.p99Ms);
      idle.push(measured.idleP99Ms);
    }
    const figure = summarize(overshoot);
    this.#records.push({
      suite: 'topk',
      case: 'event-loop',
      metric: 'p99_overshoot_ms',
      unit: 'ms',
      better: 'lower',
      seed: this.#options.seed,
      ...figure,
      limit: { name: 'the same timer on an idle loop', value: median(idle) },
      fractionOfLimit: median(idle) / figure.value,
    });
  }

  async #scratch(ours: Contender): Promise<void> {
    const { scratchBytes } = (await ours.call('scratch', {
      queries: 'q1024',
      matrix: 'matrix',
      k: K,
    })) as { scratchBytes: number };
    this.#memory('search_scratch_mb', 'MB', scratchBytes / 1e6);
  }

  /** Each in a process of its own: what one gave back to the allocator would hide what the next one takes. */
  async #indexMemory(data: Matrix): Promise<void> {
    for (const [metric, dtype, keepF32] of [
      ['f32_ratio', 'f32', true],
      ['bf16_and_f32_ratio', 'bf16', true],
      ['int8_beside_f32_ratio', 'int8', true],
      ['int8_alone_ratio', 'int8', false],
    ] as const) {
      const ours = await this.#context.ours();
      const { bytes } = (await ours.call('indexMemory', {
        ...{ path: data.file, rows: data.rows, dim: DIM, dtype, keepF32 },
      })) as { bytes: number };
      this.#memory(metric, '× the raw float32', bytes / (data.rows * DIM * 4));
      await this.#context.end(ours);
    }
  }

  #memory(metric: string, unit: string, value: number): void {
    const { seed } = this.#options;
    const common = { suite: 'topk', case: 'memory', better: 'lower', seed } as const;
    this.#records.push(singleRecord({ ...common, metric, unit, value }));
  }

  #pushRate(metric: string, unit: string, rates: readonly number[]): void {
    if (rates.length === 0) return;
    const { seed } = this.#options;
    this.#records.push({
      ...{ suite: 'topk', case: 'limits', metric, unit, better: 'higher', seed },
      ...summarize(rates),
    });
  }

  #push(
    id: string,
    ours: readonly number[],
    peer?: Contender,
    peerTimes?: readonly number[],
    limit?: { name: string; times: readonly number[] },
    on?: Contender,
  ): void {
    this.#records.push(
      timeRecord({
        suite: 'topk',
        case: id,
        seed: this.#options.seed,
        ours,
        limit,
        peer: timedPeer(peer, peerTimes),
        ...(on === undefined ? {} : { on: placeOf(on) }),
      }),
    );
  }
}

function timedPeer(peer: Contender | undefined, times: readonly number[] | undefined) {
  if (peer === undefined || times === undefined) return undefined;
  const { name, version } = peer.hello;
  return { name: name === 'faiss-cpu' ? 'FAISS flat' : name, version, times };
}

/** Every power of ten, and the most that fits. */
function largerSizes(most: number): number[] {
  return [10_000_000, 30_000_000].filter((size) => size <= most);
}
