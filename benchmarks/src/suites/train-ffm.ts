import { logLoss } from '@waggle/measurement';
import { Ffm, type FfmOptions, glmFitSparse } from '@waggle/native';
import {
  CARDINALITIES,
  idPairClicks,
  ipinyou,
  type SparseClicks,
  sliceOf,
} from '../data/sparse-clicks.js';
import { type Recorder, type SuiteOptions, touched, wanted } from '../record.js';
import { summarize } from '../statistics.js';
import { coreSeconds, ftrlOn, recordQuality, splitInTime } from './train-ftrl.js';

/**
 * `train/ffm`: examples a second of one core (the ordered schedule is one thread), k = 4, 20 fields of 75,000 ids; and how much lower
 * its log-loss is than that of the best linear model of the same 20 one-hot fields, where two ids decide as a pair and 189 pairs
 * say nothing.
 */
export async function measureFfm(options: SuiteOptions, recorder: Recorder): Promise<void> {
  if (!touched(options, 'ffm')) return;
  if (wanted(options, 'ffm') || wanted(options, 'ffm/k8')) await measureSpeed(options, recorder);
  if (wanted(options, 'ffm')) await measureGain(options, recorder);
  if (!wanted(options, 'ffm/ipinyou')) return;
  const real = ipinyou();
  if (real === undefined) {
    process.stderr.write('bench: train/ffm/ipinyou SKIPPED: no such file in WAGGLE_DATA_DIR\n');
    return;
  }
  const [train, test] = splitInTime(real);
  const probability = await ffmOn(train, test, { learningRate: 0.05, l2: 2e-2, linearL2: 1e-3 });
  recordQuality(recorder, 'ffm/ipinyou', options.seed, probability, test);
}

async function measureSpeed(options: SuiteOptions, recorder: Recorder): Promise<void> {
  const { quick, seed } = options;
  const clicks = await idPairClicks(quick ? 100_000 : 300_000, seed, 'wide');
  for (const k of [4, 8]) {
    const id = k === 4 ? 'ffm' : `ffm/k${k}`;
    if (!wanted(options, id) || (quick && k !== 4)) continue;
    const rates: number[] = [];
    const model = await Ffm.create({ nFeatures: clicks.nFeatures, nFields: clicks.nFields, k });
    // Copies of the weights are part of a call, not of an epoch: the difference of two calls leaves them out.
    for (let run = 0; run < (quick ? 3 : 5); run++) {
      const times: number[] = [];
      for (const epochs of [1, 3]) {
        times.push(await coreSeconds(() => model.fit({ ...clicks, epochs })));
      }
      rates.push((2 * clicks.nRows) / (times[1]! - times[0]!));
    }
    await model.close();
    recorder.push({
      ...{ suite: 'train', case: id, metric: 'examples_per_s_core', unit: 'examples/s' },
      ...{ better: 'higher', seed, ...summarize(rates) },
    });
  }
}

async function measureGain({ quick, seed }: SuiteOptions, recorder: Recorder): Promise<void> {
  const nTrain = quick ? 300_000 : 1_000_000;
  const clicks = await idPairClicks(nTrain + 200_000, seed, 'narrow');
  const train = sliceOf(clicks, 0, nTrain);
  const test = sliceOf(clicks, nTrain, clicks.nRows);
  const { successes } = test;
  const loss = (probability: Float64Array): number => logLoss({ probability, successes });
  const ftrl = await ftrlOn(train, test, { alpha: 0.05, l1: 0.5, l2: 1 }, 2);
  const glm = loss(await glmOn(train, test));
  const ffm = await ffmOn(train, test, { l2: chanceOf(train), linearL2: 1e-3 });
  recordQuality(recorder, 'ftrl', seed, ftrl, test);
  recordQuality(recorder, 'ffm', seed, ffm, test);
  const linear = Math.min(loss(ftrl), glm);
  recorder.push({
    ...{ suite: 'train', case: 'ffm', metric: 'logloss_gain_vs_lr', unit: 'of its log-loss' },
    ...{ better: 'higher', seed, runs: 1, iqr: 0 },
    value: 1 - loss(ffm) / linear,
  });
}

/** What chance makes of the widest pair of fields, as the documentation of `FfmOptions.l2` has it. */
function chanceOf({ nRows, successes }: SparseClicks): number {
  const rate = successes.reduce((sum, s) => sum + s, 0) / nRows;
  const [a, b] = [...CARDINALITIES].sort((x, y) => y - x);
  return Math.sqrt((rate * (1 - rate)) / nRows) * (Math.sqrt(a!) + Math.sqrt(b!));
}

/** The batch optimum of ridge regression on the same rows: no other linear model is much better. */
async function glmOn(train: SparseClicks, test: SparseClicks): Promise<Float64Array> {
  const { coefficients, intercept } = await glmFitSparse({ ...train, l2: 2, tolerance: 1e-7 });
  return Float64Array.from({ length: test.nRows }, (_, i) => {
    let eta = intercept;
    for (let e = test.indptr[i]!; e < test.indptr[i + 1]!; e++)
      eta += coefficients[test.indices[e]!]!;
    return 1 / (1 + Math.exp(-eta));
  });
}

/** Early stopping on the last tenth of the training rows. */
async function ffmOn(
  train: SparseClicks,
  test: SparseClicks,
  options: Partial<FfmOptions>,
): Promise<Float64Array> {
  const cut = Math.floor(train.nRows * 0.9);
  const model = await Ffm.create({
    nFeatures: train.nFeatures,
    nFields: train.nFields,
    ...options,
  });
  await model.fit({
    ...sliceOf(train, 0, cut),
    ...{ epochs: 15, patience: 2, validation: sliceOf(train, cut, train.nRows) },
  });
  const probability = await model.predict(test);
  await model.close();
  return probability;
}
