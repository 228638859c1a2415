import { type ColumnTable, type StringColumn, stringColumn, stringData } from '@waggle/core';
import { spineSql } from './compile-sql.js';
import { type FeatureSet, resolveParams } from './definition.js';
import {
  compileOptions,
  type FeatureStore,
  latestEmbeddingModel,
  QUERY_SETTINGS,
  tableReader,
  type Visibility,
} from './feature-store.js';
import { clickMaturity } from './label.js';
import { computeLeaves, evaluateLeaves } from './leaves.js';
import { numbers } from './query-columns.js';
import { acceptancesSql, sentByDueTimeSql } from './sets/sent-sources.js';
import { clicksPerPlacementSql, offerOutcomesSql } from './sources.js';

/** Training rows: features as they were known at each decision, and what came of it. */
export interface Dataset {
  readonly nRows: number;
  readonly featureNames: readonly string[];
  readonly fingerprint: string;
  /** float32 [nRows × nFeatures], row-major. */
  readonly x: Float32Array;
  /** When each ad ran (or each offer was shown), UTC ms; ascending. */
  readonly decisionTsMs: Float64Array;
  /** Unique verified clicks within 72 h seen by `asOfMs`; 1 or 0 for an offer (accepted) or an acceptance (sent in time). */
  readonly successes: Float64Array;
  /** Delivered emails; 1 for an offer or an acceptance. */
  readonly trials: Float64Array;
  /** Share of the successes that has arrived by `asOfMs`, in (0, 1]; its logarithm is the offset. */
  readonly maturity: Float64Array;
  readonly publication: StringColumn;
  readonly campaign: StringColumn;
  readonly creative: StringColumn;
  /** Placement or offer ids. */
  readonly rowIds: StringColumn;
  readonly params: Readonly<Record<string, number>>;
  readonly embeddingModel: string;
}

export interface DatasetOptions {
  readonly tenantId: string;
  /** Decisions in [fromMs, toMs). */
  readonly fromMs: number;
  readonly toMs: number;
  /** What is known now: later events are not read at all. */
  readonly asOfMs: number;
  readonly params?: Readonly<Record<string, number>>;
  /** Model whose vectors to read; the one written last by default. */
  readonly embeddingModel?: string;
  readonly signal?: AbortSignal;
}

/**
 * Decisions in time order with a dense `ordinal` from 1. A decision is taken before its own send: it may know
 * what was available one millisecond earlier.
 */
function decisionsSql(set: FeatureSet, options: DatasetOptions, visibility: Visibility): string {
  const read = tableReader(visibility);
  const inRange = `toUnixTimestamp64Milli(ts) >= ${options.fromMs} AND toUnixTimestamp64Milli(ts) < ${options.toMs}`;
  if (set.row === 'acceptance') {
    return `(SELECT *, row_number() OVER (ORDER BY accepted_ms, event_id) AS row_ordinal, accepted_ms AS decision_ms FROM (${acceptancesSql(read)}) WHERE accepted_ms >= ${options.fromMs} AND accepted_ms < ${options.toMs})`;
  }
  return set.row === 'placement'
    ? `(SELECT *, row_number() OVER (ORDER BY ts, event_id) AS row_ordinal, toUnixTimestamp64Milli(ts) AS decision_ms FROM ${read.events('placements', `type = 'placement.sent' AND delivered > 0 AND ${inRange}`)})`
    : `(SELECT *, row_number() OVER (ORDER BY ts, event_id) AS row_ordinal, toUnixTimestamp64Milli(ts) AS decision_ms FROM ${read.events('offers', `type = 'offer.shown' AND ${inRange}`)})`;
}

/** The spine of past decisions: what training and the leak check evaluate features for. */
export function decisionSpineSql(
  set: FeatureSet,
  options: DatasetOptions,
  visibility: Visibility,
): string {
  const common = {
    ordinal: 'row_ordinal',
    as_of_ms: 'decision_ms - 1',
    ts_ms: 'decision_ms',
    publication_id: 'publication_id',
    campaign_id: 'campaign_id',
    creative_id: 'creative_id',
    price_micros: 'price_micros',
  };
  const own = {
    placement: { position: 'position', n_ads: 'n_ads' },
    offer: { menu_size: 'menu_size', rank: 'rank', est_payout_micros: 'est_payout_micros' },
    acceptance: { position: 'position', n_ads: 'n_ads', lead_ms: 'lead_ms' },
  };
  return spineSql({ ...common, ...own[set.row] }, decisionsSql(set, options, visibility));
}

/**
 * Every feature of every decision, point-in-time correct, in the order of their ordinals from 1.
 * @returns float32 [nDecisions × nFeatures], row-major
 */
export async function decisionFeatures(
  store: FeatureStore,
  set: FeatureSet,
  options: DatasetOptions & { readonly embeddingModel: string },
  visibility: Visibility = { untilMs: options.asOfMs },
): Promise<Float32Array> {
  const compile = compileOptions(set, {
    ...visibility,
    params: resolveParams(set, options.params),
    // The decisions themselves are listed in full; what they may know is what `visibility` limits.
    spine: decisionSpineSql(set, options, { untilMs: options.asOfMs }),
    fromMs: options.fromMs - 1,
    toMs: options.toMs,
    embeddingModel: options.embeddingModel,
  });
  const rows = await computeLeaves(store, compile, queryOptions(options));
  return evaluateLeaves(compile, rows);
}

function queryOptions(options: DatasetOptions & { readonly embeddingModel: string }) {
  return {
    params: { tenant_id: options.tenantId, embedding_model: options.embeddingModel },
    settings: QUERY_SETTINGS,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
}

/** Outcomes of the same decisions: `ordinal`, ids, `decision_ms`, `successes`, `trials`. */
export function labelSql(set: FeatureSet, options: DatasetOptions): string {
  const visibility = { untilMs: options.asOfMs };
  const read = tableReader(visibility);
  const ids = `toFloat64(d.row_ordinal) AS ordinal, toFloat64(d.decision_ms) AS decision_ms, d.publication_id AS publication_id, d.campaign_id AS campaign_id, d.creative_id AS creative_id`;
  if (set.row === 'acceptance') {
    return `SELECT ${ids}, d.placement_id AS row_id, toFloat64(o.sent) AS successes, toFloat64(d.due_ms <= ${options.asOfMs}) AS trials
FROM ${decisionsSql(set, options, visibility)} AS d
LEFT JOIN (${sentByDueTimeSql(read)}) AS o ON o.placement_id = d.placement_id
ORDER BY ordinal`;
  }
  return set.row === 'placement'
    ? `SELECT ${ids}, d.placement_id AS row_id, c.clicks AS successes, toFloat64(d.delivered) AS trials
FROM ${decisionsSql(set, options, visibility)} AS d
LEFT JOIN (${clicksPerPlacementSql(read)}) AS c ON c.placement_id = d.placement_id
ORDER BY ordinal`
    : `SELECT ${ids}, d.offer_id AS row_id, toFloat64(o.accepted) AS successes, toFloat64(o.expires_ms > 0 AND o.expires_ms <= ${options.asOfMs} AND NOT o.withdrawn) AS trials
FROM ${decisionsSql(set, options, visibility)} AS d
LEFT JOIN (${offerOutcomesSql(read)}) AS o ON o.offer_id = d.offer_id
ORDER BY ordinal`;
}

/**
 * Features of the decisions joined with their labels. Rows without trials are left out: offers withdrawn before any answer (one that
 * was accepted and then withdrawn for want of money was accepted), acceptances whose issue is not yet due, and offers that may still be answered. Those count from their expiry on, whatever was said until then, since answers come early and silence
 * late: counting them as they are decided would make the newest rows look accepted. Cost: one pass over the tenant's events; memory O(rows × features).
 */
export async function buildDataset(
  store: FeatureStore,
  set: FeatureSet,
  options: DatasetOptions,
): Promise<Dataset> {
  const embeddingModel =
    options.embeddingModel ?? (await latestEmbeddingModel(store, options.tenantId, options.signal));
  const range = { ...options, embeddingModel };
  const labels = await store.queryColumns(labelSql(set, options), queryOptions(range));
  const features = await decisionFeatures(store, set, range);
  const nFeatures = set.features.length;
  const trialsAll = numbers(labels, 'trials');
  const kept: number[] = [];
  for (let i = 0; i < labels.nRows; i++) if (trialsAll[i]! > 0) kept.push(i);
  const nRows = kept.length;
  const pick = (name: string): Float64Array => {
    const all = numbers(labels, name);
    return Float64Array.from(kept, (i) => all[i]!);
  };
  // Both statements number the same decisions the same way, from 1 without gaps.
  const ordinals = numbers(labels, 'ordinal');
  const x = new Float32Array(nRows * nFeatures);
  kept.forEach((from, i) => {
    const row = (ordinals[from]! - 1) * nFeatures;
    x.set(features.subarray(row, row + nFeatures), i * nFeatures);
  });
  const decisionTsMs = pick('decision_ms');
  const maturity =
    set.row === 'placement'
      ? decisionTsMs.map((ts) => clickMaturity(options.asOfMs - ts))
      : new Float64Array(nRows).fill(1);
  return {
    nRows,
    featureNames: set.names,
    fingerprint: set.fingerprint,
    x,
    decisionTsMs,
    successes: pick('successes'),
    trials: pick('trials'),
    maturity,
    publication: pickStrings(labels, 'publication_id', kept),
    campaign: pickStrings(labels, 'campaign_id', kept),
    creative: pickStrings(labels, 'creative_id', kept),
    rowIds: pickStrings(labels, 'row_id', kept),
    params: resolveParams(set, options.params),
    embeddingModel,
  };
}

function pickStrings(table: ColumnTable, name: string, rows: readonly number[]): StringColumn {
  if (rows.length === 0) return stringColumn([]);
  const all = stringData(table, name);
  return stringColumn(rows.map((row) => all.dictionary[all.codes[row]!]!));
}
