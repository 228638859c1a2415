import { isWaggleError, silentLogger, stringAt } from '@waggle/core';
import { loadClickRelease, rankingReleaseFiles, scoreRanAds } from '@waggle/engine';
import { withSelection } from '@waggle/ranking';
import { releaseInMemory } from '@waggle/releases';
import type { Store } from '@waggle/store';
import { fitSelectionCalibration, splitByTime, type TrainingDataset } from '@waggle/training';
import { gatherRelease } from './commands/release.js';
import type { CommandContext } from './context.js';
import type { DataRange } from './data-range.js';
import type { ServableModel } from './model-registry.js';

/** Fewer clicks than this after the model's own rows say less than is believed before looking. */
const MIN_SUCCESSES = 50;

/** A model as training leaves it. */
export type Correctable = Pick<ServableModel, 'model' | 'trees' | 'onnx'>;

export interface CorrectionData {
  /** What the model was trained on, with the parameters of its features. */
  readonly rows: TrainingDataset & Pick<ServableModel, 'params'>;
  readonly range: DataRange;
}

/**
 * A pCTR, be it the prior alone, with the correction for what is selected by it: a release is made as of the moment that the model's
 * own rows end, asked about every ad that ran since, and its answers are compared with what came. The same model where too little ran.
 * @throws WAGGLE_ABORTED, store errors
 */
export async function correctForSelection<M extends Correctable>(
  context: Pick<CommandContext, 'config' | 'clock' | 'logger' | 'signal'>,
  store: Store,
  trained: M,
  { rows, range }: CorrectionData,
): Promise<M> {
  const { calibrate, gate, calibrateFromMs } = splitByTime(rows.decisionTsMs);
  const later = [...calibrate, ...gate];
  if (later.reduce((sum, row) => sum + rows.successes[row]!, 0) < MIN_SUCCESSES) return trained;
  const pctr = { ...trained, gate: null, params: rows.params };
  const release = await releaseAt(context, store, pctr, { ...range, asOfMs: calibrateFromMs });
  if (release === undefined) return trained;

  const feature = (name: string, row: number): number =>
    rows.x[row * rows.featureNames.length + rows.featureNames.indexOf(name)]!;
  const scored = scoreRanAds(
    release,
    later.map((row) => ({
      publicationId: stringAt(rows.publication, row),
      campaignId: stringAt(rows.campaign, row),
      creativeId: stringAt(rows.creative, row),
      tsMs: rows.decisionTsMs[row]!,
      position: feature('position', row),
      nAds: feature('n_ads', row),
    })),
  );
  // What the release did not know yet it could not have served.
  const known = Array.from(later.keys()).filter((i) => !Number.isNaN(scored.logits[i]!));
  if (known.length === 0) return trained;
  const propensities = await offerPropensities(context, store, range);
  const pick = (column: ArrayLike<number>) => known.map((i) => column[later[i]!]!);
  const { calibration, liking, variances } = await fitSelectionCalibration({
    logits: known.map((i) => scored.logits[i]!),
    advantage: known.map((i) => scored.advantage[i]!),
    successes: pick(rows.successes),
    trials: pick(rows.trials),
    maturity: pick(rows.maturity),
    publications: pick(rows.publication.codes),
    campaigns: pick(rows.campaign.codes),
    propensity: known.map((i) => propensities.get(stringAt(rows.rowIds, later[i]!)) ?? Number.NaN),
  });
  const model = withSelection(trained.model, calibration);
  context.logger.info(
    { model: model.version, rows: known.length, ...calibration, liking, ...variances },
    'correction for selection fitted',
  );
  return { ...trained, model };
}

/** What would have been served from a moment on; undefined for a network that had nothing to serve yet. */
async function releaseAt(
  context: Pick<CommandContext, 'config' | 'clock' | 'logger' | 'signal'>,
  store: Store,
  pctr: ServableModel,
  range: DataRange,
) {
  try {
    const parts = await gatherRelease(context, store, {
      range,
      models: { pctr },
    });
    const release = releaseInMemory(rankingReleaseFiles(parts), context.clock.nowMs());
    return await loadClickRelease(release, { logger: silentLogger });
  } catch (error) {
    if (isWaggleError(error) && error.code === 'WAGGLE_CATALOG_EMPTY') return undefined;
    throw error;
  }
}

/** By placement, with what probability its campaign was offered; placements without an offer are not in it. */
async function offerPropensities(
  context: Pick<CommandContext, 'config' | 'signal'>,
  store: Store,
  range: DataRange,
): Promise<ReadonlyMap<string, number>> {
  const found = await store.query<{ placement_id: string; propensity: number }>(
    `SELECT p.placement_id AS placement_id, toFloat64(o.propensity) AS propensity
     FROM (SELECT placement_id, offer_id FROM placements FINAL WHERE tenant_id = {tenant:String}
       AND type = 'placement.sent' AND offer_id != '' AND toUnixTimestamp64Milli(ts) <= {as_of:Int64}) AS p
     INNER JOIN (SELECT offer_id, any(propensity) AS propensity FROM offers WHERE tenant_id = {tenant:String}
       AND type = 'offer.shown' GROUP BY offer_id) AS o ON o.offer_id = p.offer_id
     WHERE propensity > 0 AND propensity <= 1`,
    {
      params: { tenant: context.config.tenantId, as_of: range.asOfMs },
      ...(context.signal === undefined ? {} : { signal: context.signal }),
    },
  );
  return new Map(found.map((row) => [row.placement_id, row.propensity]));
}
