import { automatic, seasonalNaive } from '@waggle/forecasting';
import { mase, seasonalNaiveScale, smape } from '@waggle/measurement';
import { BenchContext, say } from '../bench-context.js';
import { readInto, writeRaw } from '../data/files.js';
import { type M4Series, readM4Hourly } from '../data/m4.js';
import { type Recorder, type SuiteOptions, wanted } from '../record.js';
import { singleRecord } from './measurement.js';

const CASE = 'm4-hourly';
const HORIZON = 48;
const SEASONS = [24, 168];
/** Each is fitted to each series by itself, with the season or seasons it takes. */
const PEER_MODELS = ['MSTL', 'AutoTheta', 'AutoETS'] as const;

/** Scaled by the seasonal naive forecast of the training part, season 24, as M4 defines it. */
const maseOf = ({ train, test }: M4Series, forecast: Float64Array): number =>
  mase({ actual: test, forecast, scale: seasonalNaiveScale(train, 24) });

/** In percent. */
const smapeOf = ({ test }: M4Series, forecast: Float64Array): number =>
  100 * smape({ actual: test, forecast });

interface Scored {
  readonly name: string;
  readonly mase: number;
  readonly smape: number;
  readonly ms: number;
}

function score(
  name: string,
  series: readonly M4Series[],
  forecasts: readonly Float64Array[],
  ms: number,
): Scored {
  const mean = (of: (s: M4Series, f: Float64Array) => number) =>
    series.reduce((sum, s, i) => sum + of(s, forecasts[i]!), 0) / series.length;
  const scored = { name, mase: mean(maseOf), smape: mean(smapeOf), ms };
  say(
    `forecast: ${name}: MASE ${scored.mase.toFixed(4)}, sMAPE ${scored.smape.toFixed(3)}, ${(ms / 1000).toFixed(1)} s`,
  );
  return scored;
}

/**
 * `forecast/m4-hourly`: what `automatic` makes of the competition's hourly series, against StatsForecast's automatic models on
 * the same series, one thread each. Everything is chosen on the training parts.
 */
export async function measureM4(options: SuiteOptions, recorder: Recorder): Promise<void> {
  if (!wanted(options, CASE)) return;
  const all = readM4Hourly();
  if (all === undefined) {
    say('bench: m4-hourly SKIPPED: no folder m4 in WAGGLE_DATA_DIR');
    return;
  }
  const series = options.quick ? all.filter((_, i) => i % 10 === 0) : all;
  const naive = seasonalNaive(24);
  score(
    'seasonal naive',
    series,
    series.map((s) => naive.fit(s.train).forecast(HORIZON).mean),
    0,
  );
  const model = automatic({ seasons: SEASONS, horizon: HORIZON });
  // As the peer's: the first use compiles.
  model.fit(series[0]!.train).forecast(HORIZON);
  const startedAt = performance.now();
  const forecasts = series.map((s) => model.fit(s.train).forecast(HORIZON).mean);
  const ours = score('ours', series, forecasts, performance.now() - startedAt);
  const peers = await scorePeers(series, options.quick ? ['MSTL'] : PEER_MODELS);
  const best = peers?.scored.reduce((a, b) => (b.mase < a.mase ? b : a));
  const base = { suite: 'forecast', case: CASE, seed: options.seed, better: 'lower' } as const;
  const beside = (of: (s: Scored) => number) =>
    best === undefined
      ? {}
      : {
          peer: {
            name: `StatsForecast ${best.name}`,
            version: peers!.version,
            value: of(best),
          },
          ratio: of(best) / of(ours),
        };
  recorder.push(
    {
      ...singleRecord({ ...base, metric: 'mase', unit: 'MASE, season 24', value: ours.mase }),
      ...beside((s) => s.mase),
    },
    {
      ...singleRecord({ ...base, metric: 'smape', unit: '%', value: ours.smape }),
      ...beside((s) => s.smape),
    },
    {
      ...singleRecord({
        ...base,
        metric: 'time_s',
        unit: `s for ${series.length} series, one thread`,
        value: ours.ms / 1000,
      }),
      ...beside((s) => s.ms / 1000),
    },
  );
}

async function scorePeers(
  series: readonly M4Series[],
  models: readonly string[],
): Promise<{ version: string; scored: Scored[] } | undefined> {
  const context = new BenchContext();
  try {
    const peer = await context.peer('statsforecast', {
      env: { WAGGLE_BENCH_THREADS: '1', OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' },
    });
    if (peer === undefined) return undefined;
    const total = series.reduce((sum, { train }) => sum + train.length, 0);
    const values = new Float64Array(total);
    let at = 0;
    for (const { train } of series) {
      values.set(train, at);
      at += train.length;
    }
    await peer.call('load', {
      values: writeRaw(context.file('m4.f64'), values),
      lengths: writeRaw(
        context.file('m4.i32'),
        Int32Array.from(series, ({ train }) => train.length),
      ),
    });
    const scored: Scored[] = [];
    for (const model of models) {
      const save = context.file(`${model}.f64`);
      const ms = await peer.time('forecast', { model, seasons: SEASONS, horizon: HORIZON, save });
      const means = readInto(save, new Float64Array(series.length * HORIZON));
      const forecasts = series.map((_, i) => means.subarray(i * HORIZON, (i + 1) * HORIZON));
      scored.push(score(model, series, forecasts, ms));
    }
    return { version: peer.hello.version, scored };
  } finally {
    await context.close();
  }
}
