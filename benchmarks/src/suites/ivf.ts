import { BenchContext, bestLevel, say } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { Clustered } from '../data/clustered.js';
import { readInto, writeRaw } from '../data/files.js';
import { mnist, type RealVectors, word2vec, writeClusteredRows } from '../data/vectors.js';
import { type InterleaveOptions, interleave } from '../interleave.js';
import { type Measurement, Recorder, type SuiteOptions, touched } from '../record.js';
import { median, pairedRatios, recall, summarize } from '../statistics.js';
import { singleRecord, speedupRecord, timeRecord } from './measurement.js';
import { rowsThatFit } from './search-data.js';
import { sizeName } from './size-name.js';

const DIM = 384;
const K = 10;
const RECALL = 0.95;
/** Recall is measured on these; the first 64 are timed at once. */
const QUERIES = 1_000;
/** Further queries, which only the index's own choice of probes sees. */
const HELD_OUT = 500;
const BATCH = 64;
/** What hnswlib's own documentation and benchmarks use. */
const HNSW = { m: 16, efConstruction: 200 } as const;
const EFS = [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
const PROBES = [1, 2, 4, 8, 16, 32, 64, 128, 256];

interface Data {
  readonly name: string;
  readonly dim: number;
  readonly rows: number;
  readonly queries: number;
  readonly files: { readonly matrix: string; readonly queries: string; readonly heldOut?: string };
  readonly heldOut: number;
}

/** What a search at one setting gave. */
interface Point {
  readonly setting: number;
  readonly recall: number;
}

/**
 * `ivf/*`: approximate search at recall@10 ≥ 0.95, measured against our exact answer on queries that no index has seen.
 * The rows are embedding-like (clustered.ts), MNIST's pixels and word vectors beside them.
 */
export async function ivfSuite(options: SuiteOptions): Promise<Measurement[]> {
  const context = new BenchContext();
  try {
    return await new IvfBench(context, options).run();
  } finally {
    await context.close();
  }
}

class IvfBench {
  readonly #context: BenchContext;
  readonly #options: SuiteOptions;
  readonly #records: Recorder;
  readonly #generator: Clustered;

  constructor(context: BenchContext, options: SuiteOptions) {
    this.#context = context;
    this.#options = options;
    this.#records = new Recorder(options);
    this.#generator = new Clustered({ dim: DIM }, options.seed);
  }

  async run(): Promise<Measurement[]> {
    const { quick, full } = this.#options;
    const wants = (id: string): boolean => touched(this.#options, id);
    if (wants('1m')) {
      const rows = rowsThatFit(1_000_000);
      const data = this.#clustered(rows);
      await this.#againstExact(data, `${data.name}/q${BATCH}`);
    }
    // A graph of 200k rows takes its peer minutes to build; in a hurry a tenth must do.
    const sizes = quick ? [20_000] : full ? [200_000, 1_000_000] : [200_000];
    for (const rows of sizes) {
      const id = `${sizeName(rows)}-vs-hnsw`;
      if (wants(id)) await this.#againstHnsw(this.#clustered(rows), id);
    }
    for (const real of [mnist, word2vec]) {
      if (!wants(`${real.name}-vs-hnsw`)) continue;
      const vectors = real();
      if (vectors === undefined) {
        say(`bench: ${real.name} SKIPPED: no such file in WAGGLE_DATA_DIR`);
        continue;
      }
      await this.#againstHnsw(this.#real(vectors), `${real.name}-vs-hnsw`);
    }
    return this.#records.records;
  }

  #clustered(rows: number): Data {
    const name = sizeName(rows);
    say(`bench: writing ${name} × ${DIM} clustered vectors …`);
    const matrix = writeClusteredRows(this.#context.file(`c-${name}.f32`), rows, this.#generator);
    const queries = writeRaw(this.#context.file('c-queries.f32'), this.#generator.queries(QUERIES));
    const heldOut = writeRaw(
      this.#context.file('c-held-out.f32'),
      this.#generator.queries(HELD_OUT, QUERIES),
    );
    const files = { matrix, queries, heldOut };
    return { name, dim: DIM, rows, queries: QUERIES, files, heldOut: HELD_OUT };
  }

  /** Real sets are small: their queries are all for measuring, and the index chooses its probes by its own rows. */
  #real(vectors: RealVectors): Data {
    const { name, dim, nRows: rows, nQueries: queries } = vectors;
    const files = {
      matrix: writeRaw(this.#context.file(`${name}.f32`), vectors.rows),
      queries: writeRaw(this.#context.file(`${name}-q.f32`), vectors.queries),
    };
    return { name, dim, rows, queries, files, heldOut: 0 };
  }

  async #load(contender: Contender, data: Data): Promise<void> {
    const load = (as: string, path: string, rows: number) =>
      contender.call('load', { as, path, rows, cols: data.dim });
    await load('matrix', data.files.matrix, data.rows);
    await load('queries', data.files.queries, data.queries);
  }

  async #loadOurs(ours: Contender, data: Data): Promise<void> {
    await this.#load(ours, data);
    const { heldOut } = data.files;
    if (heldOut !== undefined) {
      await ours.call('load', { as: 'heldOut', path: heldOut, rows: data.heldOut, cols: data.dim });
    }
  }

  async #build(ours: Contender, data: Data): Promise<{ ms: number; probes: number }> {
    const built = await ours.call('ivfBuild', {
      matrix: 'matrix',
      recall: RECALL,
      k: K,
      ...(data.files.heldOut === undefined ? {} : { heldOut: 'heldOut' }),
    });
    return built as { ms: number; probes: number };
  }

  async #truth(ours: Contender, data: Data): Promise<Int32Array> {
    const save = this.#context.file('truth');
    await ours.call('topk', { queries: 'queries', matrix: 'matrix', k: K, metric: 'ip', save });
    return readInto(`${save}.rows`, new Int32Array(data.queries * K));
  }

  async #recallOf(
    contender: Contender,
    op: string,
    settings: object,
    data: Data,
    truth: Int32Array,
  ): Promise<number> {
    const save = this.#context.file('found');
    await contender.call(op, { queries: 'queries', k: K, ...settings, save });
    return recall(readInto(`${save}.rows`, new Int32Array(data.queries * K)), truth, K);
  }

  #rounds(): InterleaveOptions {
    return this.#options.quick
      ? { warmups: 1, minRounds: 3, maxRounds: 5, budgetMs: 10_000, pauseMs: 100 }
      : { warmups: 1, minRounds: 5, maxRounds: 11, budgetMs: 30_000, pauseMs: 100 };
  }

  async #againstExact(data: Data, id: string): Promise<void> {
    const { seed } = this.#options;
    const common = { suite: 'ivf', case: id, seed } as const;
    const ours = await this.#context.ours();
    await this.#loadOurs(ours, data);
    const built = await this.#build(ours, data);
    const truth = await this.#truth(ours, data);
    const reached = await this.#recallOf(ours, 'ivfSearch', {}, data, truth);
    const some = { queries: 'queries', k: K, first: BATCH };
    const times = await interleave(
      {
        exact: () => ours.time('topk', { ...some, matrix: 'matrix', metric: 'ip' }),
        ivf: () => ours.time('ivfSearch', some),
      },
      this.#rounds(),
    );
    const metric = 'speedup_vs_exact';
    this.#records.push(
      speedupRecord({ ...common, metric, slow: times.exact, fast: times.ivf }),
      singleRecord({
        ...common,
        metric: 'recall_at_10',
        unit: 'share of the true ten',
        better: 'higher',
        value: reached,
      }),
      timeRecord({ ...common, ours: times.ivf }),
      singleRecord({
        ...common,
        metric: 'build_s',
        unit: 's',
        better: 'lower',
        value: built.ms / 1000,
      }),
    );
    await this.#context.end(ours);
  }

  /** One thread each: hnswlib-node has no more. */
  async #againstHnsw(data: Data, id: string): Promise<void> {
    const { seed } = this.#options;
    const ours = await this.#context.ours(bestLevel(), { oneCpu: true });
    await this.#loadOurs(ours, data);
    const truth = await this.#truth(ours, data);
    const built = await this.#build(ours, data);
    const chosen = await this.#recallOf(ours, 'ivfSearch', {}, data, truth);
    const hnsw = await this.#context.peer('hnswlib', { oneCpu: true });
    let ef: Point | undefined;
    let peerBuildMs = 0;
    if (hnsw !== undefined) {
      await this.#load(hnsw, data);
      say(`bench: hnswlib-node builds a graph of ${sizeName(data.rows)} rows …`);
      peerBuildMs = ((await hnsw.call('build', { matrix: 'matrix', ...HNSW })) as { ms: number })
        .ms;
      for (const setting of EFS) {
        const found = await this.#recallOf(hnsw, 'search', { ef: setting }, data, truth);
        ef = { setting, recall: found };
        if (found >= RECALL) break;
      }
    }
    // Ours must find at least what the peer finds, and what was asked for.
    const least = Math.max(RECALL, ef?.recall ?? 0);
    let probes: Point = { setting: built.probes, recall: chosen };
    for (let more = built.probes; probes.recall < least && more < 4_096; ) {
      more = Math.ceil(more * 1.15);
      const found = await this.#recallOf(ours, 'ivfSearch', { probes: more }, data, truth);
      probes = { setting: more, recall: found };
    }
    say(
      `bench: ${id}: recall ${probes.recall.toFixed(4)} at ${probes.setting} probes${ef === undefined ? '' : `, hnswlib ${ef.recall.toFixed(4)} at ef ${ef.setting}`}`,
    );
    const batched = { queries: 'queries', k: K, probes: probes.setting, batch: BATCH };
    const times = await interleave(
      {
        ours: () => ours.time('ivfSearch', batched),
        single: () => ours.time('ivfSearch', { ...batched, batch: 1 }),
        ...(hnsw === undefined || ef === undefined
          ? {}
          : { peer: () => hnsw.time('search', { queries: 'queries', k: K, ef: ef.setting }) }),
      } as Record<string, () => Promise<number>>,
      this.#rounds(),
    );
    const rate = (ms: number): number => (data.queries * 1000) / ms;
    const peerOf = (value: number) =>
      hnsw === undefined
        ? {}
        : { peer: { name: hnsw.hello.name, version: hnsw.hello.version, value } };
    for (const [key, name] of [
      ['ours', id],
      ['single', `${id}/one-by-one`],
    ] as const) {
      this.#records.push({
        suite: 'ivf',
        case: name,
        metric: 'queries_per_s',
        unit: 'queries/s, one thread',
        better: 'higher',
        seed,
        ...summarize(times[key]!.map(rate)),
        ...(times['peer'] === undefined
          ? {}
          : {
              ...peerOf(rate(median(times['peer']))),
              ratio: median(pairedRatios(times['peer'], times[key]!)),
            }),
      });
    }
    const single = (metric: string, unit: string, better: 'higher' | 'lower', value: number) =>
      singleRecord({ suite: 'ivf', case: id, metric, unit, better, value, seed });
    this.#records.push({
      ...single('recall_at_10', 'share of the true ten', 'higher', probes.recall),
      ...(ef === undefined ? {} : { ...peerOf(ef.recall), ratio: probes.recall / ef.recall }),
    });
    this.#records.push({
      ...single('build_s', 's, one thread', 'lower', built.ms / 1000),
      ...(hnsw === undefined
        ? {}
        : { ...peerOf(peerBuildMs / 1000), ratio: peerBuildMs / built.ms }),
    });
    if (!this.#options.quick) await this.#curves(ours, hnsw, data, truth);
    await this.#context.end(ours, hnsw);
  }

  /** Speed against recall, for the chart: each setting once. */
  async #curves(
    ours: Contender,
    hnsw: Contender | undefined,
    data: Data,
    truth: Int32Array,
  ): Promise<void> {
    const curve = async (
      contender: Contender,
      op: string,
      name: string,
      settings: readonly number[],
    ) => {
      for (const setting of settings) {
        const how = { [name]: setting };
        const found = await this.#recallOf(contender, op, how, data, truth);
        const batch = op === 'ivfSearch' ? { batch: BATCH } : {};
        const ms = await contender.time(op, { queries: 'queries', k: K, ...how, ...batch });
        const at = {
          suite: 'ivf',
          case: `${data.name}/curve/${contender.hello.name}/${setting}`,
          better: 'higher',
          seed: this.#options.seed,
        } as const;
        this.#records.push(
          singleRecord({
            ...at,
            metric: 'recall_at_10',
            unit: 'share of the true ten',
            value: found,
          }),
          singleRecord({
            ...at,
            metric: 'queries_per_s',
            unit: 'queries/s, one thread',
            value: (data.queries * 1000) / ms,
          }),
        );
        if (found > 0.9999) return;
      }
    };
    await curve(ours, 'ivfSearch', 'probes', PROBES);
    if (hnsw !== undefined) await curve(hnsw, 'search', 'ef', EFS);
  }
}
