import type { FeatureSet } from '@waggle/features';
import { calibrationRatio } from '@waggle/measurement';
import { calibrate } from '@waggle/ranking';
import { fitCalibration } from '../calibrate.js';
import { type TimeSplit, type TrainingDataset, take, takeCodes } from '../dataset.js';
import { trainingError } from '../errors.js';
import { calibrationCheck, type GateCheck, MIN_CAMPAIGNS } from '../gate.js';
import { judgedCounts, type SliceOfModel, sliceTable } from './slice-table.js';
import { gateOnSlices, type SuiteGate } from './suite-gate.js';
import { firstSeen } from './suite-model.js';

const MIN_CLICKS = 500;

/** Clicks of the rows to train on. @throws WAGGLE_TRAINING_TOO_FEW below 500 */
export function clicksToTrainOn(
  model: string,
  dataset: TrainingDataset,
  train: Uint32Array,
): number {
  const clicks = take(dataset.successes, train).reduce((sum, s) => sum + s, 0);
  if (clicks < MIN_CLICKS) {
    throw trainingError(
      'WAGGLE_TRAINING_TOO_FEW',
      `${model}: ${clicks} clicks to train on, ${MIN_CLICKS} are needed`,
      { details: { clicks } },
    );
  }
  return clicks;
}

/** Where the features of these names stand in a row. @throws WAGGLE_TRAINING_SHAPE when the set lacks one */
export function columnsOf(
  model: string,
  featureSet: FeatureSet,
  names: readonly string[],
): readonly number[] {
  return names.map((name) => {
    const at = featureSet.names.indexOf(name);
    if (at < 0) {
      throw trainingError('WAGGLE_TRAINING_SHAPE', `${model} needs the feature ${name}`);
    }
    return at;
  });
}

/**
 * Judges a model of clicks on the latest rows, against a baseline that lacks what the model adds. Both are calibrated on the
 * same rows between fit and gate: what is compared is the order, not a season. What the model promises must come, too. Rows of
 * one publication or campaign, or without a click, are a failed gate.
 */
export function gateOnLaterClicks(
  name: string,
  o: {
    readonly dataset: TrainingDataset;
    readonly split: TimeSplit;
    /** [nRows] logits of all rows, before calibration. */
    readonly logits: Float64Array;
    readonly baseline: Float64Array;
    readonly seed: number;
  },
): { readonly slices: readonly SliceOfModel[]; readonly gate: SuiteGate } {
  const { dataset, split, seed } = o;
  const slice = (numbers: Uint32Array, logits: Float64Array) => ({
    logits: take(logits, numbers),
    successes: take(dataset.successes, numbers),
    trials: take(dataset.trials, numbers),
    maturity: take(dataset.maturity, numbers),
    clusters: takeCodes(dataset.publication, numbers),
  });
  const visible = (logits: Float64Array): Float64Array => {
    const { calibration } = fitCalibration(slice(split.calibrate, logits));
    return Float64Array.from(
      split.gate,
      (i) => calibrate(calibration, logits[i]!) * dataset.maturity[i]!,
    );
  };
  const judged = slice(split.gate, o.logits);
  const model = visible(o.logits);
  const judgedRows = judgedCounts({
    ...{ model, baseline: visible(o.baseline), publications: judged.clusters },
    ...{ successes: judged.successes, trials: judged.trials },
    publicationFirstMs: firstSeen(dataset.publication, dataset.decisionTsMs, split.gate),
    campaignFirstMs: firstSeen(dataset.campaign, dataset.decisionTsMs, split.gate),
    decisionTsMs: take(dataset.decisionTsMs, split.gate),
  });
  const slices = sliceTable(judgedRows, seed);
  const campaigns = takeCodes(dataset.campaign, split.gate);
  const nCampaigns = new Set(campaigns.filter((_, i) => judged.trials[i]! > 0)).size;
  const clicks = judged.successes.reduce((sum, s) => sum + s, 0);
  const checks: GateCheck[] = [];
  if (clicks === 0) {
    checks.push({
      name: 'calibration',
      passed: false,
      ...{ value: null, limit: null },
      explanation: 'no later row has a click, which says nothing of what is promised',
    });
  } else if (slices[0]!.publications >= 2 && nCampaigns >= MIN_CAMPAIGNS) {
    const { ratio, logStandardError } = calibrationRatio(
      { probability: model, successes: judged.successes, trials: judged.trials },
      judged.clusters,
      campaigns,
    );
    checks.push(calibrationCheck(ratio, logStandardError));
  }
  const gate = gateOnSlices(name, slices[0]!, { ...judgedRows, campaigns }, checks, nCampaigns);
  return { slices, gate };
}
