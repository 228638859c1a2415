import { writeFileSync } from 'node:fs';
import { BenchContext, bestLevel, levels, type PeerName } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { type Ensemble, evaluateEnsemble, randomEnsemble } from '../data/ensemble.js';
import { readInto, writeRaw } from '../data/files.js';
import { FastRandom } from '../data/vectors.js';
import { type InterleaveOptions, interleave, type Run } from '../interleave.js';
import { lightgbmText, xgboostJson } from '../peers/gbdt-models.js';
import { treesGraph } from '../peers/onnx-models.js';
import { type Measurement, Recorder, type SuiteOptions, touched, wanted } from '../record.js';
import { median, pairedRatios, summarize } from '../statistics.js';
import { placeOf, speedupRecord } from './measurement.js';
import { sizeName } from './size-name.js';

const FEATURES = 50;
/** Rows of the figures without a size in their name. */
const ROWS = 1_000;
const OTHER_ROWS = [1, 10, 100, 10_000, 100_000];
const SHAPES = [
  { id: '200x6', nTrees: 200, depth: 6 },
  { id: '500x8', nTrees: 500, depth: 8 },
] as const;
/** Sums of hundreds of float32 leaves, added in any order. */
const TOLERANCE = 1e-4;

interface Prepared {
  readonly id: string;
  readonly ensemble: Ensemble;
  /** The same ensemble in each library's own format. */
  readonly models: Readonly<Record<'onnx' | 'lightgbm' | 'xgboost', string>>;
}

const MODEL_OF: Readonly<Record<string, keyof Prepared['models']>> = {
  waggle: 'onnx',
  'onnxruntime-node': 'onnx',
  lightgbm: 'lightgbm',
  xgboost: 'xgboost',
};

/**
 * `trees/*`: rows per second of one thread. Every contender reads the same ensemble in its own format, and its answers
 * are compared with plain arithmetic before it is timed.
 */
export async function treesSuite(options: SuiteOptions): Promise<Measurement[]> {
  const context = new BenchContext();
  try {
    return await new TreesBench(context, options).run();
  } finally {
    await context.close();
  }
}

class TreesBench {
  readonly #context: BenchContext;
  readonly #options: SuiteOptions;
  readonly #records: Recorder;
  readonly #rows = new Map<number, { path: string; x: Float32Array }>();

  constructor(context: BenchContext, options: SuiteOptions) {
    this.#context = context;
    this.#options = options;
    this.#records = new Recorder(options);
  }

  async run(): Promise<Measurement[]> {
    const { quick, seed } = this.#options;
    const shapes = SHAPES.filter(({ id }) => touched(this.#options, id));
    for (const { id, ...shape } of shapes) {
      const ensemble = randomEnsemble({ ...shape, nFeatures: FEATURES }, seed);
      const prepared = { id, ensemble, models: this.#write(id, ensemble) };
      await this.#oneThread(prepared, 'onnxruntime', quick ? [] : OTHER_ROWS, '');
      if (levels().includes('cuda')) await this.#gpu(prepared);
      if (quick) continue;
      for (const peer of ['lightgbm', 'xgboost'] as const) {
        await this.#oneThread(prepared, peer, [100_000], `/vs-${peer}`);
      }
      for (const level of levels()) {
        if (level !== bestLevel() && level !== 'cuda') await this.#level(prepared, level);
      }
    }
    return this.#records.records;
  }

  #write(id: string, ensemble: Ensemble): Prepared['models'] {
    const write = (name: string, data: string | Uint8Array): string => {
      const path = this.#context.file(`${id}.${name}`);
      writeFileSync(path, data);
      return path;
    };
    return {
      onnx: write('onnx', treesGraph(ensemble)),
      lightgbm: write('txt', lightgbmText(ensemble)),
      xgboost: write('json', xgboostJson(ensemble)),
    };
  }

  #data(n: number): { path: string; x: Float32Array } {
    let rows = this.#rows.get(n);
    if (rows === undefined) {
      const rng = new FastRandom(this.#options.seed, 0x726f7773 + n);
      const x = Float32Array.from({ length: n * FEATURES }, () => rng.normal());
      rows = { path: writeRaw(this.#context.file(`x-${n}.f32`), x), x };
      this.#rows.set(n, rows);
    }
    return rows;
  }

  /** Opens the model, loads rows and checks the answers. */
  async #prepare(
    contender: Contender,
    { id, ensemble, models }: Prepared,
    counts: readonly number[],
  ) {
    const path = models[MODEL_OF[contender.hello.name]!];
    await contender.call('open', { path });
    for (const n of counts) {
      const { path: data, x } = this.#data(n);
      await contender.call('load', { as: `x${n}`, path: data, rows: n, cols: FEATURES });
      const checked = Math.min(n, ROWS);
      const save = this.#context.file('answer.f32');
      await contender.call('trees', { x: `x${n}`, save });
      const got = readInto(save, new Float32Array(n));
      const truth = evaluateEnsemble(ensemble, x, checked);
      for (let row = 0; row < checked; row++) {
        if (!(Math.abs(got[row]! - truth[row]!) <= TOLERANCE)) {
          throw new Error(
            `${contender.hello.name} answers ${got[row]} for row ${row} of ${id}; it is ${truth[row]}`,
          );
        }
      }
    }
  }

  #rounds(n: number): InterleaveOptions {
    const { quick } = this.#options;
    return n > 10_000
      ? { warmups: 1, minRounds: 3, maxRounds: 5, budgetMs: 20_000, pauseMs: 50 }
      : { warmups: 3, minRounds: 9, maxRounds: quick ? 21 : 41, budgetMs: 15_000, pauseMs: 20 };
  }

  async #oneThread(
    prepared: Prepared,
    peerName: PeerName,
    more: readonly number[],
    suffix: string,
  ): Promise<void> {
    const counts = [ROWS, ...more];
    const peer = await this.#context.peer(peerName, { oneCpu: true });
    if (peer === undefined && suffix !== '') return;
    const ours = await this.#context.ours(bestLevel(), { oneCpu: true });
    await this.#prepare(ours, prepared, counts);
    if (peer !== undefined) await this.#prepare(peer, prepared, counts);
    for (const n of counts) {
      const id = `${prepared.id}${n === ROWS ? '' : `/n${sizeName(n)}`}${suffix}`;
      if (!wanted(this.#options, id)) continue;
      const runs: Record<string, Run> = {
        ours: () => ours.time('trees', { x: `x${n}`, threads: 1 }),
      };
      if (peer !== undefined) runs['peer'] = () => peer.time('trees', { x: `x${n}` });
      const times = await interleave(runs, this.#rounds(n));
      this.#push(id, n, times['ours']!, peer, times['peer']);
    }
    await this.#context.end(ours, peer);
  }

  async #level(prepared: Prepared, level: string): Promise<void> {
    const id = `${prepared.id}/${level}`;
    if (!wanted(this.#options, id)) return;
    const ours = await this.#context.ours(level, { oneCpu: true });
    await this.#prepare(ours, prepared, [ROWS]);
    const { ours: times } = await interleave(
      { ours: () => ours.time('trees', { x: `x${ROWS}`, threads: 1 }) },
      { ...this.#rounds(ROWS), budgetMs: 5_000 },
    );
    this.#push(id, ROWS, times, undefined, undefined, ours);
    await this.#context.end(ours);
  }

  /** The GPU is asked for what it is for: many rows, against one thread of the processor in the same rounds. */
  async #gpu(prepared: Prepared): Promise<void> {
    const n = 100_000;
    const id = `${prepared.id}/n${sizeName(n)}/cuda`;
    if (!wanted(this.#options, id)) return;
    const gpu = await this.#context.ours('cuda');
    const cpu = await this.#context.ours(bestLevel(), { oneCpu: true });
    for (const contender of [gpu, cpu]) await this.#prepare(contender, prepared, [n]);
    const times = await interleave(
      {
        gpu: () => gpu.time('trees', { x: `x${n}` }),
        cpu: () => cpu.time('trees', { x: `x${n}`, threads: 1 }),
      },
      this.#rounds(n),
    );
    this.#push(id, n, times.gpu, undefined, undefined, gpu);
    this.#records.push({
      ...speedupRecord({
        ...{ suite: 'trees', case: id, seed: this.#options.seed },
        ...{ metric: 'speedup_vs_one_cpu_thread', slow: times.cpu, fast: times.gpu },
      }),
      on: placeOf(gpu),
    });
    await this.#context.end(gpu, cpu);
  }

  #push(
    id: string,
    nRows: number,
    ours: readonly number[],
    peer?: Contender,
    peerTimes?: readonly number[],
    on?: Contender,
  ): void {
    const rate = (ms: number): number => (nRows * 1000) / ms;
    this.#records.push({
      suite: 'trees',
      case: id,
      metric: 'rows_per_s',
      unit: 'rows/s',
      better: 'higher',
      seed: this.#options.seed,
      ...summarize(ours.map(rate)),
      ...(peer === undefined || peerTimes === undefined
        ? {}
        : {
            peer: {
              name: peer.hello.name,
              version: peer.hello.version,
              value: rate(median(peerTimes)),
            },
            ratio: median(pairedRatios(peerTimes, ours)),
          }),
      ...(on === undefined ? {} : { on: placeOf(on) }),
    });
  }
}
