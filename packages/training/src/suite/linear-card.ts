import type { HeadModel, LinearModelName, SelectionCalibration } from '@waggle/ranking';
import type { GateReport } from '../gate.js';
import type { ImportedVerdict } from '../gate-imported.js';
import type { SelectionVerdict } from '../selection.js';
import type { TrainedModel } from '../train.js';
import type { TrainedTrees } from '../train-trees.js';
import type { ModelCard } from './model-card.js';

type Words = Pick<ModelCard, 'predicts' | 'unit' | 'label' | 'maturity' | 'limits'>;

/** What the models of declared feature sets are about, in words. */
const WORDS: Readonly<Record<LinearModelName, Words>> = {
  pctr: {
    predicts:
      'The probability that a delivered email leads to a unique verified click on an ad, at a place in an issue.',
    unit: 'a sent ad; each delivered email is a trial',
    label: 'unique verified clicks within 72 h of sending, among delivered emails',
    maturity:
      'final 72 h after sending; younger ads count with the share of clicks that has arrived by their age as offset',
    limits: [
      'Trained on ads that ran: what a past policy never showed is extrapolated.',
      'Clicks after 72 h do not count; a verified click may still be a patient machine’s.',
    ],
  },
  accept: {
    predicts: 'The probability that a publisher accepts an offer that is shown.',
    unit: 'a shown offer',
    label:
      'the publisher said yes before it ran out, whether or not the campaign could still pay: its first answer counts',
    maturity:
      'counted from its expiry on, whatever was said before; offers of the last 72 h are left out, since answers come early and silence late',
    limits: [
      'Offers withdrawn before any answer are left out: what their publishers would have said is not known.',
      'An acceptance is no placement: the campaign may be out of money by then.',
    ],
  },
  sent: {
    predicts: 'The probability that an accepted ad goes out in time.',
    unit: 'an accepted offer for which money was reserved, at that moment',
    label: 'sent within a day of the time that its issue was first planned for',
    maturity:
      'counted when due: a day after the planned issue, or seven days after acceptance without an issue; an ad that is not yet due is no row',
    limits: [
      'A publication with few acceptances is hardly told from the network: no-shows are rare.',
      'Whether an issue was chosen is known at acceptance only; before it, the lead counts as missing, which stands for an ad without an issue.',
    ],
  },
};

const judgedMetrics = ({ modelMetrics: judged, priorMetrics }: GateReport) => ({
  'normalised entropy': judged?.normalisedEntropy ?? null,
  'normalised entropy of the baseline': priorMetrics?.normalisedEntropy ?? null,
  AUC: judged?.auc ?? null,
  'PR-AUC': judged?.prAuc ?? null,
  ECE: judged?.ece ?? null,
});

function calibrationText(
  { calibration, calibrationReason }: TrainedModel['summary'] | TrainedTrees['summary'],
  model: HeadModel | undefined,
  verdict: SelectionVerdict | undefined,
): string {
  return [
    `${calibration.kind} (${calibrationReason}), on rows later than the fit`,
    ...selectionTexts(model?.selection, verdict),
  ].join('; ');
}

const selectionTexts = (
  selection: SelectionCalibration | undefined,
  verdict: SelectionVerdict | undefined,
): string[] => [
  ...(selection === undefined
    ? []
    : [
        `then, among the candidates of a slot, level ${selection.level.toFixed(3)} and slope ${(1 + selection.edge).toFixed(3)} for having been selected`,
      ]),
  ...(verdict === undefined ? [] : [verdict.explanation]),
];

/** What became of a correction for selection; absent where there was none to make. */
interface Corrected {
  readonly selection?: SelectionVerdict | undefined;
}

/** The card of a model of a declared feature set. */
export function linearModelCard(
  trained: TrainedModel & Corrected,
  set: { readonly features: readonly { readonly name: string; readonly description: string }[] },
): ModelCard {
  const { model, gate, summary } = trained;
  return {
    name: model.name,
    ...WORDS[model.name],
    baseline: 'the empirical-Bayes hierarchy by itself (prior logit)',
    form: model.priorOnly
      ? 'the prior by itself: the fitted model did not pass its gate; figures below are the fitted model’s'
      : `logistic correction around the prior, ridge ${summary.ridge ?? '–'}`,
    data: {
      fromTs: (model.dataRange['fromTs'] ?? null) as string | null,
      toTs: (model.dataRange['toTs'] ?? null) as string | null,
      rows: summary.rows,
    },
    features: set.features,
    featureSetFingerprint: model.featureSetFingerprint,
    slices: trained.slices,
    metrics: judgedMetrics(gate),
    calibration: calibrationText(summary, model, trained.selection),
    gate,
  };
}

/** The card of a tree head of a declared feature set. */
export function treesModelCard(
  {
    head,
    gate,
    linear,
    slices,
    summary,
  }: Omit<TrainedTrees, 'head'> & {
    readonly head: (NonNullable<TrainedTrees['head']> & Corrected) | undefined;
  },
  set: {
    readonly fingerprint: string;
    readonly features: readonly { readonly name: string; readonly description: string }[];
  },
): ModelCard {
  const { name } = linear.model;
  const { dataRange } = linear.model;
  const most = summary.gain.slice(0, 5).map((f) => f.name);
  return {
    name,
    ...WORDS[name],
    baseline: linear.model.priorOnly
      ? 'the prior by itself, which the linear model of the same rows does not beat'
      : 'the linear model of the same rows',
    form:
      head === undefined
        ? 'none: nothing could be fitted'
        : `${summary.nTrees} trees of at most ${summary.maxLeaves} leaves around the prior${most.length === 0 ? '' : `; most is gained by ${most.join(', ')}`}`,
    data: {
      fromTs: (head?.model.dataRange['fromTs'] ?? dataRange['fromTs'] ?? null) as string | null,
      toTs: (head?.model.dataRange['toTs'] ?? dataRange['toTs'] ?? null) as string | null,
      rows: summary.rows,
    },
    features: set.features,
    featureSetFingerprint: set.fingerprint,
    slices,
    metrics: judgedMetrics(gate),
    calibration: calibrationText(summary, head?.model, head?.selection),
    gate,
  };
}

/** The card of a model that was trained elsewhere. */
export function importedModelCard(
  { gate, slices }: ImportedVerdict,
  set: {
    readonly fingerprint: string;
    readonly features: readonly { readonly name: string; readonly description: string }[];
  },
  about: {
    readonly name: string;
    readonly decision: 'pctr' | 'accept';
    /** Tool and file format. */
    readonly form: string;
    readonly calibration: string;
    /** Of a pCTR that passed. */
    readonly selection?: SelectionCalibration | undefined;
    readonly selectionVerdict?: SelectionVerdict | undefined;
    readonly fromTs: string;
    readonly toTs: string;
  },
): ModelCard {
  const { name, decision, form, calibration, selection, selectionVerdict, fromTs, toTs } = about;
  const words = WORDS[decision];
  const corrected = gate.passed
    ? selectionTexts(selection, selectionVerdict)
    : ['not corrected for being selected: it has not passed its gate'];
  return {
    name,
    ...words,
    baseline: 'the empirical-Bayes hierarchy by itself (prior logit)',
    form,
    data: { fromTs, toTs, rows: { gate: gate.rows } },
    features: set.features,
    featureSetFingerprint: set.fingerprint,
    slices,
    metrics: judgedMetrics(gate),
    calibration: (decision === 'pctr' ? [calibration, ...corrected] : [calibration]).join('; '),
    gate,
    limits: [
      'Trained elsewhere: what it learned from, and until when, is what its maker declares.',
      ...words.limits,
    ],
  };
}
