import {
  type ColumnTable,
  numericData,
  type StringColumn,
  type StringListColumn,
  stringData,
  stringListData,
} from '@waggle/core';
import { BitSet } from './bit-set.js';
import { FlightIndex } from './flight-index.js';

/** Statuses that may be served; a scheduled campaign waits for its flight dates alone. */
export const SERVABLE = {
  campaign: ['live', 'scheduled', 'active'],
  advertiser: ['active'],
  creative: ['active'],
  publication: ['eligible', 'active'],
} as const satisfies Record<string, readonly string[]>;

/** Tables in the contract's column names; rows of creatives and advertisers are found by id. */
export interface EligibilityTables {
  /** campaign_id, advertiser_id, category, status, target_languages, target_categories, flight_start_ms, flight_end_ms */
  readonly campaigns: ColumnTable;
  /** advertiser_id, status */
  readonly advertisers: ColumnTable;
  /** campaign_id, status */
  readonly creatives: ColumnTable;
}

/** A publication's standing wishes. */
export interface PublicationRules {
  readonly status: string;
  readonly category: string;
  /** Empty = all. */
  readonly allowedCategories: readonly string[];
  readonly blockedCategories: readonly string[];
  readonly blockedAdvertisers: readonly string[];
}

/** The campaigns that pass each of a publication's own filters. */
export interface PublicationFilters {
  readonly status: BitSet;
  readonly target: BitSet;
  readonly blockedCategory: BitSet;
  readonly blockedAdvertiser: BitSet;
}

/**
 * Hard filters as bitmaps over campaigns, each built once per release: a filter's bitmap holds the campaigns
 * that pass it. Building is O(rows); a look-up is O(1) or O(ids asked for).
 */
export class EligibilityIndex {
  readonly nCampaigns: number;
  /** Campaign servable and its advertiser too. */
  readonly status: BitSet;
  /** At least one servable creative. */
  readonly creative: BitSet;
  readonly flights: FlightIndex;
  readonly #rowOfCampaign = new Map<string, number>();
  readonly #byCategory: Map<string, BitSet>;
  readonly #byAdvertiser = new Map<string, number[]>();
  readonly #languages: PassIndex;
  readonly #targets: PassIndex;

  constructor(tables: EligibilityTables) {
    const { campaigns } = tables;
    const n = campaigns.nRows;
    this.nCampaigns = n;
    const ids = stringData(campaigns, 'campaign_id');
    for (let r = 0; r < n; r++) this.#rowOfCampaign.set(ids.dictionary[ids.codes[r]!]!, r);

    const advertiserOk = servableIds(tables.advertisers, 'advertiser_id', SERVABLE.advertiser);
    const advertiser = stringData(campaigns, 'advertiser_id');
    const servable = codesOf(stringData(campaigns, 'status'), SERVABLE.campaign);
    const statusCodes = stringData(campaigns, 'status').codes;
    this.status = new BitSet(n);
    for (let r = 0; r < n; r++) {
      const id = advertiser.dictionary[advertiser.codes[r]!]!;
      const rows = this.#byAdvertiser.get(id);
      if (rows === undefined) this.#byAdvertiser.set(id, [r]);
      else rows.push(r);
      if (servable.has(statusCodes[r]!) && advertiserOk.has(id)) this.status.add(r);
    }

    this.creative = new BitSet(n);
    const creativeStatus = stringData(tables.creatives, 'status');
    const creativeOk = codesOf(creativeStatus, SERVABLE.creative);
    const creativeCampaign = stringData(tables.creatives, 'campaign_id');
    for (let r = 0; r < tables.creatives.nRows; r++) {
      if (!creativeOk.has(creativeStatus.codes[r]!)) continue;
      const row = this.#rowOfCampaign.get(creativeCampaign.dictionary[creativeCampaign.codes[r]!]!);
      if (row !== undefined) this.creative.add(row);
    }

    this.flights = new FlightIndex(
      numericData(campaigns, 'flight_start_ms', 'f64'),
      numericData(campaigns, 'flight_end_ms', 'f64'),
    );
    this.#byCategory = groupRows(stringData(campaigns, 'category'), n);
    this.#languages = new PassIndex(stringListData(campaigns, 'target_languages'), n);
    this.#targets = new PassIndex(stringListData(campaigns, 'target_categories'), n);
  }

  /** Row of a campaign; undefined when the release does not know it. */
  rowOf(campaignId: string): number | undefined {
    return this.#rowOfCampaign.get(campaignId);
  }

  /** Campaigns that target this language or any. Shared: do not change. */
  language(language: string): BitSet {
    return this.#languages.passing(language);
  }

  /** Campaigns that target publications of this category or any. Shared: do not change. */
  target(category: string): BitSet {
    return this.#targets.passing(category);
  }

  /** Removes the campaigns of these categories; unknown ones remove nothing. */
  withoutCategories(set: BitSet, categories: readonly string[]): BitSet {
    for (const category of categories) {
      const rows = this.#byCategory.get(category);
      if (rows !== undefined) set.andNot(rows);
    }
    return set;
  }

  /** Removes the campaigns of these advertisers; unknown ones remove nothing. */
  withoutAdvertisers(set: BitSet, advertiserIds: readonly string[]): BitSet {
    for (const id of advertiserIds) {
      const rows = this.#byAdvertiser.get(id);
      if (rows !== undefined) for (const row of rows) set.delete(row);
    }
    return set;
  }

  /** The filters that depend on the publication alone. O(campaigns / 32 + blocked ids). */
  publicationFilters(rules: PublicationRules): PublicationFilters {
    const n = this.nCampaigns;
    const servable = (SERVABLE.publication as readonly string[]).includes(rules.status);
    let allowed: BitSet;
    if (rules.allowedCategories.length === 0) {
      allowed = BitSet.full(n);
    } else {
      allowed = new BitSet(n);
      for (const category of rules.allowedCategories) {
        const rows = this.#byCategory.get(category);
        if (rows !== undefined) allowed.or(rows);
      }
    }
    return {
      status: servable ? this.status : new BitSet(n),
      target: this.target(rules.category),
      blockedCategory: this.withoutCategories(allowed, rules.blockedCategories),
      blockedAdvertiser: this.withoutAdvertisers(BitSet.full(n), rules.blockedAdvertisers),
    };
  }
}

/** For lists where empty means any: the rows that accept a given word. */
class PassIndex {
  readonly #any: BitSet;
  readonly #byWord = new Map<string, BitSet>();

  constructor(column: StringListColumn, n: number) {
    this.#any = new BitSet(n);
    for (let r = 0; r < n; r++) {
      if (column.offsets[r] === column.offsets[r + 1]) this.#any.add(r);
    }
    for (const word of column.dictionary) this.#byWord.set(word, this.#any.clone());
    for (let r = 0; r < n; r++) {
      for (let i = column.offsets[r]!; i < column.offsets[r + 1]!; i++) {
        this.#byWord.get(column.dictionary[column.codes[i]!]!)!.add(r);
      }
    }
  }

  passing(word: string): BitSet {
    return this.#byWord.get(word) ?? this.#any;
  }
}

function codesOf(column: StringColumn, words: readonly string[]): Set<number> {
  const codes = new Set<number>();
  column.dictionary.forEach((word, code) => {
    if (words.includes(word)) codes.add(code);
  });
  return codes;
}

function servableIds(table: ColumnTable, idColumn: string, words: readonly string[]): Set<string> {
  const status = stringData(table, 'status');
  const ids = stringData(table, idColumn);
  const servable = codesOf(status, words);
  const out = new Set<string>();
  for (let r = 0; r < table.nRows; r++) {
    if (servable.has(status.codes[r]!)) out.add(ids.dictionary[ids.codes[r]!]!);
  }
  return out;
}

function groupRows(column: StringColumn, n: number): Map<string, BitSet> {
  const byCode = column.dictionary.map(() => new BitSet(n));
  for (let r = 0; r < n; r++) byCode[column.codes[r]!]!.add(r);
  return new Map(column.dictionary.map((word, code) => [word, byCode[code]!]));
}
