import {
  type CampaignState,
  createAdvertiser,
  createCampaign,
  staticallyEligible,
} from './campaigns.js';
import { clickLogit, clickOdds, Drift } from './click-odds.js';
import { simulatorError } from './errors.js';
import { exposuresBefore } from './exposures.js';
import { WorldIds } from './ids.js';
import { createPosts, type PostState } from './posts.js';
import { createPublication, type PublicationState, supplyLayout } from './publications.js';
import type { WorldConfig } from './scales.js';
import { advertiserCount } from './sizes.js';
import { timingTables } from './timing.js';

/** Placements that ran, as the truth table of that name has them, in time order. */
export interface RanPlacements {
  readonly publicationIds: readonly string[];
  readonly campaignIds: readonly string[];
  readonly sentAtMs: ArrayLike<number>;
}

/** A send as evaluation needs it. */
export interface HiddenSend {
  readonly postId: string;
  readonly publicationId: string;
  readonly sentMs: number;
  readonly delivered: number;
  /** Share of the people's clicks that come within 72 h. */
  readonly share72h: number;
}

/**
 * The chance of a click for any ad in any send of a world, whether it ran or not: what a choice would have
 * brought. Entities are made again from the configuration, tiredness comes from what did run. For evaluation
 * only: nothing that trains, ranks or serves may see it.
 */
export class HiddenOdds {
  readonly #campaigns: readonly CampaignState[];
  readonly #campaignOf: ReadonlyMap<string, CampaignState>;
  readonly #publicationOf: ReadonlyMap<string, PublicationState>;
  readonly #posts: ReadonlyMap<string, PostState>;
  readonly #publications: readonly PublicationState[];
  readonly #ran: ReadonlyMap<string, readonly number[]>;
  readonly #drift: Drift;
  readonly #shares: Float64Array;

  constructor(config: WorldConfig, ran: RanPlacements) {
    const ids = new WorldIds(config.seed);
    const advertisers = Array.from({ length: advertiserCount(config.campaigns) }, (_, i) =>
      createAdvertiser(config, ids, i),
    );
    this.#campaigns = Array.from({ length: config.campaigns }, (_, i) =>
      createCampaign(config, ids, advertisers, i),
    );
    this.#campaignOf = new Map(this.#campaigns.map((c) => [c.id, c]));
    const layout = supplyLayout(config);
    this.#publications = Array.from({ length: config.publications }, (_, i) =>
      createPublication(config, ids, i, layout),
    );
    this.#publicationOf = new Map(this.#publications.map((p) => [p.id, p]));
    this.#posts = new Map(
      this.#publications.flatMap((p) =>
        createPosts(config, ids, p).map((post) => [post.id, post] as const),
      ),
    );
    const times = new Map<string, number[]>();
    for (let i = 0; i < ran.publicationIds.length; i++) {
      const key = `${ran.publicationIds[i]}/${ran.campaignIds[i]}`;
      const list = times.get(key);
      if (list === undefined) times.set(key, [ran.sentAtMs[i]!]);
      else list.push(ran.sentAtMs[i]!);
    }
    this.#ran = times;
    this.#drift = new Drift(config);
    this.#shares = timingTables().clickShare72h;
  }

  /** @throws WAGGLE_SIMULATOR_OPTION for a post that the world does not have */
  send(postId: string): HiddenSend {
    const post = found(this.#posts, postId, 'post');
    return {
      postId,
      publicationId: this.#publications[post.publication]!.id,
      sentMs: post.sentMs,
      delivered: post.delivered,
      share72h: this.#shares[post.localHour]!,
    };
  }

  /** Campaigns that pass a publication's filters and whose flight covers the time. */
  eligibleCampaigns(publicationId: string, timeMs: number): string[] {
    const publication = found(this.#publicationOf, publicationId, 'publication');
    return this.#campaigns
      .filter(
        (c) =>
          c.flightStartMs <= timeMs && c.flightEndMs > timeMs && staticallyEligible(publication, c),
      )
      .map((c) => c.id);
  }

  creativesOf(campaignId: string): string[] {
    return found(this.#campaignOf, campaignId, 'campaign').creatives.map((c) => c.id);
  }

  /**
   * Probability that a delivered email of the send leads to a person's click on the ad, without send noise:
   * `p_oracle` of the placements table for those that ran.
   * @param ad position from 1, as in the placements table; `nAds` of the send
   * @throws WAGGLE_SIMULATOR_OPTION for an id that the world does not have
   */
  probability(ad: {
    readonly postId: string;
    readonly campaignId: string;
    readonly creativeId: string;
    readonly position: number;
    readonly nAds: number;
  }): number {
    const post = found(this.#posts, ad.postId, 'post');
    const campaign = found(this.#campaignOf, ad.campaignId, 'campaign');
    const creative = campaign.creatives.find((c) => c.id === ad.creativeId);
    if (creative === undefined) throw unknown('creative', ad.creativeId);
    const publication = this.#publications[post.publication]!;
    const ran = this.#ran.get(`${publication.id}/${campaign.id}`) ?? [];
    const logit = clickLogit(
      clickOdds({
        publication,
        campaign,
        creative,
        post,
        index: ad.position - 1,
        nAds: ad.nAds,
        exposures: exposuresBefore(ran, post.sentMs),
        drift: this.#drift.at(publication.index, campaign, post.sentMs, post.plannedMs),
      }),
    );
    return 1 / (1 + Math.exp(-logit));
  }
}

function found<T>(map: ReadonlyMap<string, T>, id: string, kind: string): T {
  const value = map.get(id);
  if (value === undefined) throw unknown(kind, id);
  return value;
}

const unknown = (kind: string, id: string): Error =>
  simulatorError('WAGGLE_SIMULATOR_OPTION', `the world has no ${kind} ${id}`);
