import { isWaggleError, silentLogger, stringAt } from '@waggle/core';
import {
  type ClickReleaseInput,
  type ImportedModel,
  loadClickRelease,
  type RanAd,
  rankingReleaseFiles,
  type ScoredAds,
  scoreRanAds,
} from '@waggle/engine';
import { InlineRunner } from '@waggle/models';
import { type SelectionCalibration, withSelection } from '@waggle/ranking';
import { releaseInMemory } from '@waggle/releases';
import type { Store } from '@waggle/store';
import {
  fitJudgedSelection,
  releasedInWeek,
  type SelectionVerdict,
  splitByTime,
  type TrainingDataset,
  weekSince,
} from '@waggle/training';
import { gatherRelease, priorModels, type ReleaseParts } from './commands/release.js';
import type { CommandContext } from './context.js';
import type { DataRange } from './data-range.js';
import type { ServableModel } from './model-registry.js';

/** A model as training leaves it. */
export type Correctable = Pick<ServableModel, 'model' | 'trees' | 'onnx'>;

export interface CorrectionData {
  /** What the model was trained on, with the parameters of its features. */
  readonly rows: TrainingDataset & Pick<ServableModel, 'params'>;
  readonly range: DataRange;
}

/** A correction with what became of it on rows that it was not fitted on. */
export interface Correction {
  /** Undefined where the verdict is against it. */
  readonly calibration: SelectionCalibration | undefined;
  readonly verdict: SelectionVerdict;
}

type CorrectionContext = Pick<CommandContext, 'config' | 'clock' | 'logger' | 'signal'>;

/**
 * A pCTR, be it the prior alone, with the correction for what is selected by it: a release is made as of the moment that the model's
 * own rows end, and another every week from then on, each is asked about the ads that ran in its week, and the answers are compared
 * with what came. The same model where too little ran, or where a correction of the earlier half makes the later half worse.
 * @throws WAGGLE_ABORTED, store errors
 */
export async function correctForSelection<M extends Correctable>(
  context: CorrectionContext,
  store: Store,
  trained: M,
  { rows, range }: CorrectionData,
): Promise<M & { readonly selection: SelectionVerdict }> {
  const { calibrate, gate, calibrateFromMs } = splitByTime(rows.decisionTsMs);
  const pctr = { ...trained, gate: null, params: rows.params };
  const { calibration, verdict } = await fitSince(context, store, {
    ...{ version: trained.model.version, models: { pctr } },
    ...{ rows, range, later: [...calibrate, ...gate], releasedMs: calibrateFromMs },
  });
  const { model } = trained;
  return {
    ...trained,
    model: calibration === undefined ? model : withSelection(model, calibration),
    selection: verdict,
  };
}

/**
 * The same correction for a pCTR of another tool. The release is made when the data that it learned from ends, or when the rows that
 * correct our own begin, whichever is later: what is asked about it has not seen, and what it knows of everybody is as fresh as ours.
 * @throws WAGGLE_ABORTED, store errors, what the model throws
 */
export function correctionOfImported(
  context: CorrectionContext,
  store: Store,
  imported: ImportedModel,
  { rows, range }: { readonly rows: TrainingDataset; readonly range: DataRange },
): Promise<Correction> {
  const { calibrateFromMs } = splitByTime(rows.decisionTsMs);
  const releasedMs = Math.max(calibrateFromMs, Date.parse(imported.contract.dataRange.to));
  const times = rows.decisionTsMs;
  const { pctr } = priorModels();
  return fitSince(context, store, {
    ...{ version: imported.version, models: { pctr } },
    imported: { pctr: { ...imported, gate: null } },
    ...{ rows, range, releasedMs },
    later: Array.from(times.keys()).filter((row) => times[row]! >= releasedMs),
  });
}

interface RowsSince extends Omit<ReleaseParts, 'range'> {
  readonly version: string;
  readonly rows: TrainingDataset;
  /** Numbers of those that ran after the release was made. */
  readonly later: readonly number[];
  /** What is known now. */
  readonly range: DataRange;
  readonly releasedMs: number;
}

async function fitSince(
  context: CorrectionContext,
  store: Store,
  { version, rows, later, range, releasedMs, ...models }: RowsSince,
): Promise<Correction> {
  const feature = (name: string, row: number): number =>
    rows.x[row * rows.featureNames.length + rows.featureNames.indexOf(name)]!;
  const ads = later.map((row) => ({
    publicationId: stringAt(rows.publication, row),
    campaignId: stringAt(rows.campaign, row),
    creativeId: stringAt(rows.creative, row),
    tsMs: rows.decisionTsMs[row]!,
    position: feature('position', row),
    nAds: feature('n_ads', row),
  }));
  const logits = new Float64Array(ads.length).fill(Number.NaN);
  const advantage = new Float64Array(ads.length).fill(Number.NaN);
  const weeks = ads.map(({ tsMs }) => weekSince(releasedMs, tsMs));
  for (const week of new Set(weeks)) {
    const members = Array.from(ads.keys()).filter((i) => weeks[i] === week);
    const asOf = { ...models, range: { ...range, asOfMs: releasedInWeek(releasedMs, week) } };
    const asked = members.map((i) => ads[i]!);
    const scored = await scoreBy(context, store, asOf, asked);
    members.forEach((i, k) => {
      logits[i] = scored?.logits[k] ?? Number.NaN;
      advantage[i] = scored?.advantage[k] ?? Number.NaN;
    });
  }
  // What the release did not know yet it could not have served.
  const known = Array.from(later.keys()).filter((i) => !Number.isNaN(logits[i]!));
  const propensities = await offerPropensities(context, store, range);
  const pick = (column: ArrayLike<number>) => known.map((i) => column[later[i]!]!);
  const { fit, verdict } = await fitJudgedSelection(
    {
      logits: known.map((i) => logits[i]!),
      advantage: known.map((i) => advantage[i]!),
      successes: pick(rows.successes),
      trials: pick(rows.trials),
      maturity: pick(rows.maturity),
      publications: pick(rows.publication.codes),
      campaigns: pick(rows.campaign.codes),
      weeks: known.map((i) => weeks[i]!),
      propensity: known.map(
        (i) => propensities.get(stringAt(rows.rowIds, later[i]!)) ?? Number.NaN,
      ),
    },
    Float64Array.from(pick(rows.decisionTsMs)),
  );
  const about = { model: version, rows: known.length, verdict: verdict.explanation };
  if (fit === undefined) {
    context.logger.warn(about, 'no correction for selection');
    return { calibration: undefined, verdict };
  }
  const { calibration, liking, variances } = fit;
  context.logger.info(
    { ...about, ...calibration, liking, ...variances },
    'correction for selection fitted',
  );
  return { calibration, verdict };
}

/** What would have been said by what was served from a moment on; undefined for a network that had nothing to serve yet. */
async function scoreBy(
  context: CorrectionContext,
  store: Store,
  parts: ReleaseParts,
  ads: readonly RanAd[],
): Promise<ScoredAds | undefined> {
  let gathered: ClickReleaseInput;
  try {
    gathered = await gatherRelease(context, store, parts);
  } catch (error) {
    if (isWaggleError(error) && error.code === 'WAGGLE_CATALOG_EMPTY') return undefined;
    throw error;
  }
  const release = await loadClickRelease(
    releaseInMemory(rankingReleaseFiles(gathered), context.clock.nowMs()),
    { logger: silentLogger, networkRunner: () => new InlineRunner() },
  );
  try {
    return await scoreRanAds(release, ads);
  } finally {
    await release.networks?.close();
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
