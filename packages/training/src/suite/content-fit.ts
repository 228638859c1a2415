import { createHash } from 'node:crypto';
import { type StringColumn, stringAt, throwIfAborted } from '@waggle/core';
import { type EntityVectors, type FeatureSet, solveEffects } from '@waggle/features';
import { checkDataset, splitByTime, type TrainingDataset, take, takeCodes } from '../dataset.js';
import { exportSparseLinearOnnx } from '../export/sparse-onnx.js';
import { fitLogistic } from '../fit/logistic.js';
import { clicksToTrainOn, columnsOf, gateOnLaterClicks } from './click-gate.js';
import { rowCodes } from './row-codes.js';
import type { SuiteGate } from './suite-gate.js';
import { isoOrNull, jsonBytes, type SuiteModel } from './suite-model.js';
import { type Basis, dot, nComponents, principalComponents, project } from './text-basis.js';

/** Columns of the click features that compare a publication with a campaign. */
const TABULAR = [
  'cosine_publication_campaign',
  'fit_publication_campaign',
  'cosine_english',
  'fit_english',
  'cosine_square_english',
  'fit_square_english',
  'cosine_other',
  'fit_other',
  'same_category',
  'same_category_other',
  'tag_match',
  'category_targeted',
] as const;

/** How well an ad's text fits a publication's: log-odds of a click beyond what both do elsewhere. */
export interface ContentFitHead {
  readonly kind: 'content_fit';
  /** Of the inputs, in order: tabular columns, then products of components. */
  readonly names: readonly string[];
  readonly coefficients: readonly number[];
  readonly embeddingModel: string;
  readonly mean: readonly number[];
  /** [components × dim], row-major; empty without vectors. */
  readonly components: readonly number[];
}

export interface TrainedContentFit extends SuiteModel {
  readonly head: ContentFitHead;
  readonly gate: SuiteGate;
  /** Fit of each row's publication and campaign; float64 [nRows], 0 = as good as the average pair. */
  score(rows: TrainingDataset): Float64Array;
}

export interface ContentFitTraining {
  /** Sent ads with the features of pCTR. */
  readonly dataset: TrainingDataset;
  readonly featureSet: FeatureSet;
  readonly publications: EntityVectors;
  readonly campaigns: EntityVectors;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

const N_COMPONENTS = 16;
const ROUNDS = 2;
const LEVEL_VARIANCE = 0.25;
const DISPERSION = 0.15;

/**
 * Trains ad-content fit from clicks: what publication and campaign do everywhere is taken out as crossed effects, and what is
 * left of each ad is explained by comparing texts: cosines by language, categories, tags, and products of the vectors' leading
 * principal components, which weigh some topics more than others. Ridge drawn towards "no difference", chosen on later rows;
 * effects and comparison are fitted in turns. Gated on later rows against the effects alone. Pure.
 * @throws WAGGLE_TRAINING_SHAPE, _NOT_FINITE, _LABEL for a wrong dataset; WAGGLE_TRAINING_TOO_FEW, _FIT_FAILED; WAGGLE_ABORTED
 */
export async function trainContentFit(o: ContentFitTraining): Promise<TrainedContentFit> {
  const { dataset, featureSet, seed, signal } = o;
  checkDataset(dataset, featureSet);
  const split = splitByTime(dataset.decisionTsMs);
  const { train } = split;
  const clicks = clicksToTrainOn('content_fit', dataset, train);
  const basis = principalComponents([o.publications, o.campaigns], { seed, n: N_COMPONENTS });
  const compare = comparison(o, basis);
  const x = compare(dataset);
  const width = x.length / Math.max(dataset.nRows, 1);
  const rowsOf = (numbers: Uint32Array) => {
    const out = new Float32Array(numbers.length * width);
    numbers.forEach((row, i) => {
      out.set(x.subarray(row * width, (row + 1) * width), i * width);
    });
    return out;
  };
  const own = rowsOf(train);
  const levels = [dataset.publication, dataset.campaign];
  const successes = take(dataset.successes, train);
  const trials = take(dataset.trials, train);
  const maturity = take(dataset.maturity, train);
  let coefficients = new Float64Array(width);
  let ridge = 0;
  let intercept = 0;
  // Around the average pair of the training rows, so that 0 says "as good as any".
  let center = 0;
  let eta = new Float64Array(dataset.nRows);
  let alone = eta;
  for (let round = 0; round < ROUNDS; round++) {
    throwIfAborted(signal);
    const solved = await solveEffects(
      {
        successes,
        exposure: trials.map((n, i) => n * maturity[i]!),
        offset: dot(own, coefficients).map((v) => v - center),
        codes: rowCodes(
          levels.map((level) => takeCodes(level, train)),
          train.length,
        ),
      },
      {
        link: 'log',
        levels: levels.map((level) => ({
          size: level.dictionary.length,
          variance: LEVEL_VARIANCE,
        })),
        base: { mean: Math.log(clicks / trials.reduce((sum, n) => sum + n, 0)), variance: 1 },
        dispersion: DISPERSION,
      },
      { signal },
    );
    eta = Float64Array.from({ length: dataset.nRows }, (_, i) =>
      levels.reduce((sum, level, l) => sum + solved.effects[l]![level.codes[i]!]!, solved.base),
    );
    if (round === 0) alone = eta;
    const fitted = await fitLogistic(
      {
        x: own,
        nRows: train.length,
        nFeatures: width,
        decisionTsMs: take(dataset.decisionTsMs, train),
        successes,
        trials,
        maturity,
        clusters: takeCodes(dataset.publication, train),
        prior: take(eta, train),
      },
      { signal },
    );
    coefficients = Float64Array.from(fitted.coefficients);
    intercept = fitted.intercept;
    ridge = fitted.ridge;
    center = dot(own, coefficients).reduce((sum, v) => sum + v / train.length, 0);
  }
  const compared = dot(x, coefficients);
  const fit = compared.map((v) => v - center);
  const logits = eta.map((v, i) => v + compared[i]! + intercept);
  // It must tell pairs apart, and what it promises together with the effects must come.
  const { slices, gate } = gateOnLaterClicks('content_fit', {
    ...{ dataset, split, logits, baseline: alone, seed },
  });
  const names = [
    ...TABULAR,
    ...Array.from({ length: width - TABULAR.length }, (_, k) => `component_${k + 1}`),
  ];
  const head: ContentFitHead = {
    kind: 'content_fit',
    names,
    coefficients: Array.from(coefficients),
    embeddingModel: o.publications.model,
    mean: Array.from(basis.mean),
    components: Array.from(basis.components),
  };
  const fingerprint = `content_${createHash('sha256')
    .update(JSON.stringify([names, featureSet.fingerprint, o.publications.model]))
    .digest('hex')
    .slice(0, 24)}`;
  const spread = Math.sqrt(fit.reduce((sum, v) => sum + v * v, 0) / Math.max(fit.length, 1));
  return {
    name: 'content_fit',
    head,
    gate,
    fingerprint,
    score: (rows) => dot(compare(rows), coefficients).map((v) => v - center),
    metrics: {
      gatePassed: gate.passed ? 1 : 0,
      relativeLogLoss: slices[0]!.relative?.estimate ?? null,
      spread,
    },
    artifacts: {
      'head.json': jsonBytes({ ...head, center }),
      'model.onnx': exportSparseLinearOnnx(
        {
          nFeatures: width,
          indices: Int32Array.from(names, (_, i) => i),
          values: coefficients,
          intercept: -center,
        },
        {
          name: 'content_fit',
          nFields: width,
          values: true,
          metadata: { 'waggle.feature_set': fingerprint },
        },
      ).bytes,
      'gate.json': jsonBytes(gate),
    },
    card: {
      name: 'content_fit',
      predicts:
        'How well an ad’s text fits a publication’s: log-odds of a click beyond what both do elsewhere, 0 for an average pair.',
      unit: 'a publication and a campaign',
      label:
        'unique verified clicks within 72 h among delivered emails, publication’s and campaign’s own effects taken out',
      maturity:
        'final 72 h after sending; younger ads count with the share of clicks that has arrived',
      baseline: 'effects of publication and campaign without any comparison of texts',
      form: `ridge ${ridge} on ${names.length} comparisons; ONNX takes their numbers and values, and gives σ(fit)`,
      data: {
        fromTs: isoOrNull(dataset.decisionTsMs[train[0]!] ?? Number.NaN),
        toTs: isoOrNull(dataset.decisionTsMs[train.at(-1)!] ?? Number.NaN),
        rows: { train: train.length, calibrate: split.calibrate.length, gate: split.gate.length },
      },
      features: names.map((name) => ({
        name,
        description:
          featureSet.features.find((f) => f.name === name)?.description ??
          'product of both texts’ values on a principal component of all texts',
      })),
      featureSetFingerprint: fingerprint,
      slices,
      metrics: { 'spread of the fit over the rows': spread },
      calibration: 'of the fit with both effects, on rows later than the fit',
      gate,
      limits: [
        'Learned from pairs that ran; what was never shown is extrapolated through the texts.',
        'Unsubscribes and complaints are not among the labels yet, nor is the quality of an ad by itself.',
      ],
    },
  };
}

/** Comparisons of each row's publication and campaign: tabular columns, then products of components (0 without a vector). */
function comparison(
  { featureSet, publications, campaigns }: ContentFitTraining,
  basis: Basis,
): (rows: TrainingDataset) => Float32Array {
  const columns = columnsOf('content_fit', featureSet, TABULAR);
  const k = nComponents(basis);
  const [ofPublication, ofCampaign] = [project(publications, basis), project(campaigns, basis)];
  const width = columns.length + k;
  return (rows) => {
    const nFeatures = rows.featureNames.length;
    const x = new Float32Array(rows.nRows * width);
    const projected = (of: ReadonlyMap<string, Float64Array>, column: StringColumn, row: number) =>
      of.get(stringAt(column, row));
    for (let i = 0; i < rows.nRows; i++) {
      columns.forEach((at, f) => {
        x[i * width + f] = rows.x[i * nFeatures + at]!;
      });
      const p = projected(ofPublication, rows.publication, i);
      const c = projected(ofCampaign, rows.campaign, i);
      if (p === undefined || c === undefined) continue;
      for (let d = 0; d < k; d++) x[i * width + columns.length + d] = p[d]! * c[d]!;
    }
    return x;
  };
}
