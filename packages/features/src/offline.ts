import { spineSql, stringSql } from './compile-sql.js';
import { type FeatureSet, resolveParams } from './definition.js';
import {
  compileOptions,
  type FeatureStore,
  latestEmbeddingModel,
  QUERY_SETTINGS,
} from './feature-store.js';
import { computeLeaves, evaluateLeaves } from './leaves.js';

/** A decision that need not have happened: what would its features be, knowing what was known at `asOfMs`? */
export interface HypotheticalDecision {
  readonly publicationId: string;
  readonly campaignId: string;
  /** '' = none chosen. */
  readonly creativeId: string;
  readonly tsMs: number;
  readonly position: number;
  readonly nAds: number;
  readonly menuSize?: number;
  readonly leadMs?: number;
  readonly priceMicros?: number;
  readonly estPayoutMicros?: number;
  readonly rank?: number;
}

export interface OfflineOptions {
  readonly tenantId: string;
  readonly asOfMs: number;
  readonly params?: Readonly<Record<string, number>>;
  readonly embeddingModel?: string;
  readonly signal?: AbortSignal;
}

/** Rows of one statement: a literal list of decisions is part of its text. */
const MAX_DECISIONS = 20_000;

/**
 * Features of hypothetical decisions by the statements that training runs: the reference that online evaluation is
 * compared with, and a way to ask "what did we know then" about any moment.
 * @returns float32 [nDecisions × nFeatures], row-major; one pass over the tenant's events
 */
export async function evaluateOffline(
  store: FeatureStore,
  set: FeatureSet,
  decisions: readonly HypotheticalDecision[],
  options: OfflineOptions,
): Promise<Float32Array> {
  const out = new Float32Array(decisions.length * set.features.length);
  const embeddingModel =
    options.embeddingModel ?? (await latestEmbeddingModel(store, options.tenantId, options.signal));
  for (let from = 0; from < decisions.length; from += MAX_DECISIONS) {
    const part = decisions.slice(from, from + MAX_DECISIONS);
    const compile = compileOptions(set, {
      untilMs: options.asOfMs,
      params: resolveParams(set, options.params),
      spine: literalSpine(part, options.asOfMs),
      fromMs: options.asOfMs,
      toMs: options.asOfMs,
      embeddingModel,
    });
    const rows = await computeLeaves(store, compile, {
      params: { tenant_id: options.tenantId, embedding_model: embeddingModel },
      settings: QUERY_SETTINGS,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    out.set(evaluateLeaves(compile, rows), from * set.names.length);
  }
  return out;
}

/** The decisions as one text literal: a single node for the parser, however many rows. */
function literalSpine(decisions: readonly HypotheticalDecision[], asOfMs: number): string {
  const cell = (value: string) =>
    value.replace(/[\\\t\n\r]/g, (c) => `\\${{ '\\': '\\', '\t': 't', '\n': 'n', '\r': 'r' }[c]}`);
  const number = (value: number | undefined) => String(value ?? Number.NaN).toLowerCase();
  const lines = decisions.map((d, i) =>
    [
      i + 1,
      cell(d.publicationId),
      cell(d.campaignId),
      cell(d.creativeId),
      d.tsMs,
      d.position,
      ...[d.nAds, d.menuSize, d.priceMicros, d.estPayoutMicros, d.rank, d.leadMs].map(number),
    ].join('\t'),
  );
  return spineSql(
    {
      ordinal: 'c1',
      as_of_ms: String(asOfMs),
      publication_id: 'c2',
      campaign_id: 'c3',
      creative_id: 'c4',
      ts_ms: 'c5',
      position: 'c6',
      n_ads: 'c7',
      menu_size: 'c8',
      price_micros: 'c9',
      est_payout_micros: 'c10',
      rank: 'c11',
      lead_ms: 'c12',
    },
    `format(TSV, 'c1 UInt64, c2 String, c3 String, c4 String, c5 Int64, c6 UInt8, c7 Float64, c8 Float64, c9 Float64, c10 Float64, c11 Float64, c12 Float64', ${stringSql(`${lines.join('\n')}\n`)})`,
  );
}
