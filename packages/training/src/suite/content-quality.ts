import { createHash } from 'node:crypto';
import { type StringColumn, stringAt, throwIfAborted } from '@waggle/core';
import type { EntityVectors, FeatureSet } from '@waggle/features';
import { logit } from '@waggle/ranking';
import { checkDataset, splitByTime, type TrainingDataset, take, takeCodes } from '../dataset.js';
import { exportSparseLinearOnnx } from '../export/sparse-onnx.js';
import { fitLogistic } from '../fit/logistic.js';
import { clicksToTrainOn, columnsOf, gateOnLaterClicks } from './click-gate.js';
import type { SuiteGate } from './suite-gate.js';
import { isoOrNull, jsonBytes, type SuiteModel } from './suite-model.js';
import { dot, nComponents, principalComponents, project } from './text-basis.js';

/** What a publication says of itself, known before its first ad. */
const PUBLICATION = [
  'pub_category_effect',
  'audience_effect',
  'log_list_size',
  'log_cadence',
  'audience_b2b',
  'language_english',
] as const;

/** What an ad says of itself, known before it runs. */
const AD = [
  'campaign_category_effect',
  'is_cpm',
  'is_flat',
  'log_bid',
  'log_headline_length',
  'log_body_length',
  'cosine_campaign_creative',
] as const;

/** Place and pair: neither's merit, and taken out. */
const CIRCUMSTANCES = [
  'is_first_position',
  'position',
  'n_ads',
  'same_category',
  'tag_match',
  'fit_publication_campaign',
] as const;

/** How good a publication or an ad is by itself: log-odds of a click that its content and attributes promise. */
export interface ContentQualityHead {
  readonly kind: 'content_quality';
  readonly names: readonly string[];
  readonly coefficients: readonly number[];
  /** The first so many of the names are the publication's, the rest the ad's. */
  readonly nPublication: number;
  readonly embeddingModel: string;
  readonly mean: readonly number[];
  readonly components: readonly number[];
}

export interface Quality {
  /** float64 [nRows] each, 0 = as good as the average row of training. */
  readonly publication: Float64Array;
  readonly ad: Float64Array;
}

export interface TrainedContentQuality extends SuiteModel {
  readonly head: ContentQualityHead;
  readonly gate: SuiteGate;
  score(rows: TrainingDataset): Quality;
}

export interface ContentQualityTraining {
  /** Sent ads with the features of pCTR. */
  readonly dataset: TrainingDataset;
  readonly featureSet: FeatureSet;
  readonly publications: EntityVectors;
  readonly campaigns: EntityVectors;
  readonly creatives: EntityVectors;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

const N_COMPONENTS = 12;
/** Nothing is known of the level of a network's clicks before they are seen. */
const LEVEL_SD = 1;

/**
 * Trains the quality of content by itself: what a publication's and an ad's own texts (leading principal components of their
 * vectors) and attributes promise in clicks, whatever they have done so far, place and pair taken out. So a publication or an ad
 * has a quality before anybody has seen it. Ridge drawn towards "all alike", chosen on later rows; gated on later rows still
 * against place and pair alone, and on what it promises. Pure.
 * @throws WAGGLE_TRAINING_SHAPE, _NOT_FINITE, _LABEL for a wrong dataset; WAGGLE_TRAINING_TOO_FEW, _FIT_FAILED; WAGGLE_ABORTED
 */
export async function trainContentQuality(
  o: ContentQualityTraining,
): Promise<TrainedContentQuality> {
  const { dataset, featureSet, seed, signal } = o;
  checkDataset(dataset, featureSet);
  const split = splitByTime(dataset.decisionTsMs);
  const { train } = split;
  const sum = (values: Float64Array) => values.reduce((all, v) => all + v, 0);
  const clicks = clicksToTrainOn('content_quality', dataset, train);
  const basis = principalComponents([o.publications, o.campaigns, o.creatives], {
    seed,
    n: N_COMPONENTS,
  });
  const { names, nPublication, inputs } = describe(o, basis);
  const x = inputs(dataset);
  const width = names.length + CIRCUMSTANCES.length;
  const base = logit(clicks / sum(take(dataset.trials, train)));
  const rowsOf = (numbers: Uint32Array, keep: (f: number) => boolean) => {
    const out = new Float32Array(numbers.length * width);
    numbers.forEach((row, i) => {
      for (let f = 0; f < width; f++) if (keep(f)) out[i * width + f] = x[row * width + f]!;
    });
    return out;
  };
  /** Logits of all rows from the columns that are kept. */
  const fitOn = async (keep: (f: number) => boolean) => {
    throwIfAborted(signal);
    const fitted = await fitLogistic(
      {
        x: rowsOf(train, keep),
        nRows: train.length,
        nFeatures: width,
        decisionTsMs: take(dataset.decisionTsMs, train),
        successes: take(dataset.successes, train),
        trials: take(dataset.trials, train),
        maturity: take(dataset.maturity, train),
        // Campaigns are the fewer: what one of them is by chance must not pass for what its words are worth.
        clusters: takeCodes(dataset.campaign, train),
        prior: new Float64Array(train.length).fill(base),
      },
      { levelSd: LEVEL_SD, signal },
    );
    const logits = dot(x, fitted.coefficients).map((v) => v + base + fitted.intercept);
    return { ...fitted, logits };
  };
  const full = await fitOn(() => true);
  const plain = await fitOn((f) => f >= names.length);
  const coefficients = full.coefficients.slice(0, names.length);

  const halves = (rows: TrainingDataset, of: Float32Array): Quality => {
    const publication = new Float64Array(rows.nRows);
    const ad = new Float64Array(rows.nRows);
    for (let i = 0; i < rows.nRows; i++) {
      for (let f = 0; f < names.length; f++) {
        (f < nPublication ? publication : ad)[i]! += coefficients[f]! * of[i * width + f]!;
      }
    }
    return { publication, ad };
  };
  const own = halves(dataset, x);
  const meanOf = (values: Float64Array) => sum(take(values, train)) / train.length;
  const center = { publication: meanOf(own.publication), ad: meanOf(own.ad) };

  const { slices, gate } = gateOnLaterClicks('content_quality', {
    ...{ dataset, split, logits: full.logits, baseline: plain.logits, seed },
  });
  const head: ContentQualityHead = {
    kind: 'content_quality',
    names,
    coefficients: Array.from(coefficients),
    nPublication,
    embeddingModel: o.publications.model,
    mean: Array.from(basis.mean),
    components: Array.from(basis.components),
  };
  const fingerprint = `quality_${createHash('sha256')
    .update(JSON.stringify([names, featureSet.fingerprint, o.publications.model]))
    .digest('hex')
    .slice(0, 24)}`;
  const spread = (values: Float64Array, around: number) =>
    Math.sqrt(values.reduce((all, v) => all + (v - around) ** 2, 0) / Math.max(values.length, 1));
  const spreads = {
    'spread of publications’ quality': spread(own.publication, center.publication),
    'spread of ads’ quality': spread(own.ad, center.ad),
  };
  return {
    name: 'content_quality',
    head,
    gate,
    fingerprint,
    score(rows) {
      const { publication, ad } = halves(rows, inputs(rows));
      return {
        publication: publication.map((v) => v - center.publication),
        ad: ad.map((v) => v - center.ad),
      };
    },
    metrics: {
      gatePassed: gate.passed ? 1 : 0,
      relativeLogLoss: slices[0]!.relative?.estimate ?? null,
      ...spreads,
    },
    artifacts: {
      'head.json': jsonBytes({ ...head, center }),
      'model.onnx': exportSparseLinearOnnx(
        {
          nFeatures: names.length,
          indices: Int32Array.from(names, (_, i) => i),
          values: coefficients,
          intercept: -center.publication - center.ad,
        },
        {
          name: 'content_quality',
          nFields: names.length,
          values: true,
          metadata: { 'waggle.feature_set': fingerprint },
        },
      ).bytes,
      'gate.json': jsonBytes(gate),
    },
    card: {
      name: 'content_quality',
      predicts:
        'How good a publication and an ad are by themselves: log-odds of a click that their texts and attributes promise, 0 for the average of what ran.',
      unit: 'a publication; a campaign with one of its creatives',
      label:
        'unique verified clicks within 72 h among delivered emails, place in the issue and match of the pair taken out',
      maturity:
        'final 72 h after sending; younger ads count with the share of clicks that has arrived',
      baseline: 'place and pair without anything of either by itself',
      form: `ridge ${full.ridge} on ${names.length} values, ${nPublication} of the publication; ONNX takes their numbers and values, and gives σ(quality)`,
      data: {
        fromTs: isoOrNull(dataset.decisionTsMs[train[0]!] ?? Number.NaN),
        toTs: isoOrNull(dataset.decisionTsMs[train.at(-1)!] ?? Number.NaN),
        rows: { train: train.length, calibrate: split.calibrate.length, gate: split.gate.length },
      },
      features: names.map((name) => ({
        name,
        description:
          featureSet.features.find((f) => f.name === name)?.description ??
          'value of a text on a principal component of all texts',
      })),
      featureSetFingerprint: fingerprint,
      slices,
      metrics: spreads,
      calibration: 'of quality, place and pair together, on rows later than the fit',
      gate,
      limits: [
        'Says what content promises, not what a publication or an ad has shown: where there is history, pCTR knows more.',
        'Unsubscribes and downvotes are not among the labels: both are too rare by ad to tell one ad from another within weeks.',
        'Categories count with what all of their kind have done so far; a category that is new is an average one.',
      ],
    },
  };
}

/** Names of the inputs and how they are read: the publication's, the ad's, then the circumstances, which have no name in the head. */
function describe(
  { featureSet, publications, campaigns, creatives }: ContentQualityTraining,
  basis: ReturnType<typeof principalComponents>,
) {
  const [ofPublication, ofAd, around] = [PUBLICATION, AD, CIRCUMSTANCES].map((names) =>
    columnsOf('content_quality', featureSet, names),
  ) as [readonly number[], readonly number[], readonly number[]];
  const k = nComponents(basis);
  const texts = [publications, campaigns, creatives].map((of) => project(of, basis));
  const components = (kind: string) => Array.from({ length: k }, (_, c) => `${kind}_${c + 1}`);
  const names = [
    ...PUBLICATION,
    ...components('publication'),
    ...AD,
    ...components('campaign'),
    ...components('creative'),
  ];
  const nPublication = PUBLICATION.length + k;
  const width = names.length + around.length;
  const inputs = (rows: TrainingDataset): Float32Array => {
    const nFeatures = rows.featureNames.length;
    const x = new Float32Array(rows.nRows * width);
    for (let i = 0; i < rows.nRows; i++) {
      let f = i * width;
      const copy = (columns: readonly number[]) => {
        for (const at of columns) x[f++] = rows.x[i * nFeatures + at]!;
      };
      // 0 without a vector: an average text.
      const text = (kind: number, column: StringColumn) => {
        const values = texts[kind]!.get(stringAt(column, i));
        if (values !== undefined) x.set(values, f);
        f += k;
      };
      copy(ofPublication);
      text(0, rows.publication);
      copy(ofAd);
      text(1, rows.campaign);
      text(2, rows.creative);
      copy(around);
    }
    return x;
  };
  return { names, nPublication, inputs };
}
