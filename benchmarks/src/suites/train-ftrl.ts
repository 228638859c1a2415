import { areaUnderRoc, logLoss } from '@waggle/measurement';
import { Ftrl } from '@waggle/native';
import { idPairClicks, ipinyou, type SparseClicks, sliceOf } from '../data/sparse-clicks.js';
import { type Recorder, type SuiteOptions, touched, wanted } from '../record.js';
import { summarize } from '../statistics.js';

/** `train/ftrl`: examples a second of one core, 20 fields of 75,000 ids hashed to 2¹⁸ buckets. Learning is sequential: one thread. */
export async function measureFtrl(options: SuiteOptions, recorder: Recorder): Promise<void> {
  if (!touched(options, 'ftrl')) return;
  const { quick, seed } = options;
  if (wanted(options, 'ftrl')) {
    const clicks = await idPairClicks(quick ? 300_000 : 1_000_000, seed, 'wide');
    const rates: number[] = [];
    for (let run = 0; run < (quick ? 5 : 9); run++) {
      const model = await Ftrl.create({ nFeatures: clicks.nFeatures, l1: 0.5, l2: 0.5 });
      const cores = await coreSeconds(() => model.learn(clicks));
      rates.push(clicks.nRows / cores);
      await model.close();
    }
    recorder.push({
      ...{ suite: 'train', case: 'ftrl', metric: 'examples_per_s_core', unit: 'examples/s' },
      ...{ better: 'higher', seed, ...summarize(rates) },
    });
  }
  if (!wanted(options, 'ftrl/ipinyou')) return;
  const real = ipinyou();
  if (real === undefined) {
    process.stderr.write('bench: train/ftrl/ipinyou SKIPPED: no such file in WAGGLE_DATA_DIR\n');
    return;
  }
  const [train, test] = splitInTime(real);
  const probability = await ftrlOn(train, test, { alpha: 0.05, l1: 1, l2: 1 });
  recordQuality(recorder, 'ftrl/ipinyou', seed, probability, test);
}

/** Processor time of this process while `run` runs: wall time of one thread where nothing else needs the machine. */
export async function coreSeconds(run: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

/** The last fifth is later. */
export function splitInTime(clicks: SparseClicks): [SparseClicks, SparseClicks] {
  const cut = Math.floor(clicks.nRows * 0.8);
  return [sliceOf(clicks, 0, cut), sliceOf(clicks, cut, clicks.nRows)];
}

/** Probabilities of the test rows after one pass over the training rows. */
export async function ftrlOn(
  train: SparseClicks,
  test: SparseClicks,
  rates: { readonly alpha: number; readonly l1: number; readonly l2: number },
  passes = 1,
): Promise<Float64Array> {
  const model = await Ftrl.create({ nFeatures: train.nFeatures, ...rates });
  for (let pass = 0; pass < passes; pass++) await model.learn(train);
  const probability = await model.predict(test);
  await model.close();
  return probability;
}

export function recordQuality(
  recorder: Recorder,
  id: string,
  seed: number,
  probability: Float64Array,
  { successes }: SparseClicks,
): void {
  const common = { suite: 'train', case: id, seed, runs: 1, iqr: 0 } as const;
  recorder.push(
    {
      ...common,
      ...{ metric: 'logloss', unit: 'nats', better: 'lower' },
      value: logLoss({ probability, successes }),
    },
    {
      ...common,
      ...{ metric: 'auc', unit: '', better: 'higher' },
      value: areaUnderRoc({ probability, successes }),
    },
  );
}
