import { DAY_MS, HOUR_MS, MINUTE_MS, type Progress, type Rng } from '@waggle/core';
import { type BatchSink, Dictionary, TableBuilder } from './batches.js';
import {
  type AdvertiserState,
  type CampaignState,
  createAdvertiser,
  createCampaign,
} from './campaigns.js';
import { BASE_LOGIT, clickLogit, clickOdds, Drift } from './click-odds.js';
import {
  CAUSES,
  type ClickCodes,
  type ClickTally,
  type ClickTarget,
  ClickWriter,
  scannerVisit,
  UA_CLASSES,
} from './clicks.js';
import { Demand, explore, PUBLISHER_SHARE, Shortlist } from './demand.js';
import { EventHeap } from './heap.js';
import { WorldIds } from './ids.js';
import { writeOpens } from './opens.js';
import {
  createPosts,
  DIRECT,
  MODE_NAMES,
  ON_DEMAND,
  type PostState,
  PROGRAMMATIC,
} from './posts.js';
import {
  createPublication,
  createPublisher,
  type PublicationState,
  statusAt,
  subscribersAt,
  supplyLayout,
} from './publications.js';
import { DEVICE_NAMES, prefixName, Readers, RoundSet } from './readers.js';
import type { WorldConfig } from './scales.js';
import { advertiserCount, publisherCount } from './sizes.js';
import { STREAM, streamOf } from './streams.js';
import { TABLES, TRUTH_TABLES, type TruthName } from './tables.js';
import { MATURITY_MS, timingTables } from './timing.js';
import { resemblance } from './topic-space.js';
import { TOPICS } from './topics.js';

const SEND_SIGMA = 0.25;

const ACCEPT_BASE = -1.0;
const DOWNVOTE_RATE = 0.05;
const OVERRIDE_RATE = 0.25;
/** Auto-accept rules take what pays e^0.5 times the publication's reservation or more. */
const AUTO_ACCEPT_RATIO = 0.5;
const DOWNVOTE_REASONS = ['irrelevant', 'low_payout', 'too_often', 'quality'] as const;
type DownvoteReason = (typeof DOWNVOTE_REASONS)[number];
const OFFER_LIFE_MS = 72 * HOUR_MS;
const MENU_MIN = 5;
const MENU_MAX = 10;
/** A direct sponsor is found for nineteen slots in twenty. */
const DIRECT_FILL = 0.95;
/** Programmatic buyers win most programmatic slots against click campaigns. */
const PROGRAMMATIC_HANDICAP = Math.log(10);

const MENU = 0;
const ACCEPT = 1;
const SEND = 2;
const MATURE = 3;
const CANCEL = 4;

export interface TableSinks {
  table(name: string): BatchSink;
  truth(name: TruthName): BatchSink;
}

interface Offer {
  readonly id: string;
  readonly publication: number;
  readonly campaign: number;
  readonly creative: number;
  readonly pair: number;
  readonly menuSize: number;
  readonly rank: number;
  readonly propensity: number;
  readonly decision: string;
  readonly payout: number;
  readonly expiresMs: number;
  /** Number of its menu within the publication. */
  readonly menu: number;
}

interface Placement {
  readonly id: string;
  readonly offer: Offer | undefined;
  readonly publication: number;
  readonly campaign: number;
  readonly creative: number;
  readonly recommended: number;
  readonly pair: number;
  readonly mode: 0 | 1 | 2;
  readonly decision: string;
  readonly propensity: number;
  readonly reservedMicros: number;
  readonly post: PostState | undefined;
  readonly slot: number;
  /** Names its events: 16-bit part (eight numbers per placement) and sequence. */
  readonly eventPart: number;
  readonly eventSequence: number;
  /** Billable micros, known once sent. */
  amount: number;
}

/** Runs one world and streams its tables into the sinks. Single-threaded; deterministic. */
export function runNetwork(config: WorldConfig, sinks: TableSinks, progress?: Progress): void {
  new Network(config, sinks, progress).run();
}

class Network {
  readonly #config: WorldConfig;
  readonly #progress: Progress | undefined;
  readonly #ids: WorldIds;
  readonly #tables = new Map<string, TableBuilder>();
  readonly #truth = new Map<TruthName, TableBuilder>();
  readonly #tenants = new Dictionary();
  readonly #postIds = new Dictionary();
  readonly #publicationIds = new Dictionary();
  readonly #placementIds = new Dictionary();
  readonly #campaignIds = new Dictionary();
  readonly #creativeIds = new Dictionary();
  readonly #types = new Dictionary();
  readonly #devices = new Dictionary();
  readonly #uaClasses = new Dictionary();
  readonly #prefixes = new Dictionary();
  readonly #causes = new Dictionary();
  #publications: PublicationState[] = [];
  #advertisers: AdvertiserState[] = [];
  #campaigns: CampaignState[] = [];
  #posts: PostState[][] = [];
  readonly #heap = new EventHeap();
  readonly #placements: Placement[] = [];
  readonly #offers: Offer[] = [];
  readonly #menuRngs: Rng[] = [];
  readonly #menuCounts: Int32Array;
  /** Accepted offers that have not found their slot yet. */
  readonly #pending: Int32Array;
  #demand!: Demand;
  #clicks!: ClickWriter;
  readonly #readers: Readers;
  readonly #shortlist = new Shortlist();
  readonly #drift: Drift;

  constructor(config: WorldConfig, sinks: TableSinks, progress: Progress | undefined) {
    this.#config = config;
    this.#progress = progress;
    this.#ids = new WorldIds(config.seed);
    this.#readers = new Readers(config);
    this.#drift = new Drift(config);
    this.#menuCounts = new Int32Array(config.publications);
    this.#pending = new Int32Array(config.publications);
    const shared = {
      tenant_id: this.#tenants,
      type: this.#types,
      post_id: this.#postIds,
      publication_id: this.#publicationIds,
      placement_id: this.#placementIds,
      campaign_id: this.#campaignIds,
      creative_id: this.#creativeIds,
      device: this.#devices,
      ua_class: this.#uaClasses,
      ip_prefix: this.#prefixes,
      cause: this.#causes,
    };
    for (const [name, spec] of Object.entries(TABLES)) {
      this.#tables.set(name, new TableBuilder(spec, sinks.table(name), shared));
    }
    for (const name of Object.keys(TRUTH_TABLES) as TruthName[]) {
      this.#truth.set(name, new TableBuilder(TRUTH_TABLES[name], sinks.truth(name), shared));
    }
  }

  run(): void {
    this.#createEntities();
    this.#createPosts();
    if (this.#config.labels) this.#live();
    else this.#sendsOnly();
    this.#writeCampaigns();
    this.#writeTruthEntities();
    for (const table of this.#tables.values()) table.flush();
    for (const table of this.#truth.values()) table.flush();
  }

  #table(name: string): TableBuilder {
    return this.#tables.get(name)!;
  }

  #createEntities(): void {
    const config = this.#config;
    const tenant = config.tenantId;
    const nPublishers = publisherCount(config.publications);
    const publishers = this.#table('publishers');
    const publisherIds: string[] = [];
    for (let i = 0; i < nPublishers; i++) {
      const p = createPublisher(config, this.#ids, i);
      publisherIds.push(p.id);
      publishers.push([tenant, 1, p.createdMs, p.createdMs, p.id, p.name, 'active', 'standard']);
    }
    const nAdvertisers = advertiserCount(config.campaigns);
    const advertisers = this.#table('advertisers');
    for (let i = 0; i < nAdvertisers; i++) {
      const a = createAdvertiser(config, this.#ids, i);
      this.#advertisers.push(a);
      advertisers.push([
        tenant,
        1,
        a.createdMs,
        a.createdMs,
        a.id,
        a.name,
        a.domain,
        TOPICS[a.topic]!.category,
        a.competitorGroup,
        'active',
      ]);
    }
    for (let i = 0; i < config.campaigns; i++) {
      this.#campaigns.push(createCampaign(config, this.#ids, this.#advertisers, i));
    }
    const publications = this.#table('publications');
    const layout = supplyLayout(config);
    for (let i = 0; i < config.publications; i++) {
      const p = createPublication(config, this.#ids, i, layout);
      this.#publications.push(p);
      // A version a week, as the list grows, and one whenever the status changes.
      const versions = [p.createdMs];
      for (let t = config.startMs + 7 * DAY_MS; t < config.endMs; t += 7 * DAY_MS) {
        if (t > p.createdMs) versions.push(t);
      }
      for (const t of [p.joinedMs, p.pausedFromMs, p.pausedToMs]) {
        if (t < config.endMs && !versions.includes(t)) versions.push(t);
      }
      versions.sort((a, b) => a - b);
      for (let v = 0; v < versions.length; v++) {
        const at = versions[v]!;
        publications.push([
          tenant,
          v + 1,
          at,
          p.createdMs,
          p.id,
          publisherIds[p.publisher]!,
          p.name,
          p.description,
          p.language,
          p.tags,
          p.category,
          p.audience,
          p.country,
          p.timezone,
          p.cadencePerWeek,
          subscribersAt(p, config, Math.max(at, config.startMs, p.createdMs)),
          p.allowedCategories,
          p.blockedCategories,
          p.blockedAdvertisers.filter((a) => a < nAdvertisers).map((a) => this.#advertisers[a]!.id),
          p.maxAds,
          p.minPayoutMicros,
          p.autoAccept,
          statusAt(p, at),
        ]);
      }
    }
    this.#demand = new Demand(config, this.#publications, this.#campaigns);
  }

  #createPosts(): void {
    const config = this.#config;
    const posts = this.#table('posts');
    const slots = this.#table('slots');
    for (const p of this.#publications) {
      const own = createPosts(config, this.#ids, p);
      this.#posts.push(own);
      for (const post of own) {
        posts.push([
          config.tenantId,
          1,
          post.createdMs,
          post.createdMs,
          post.id,
          p.id,
          post.title,
          post.plannedMs,
          'scheduled',
        ]);
        if (post.sentMs < config.endMs) {
          posts.push([
            config.tenantId,
            2,
            post.sentMs,
            post.createdMs,
            post.id,
            p.id,
            post.title,
            post.plannedMs,
            'sent',
          ]);
        }
        post.slots.forEach((slot, i) => {
          slots.push([
            config.tenantId,
            1,
            post.createdMs,
            post.createdMs,
            slot.id,
            post.id,
            p.id,
            i === 0 ? 'primary' : 'secondary',
            i + 1,
            MODE_NAMES[slot.mode],
            slot.floorMicros,
          ]);
        });
      }
    }
  }

  #sendsOnly(): void {
    for (let i = 0; i < this.#posts.length; i++) {
      for (const post of this.#posts[i]!) {
        if (post.sentMs < this.#config.endMs) this.#writeSend(post, 0);
      }
    }
  }

  #writeSend(post: PostState, nAds: number): void {
    const p = this.#publications[post.publication]!;
    this.#table('sends').push([
      this.#config.tenantId,
      this.#ids.id('event', post.sentMs, 1, p.index, post.day),
      post.sentMs,
      'send.sent',
      post.id,
      p.id,
      post.recipients,
      post.delivered,
      post.unsubscribes,
      post.slots.length,
      nAds,
    ]);
  }

  #live(): void {
    const config = this.#config;
    const timing = timingTables();
    const prefixCodes = new Int32Array(16_384).fill(-1);
    this.#clicks = new ClickWriter({
      table: this.#table('clicks'),
      truth: this.#truth.get('clicks')!,
      timing,
      readers: this.#readers,
      seen: new RoundSet(),
      deviceCodes: DEVICE_NAMES.map((name) => this.#devices.code(name)),
      uaCodes: UA_CLASSES.map((name) => this.#uaClasses.code(name)),
      prefixCodes: (index) => {
        let code = prefixCodes[index]!;
        if (code < 0) {
          code = this.#prefixes.code(prefixName(index));
          prefixCodes[index] = code;
        }
        return code;
      },
      causeCodes: CAUSES.map((name) => this.#causes.code(name)),
    });

    let nSends = 0;
    for (const p of this.#publications) {
      const own = this.#posts[p.index]!;
      own.forEach((post, i) => {
        if (post.sentMs < config.endMs) {
          this.#heap.push(post.sentMs, SEND, p.index, i);
          nSends++;
        }
      });
      const rng = streamOf(config.seed, STREAM.menuTimes, p.index);
      this.#menuRngs.push(rng);
      if (own.length > 0) {
        const first =
          Math.max(config.startMs, p.joinedMs) + Math.floor(rng.uniform() * 12 * HOUR_MS);
        this.#heap.push(first, MENU, p.index);
      }
    }

    let done = 0;
    const heap = this.#heap;
    while (heap.pop()) {
      const now = heap.timeMs;
      if (now >= config.endMs) break;
      switch (heap.kind) {
        case MENU:
          this.#showMenu(heap.a, now);
          break;
        case ACCEPT:
          this.#accept(this.#offers[heap.a]!, now);
          break;
        case SEND:
          this.#send(heap.a, this.#posts[heap.a]![heap.b]!, now);
          done++;
          if (done % 500 === 0)
            this.#progress?.({ step: 'simulate', done, total: nSends, unit: 'sends' });
          break;
        case MATURE:
          this.#mature(heap.a, now);
          break;
        default:
          this.#cancel(heap.a, now);
      }
    }
    this.#progress?.({ step: 'simulate', done: nSends, total: nSends, unit: 'sends' });
  }

  /** Campaigns of the wanted kinds that may run at `planned` in the publication and have money now. */
  #candidates(
    publication: number,
    now: number,
    planned: number,
    delivered: number,
    mode: 0 | 1 | 2,
    floorMicros: number,
  ): Shortlist {
    const list = this.#shortlist;
    list.clear();
    const pairs = this.#demand.pairsOf(publication);
    for (let i = 0; i < pairs.campaigns.length; i++) {
      const number = pairs.campaigns[i]!;
      const c = this.#campaigns[number]!;
      if (c.flightStartMs > now || c.flightEndMs <= planned) continue;
      if (
        mode === ON_DEMAND
          ? c.kind === 'programmatic'
          : mode === DIRECT
            ? c.kind !== 'direct'
            : c.kind === 'direct'
      ) {
        continue;
      }
      const spend = this.#demand.expectedSpend(publication, c, pairs.belief[i]!, delivered);
      if (c.pricing === 'flat') {
        const perThousand = spend / 1e6 / (delivered / 1000);
        if (perThousand > 12 || perThousand < 1) continue;
      }
      if (spend * PUBLISHER_SHARE < floorMicros) continue;
      this.#demand.considered[number]!++;
      if (this.#demand.available(number, now, true) < this.#demand.reserveFor(c, spend)) {
        this.#demand.turnedAway[number]!++;
        continue;
      }
      const tired = 0.4 * this.#demand.exposures(publication, number, now);
      const handicap = mode === PROGRAMMATIC && c.kind === 'open' ? PROGRAMMATIC_HANDICAP : 0;
      list.add(number, i, spend, Math.log(spend) - tired - handicap);
    }
    return list;
  }

  #compatible = (chosen: readonly number[], candidate: number): boolean => {
    const c = this.#campaigns[candidate]!;
    for (const other of chosen) {
      if (this.#campaigns[other]!.advertiser === c.advertiser) return false;
    }
    return true;
  };

  /** Whether a campaign may join those already in a post: one ad per advertiser and competitor group. */
  #fits(post: PostState, candidate: number): boolean {
    const a = this.#advertisers[this.#campaigns[candidate]!.advertiser]!;
    for (const slot of post.slots) {
      if (slot.placement < 0) continue;
      const other =
        this.#advertisers[this.#campaigns[this.#placements[slot.placement]!.campaign]!.advertiser]!;
      if (other.index === a.index) return false;
      if (a.competitorGroup !== '' && a.competitorGroup === other.competitorGroup) return false;
    }
    return true;
  }

  #showMenu(publication: number, now: number): void {
    const config = this.#config;
    const p = this.#publications[publication]!;
    const next = now + menuInterval(p) * (0.85 + 0.3 * this.#menuRngs[publication]!.uniform());
    if (next < config.endMs) this.#heap.push(Math.floor(next), MENU, publication);
    const horizon = now + menuHorizon(p);
    let free = -this.#pending[publication]!;
    let delivered = 0;
    for (const post of this.#posts[publication]!) {
      if (post.plannedMs < now + 12 * HOUR_MS || post.plannedMs > horizon) continue;
      delivered = post.delivered;
      for (const slot of post.slots) if (slot.mode === ON_DEMAND && slot.placement < 0) free++;
    }
    if (free <= 0) return;
    const number = this.#menuCounts[publication]!++;
    const rng = streamOf(config.seed, STREAM.menu, publication, number);
    const wanted = Math.min(
      MENU_MAX,
      Math.max(MENU_MIN, Math.round(free / 0.3) + rng.integer(3) - 1),
    );
    const list = this.#candidates(
      publication,
      now,
      now + 2 * DAY_MS,
      delivered,
      ON_DEMAND,
      p.minPayoutMicros,
    );
    const menu = explore(rng, list, wanted, this.#compatible);
    if (menu.length === 0) return;
    const decision = this.#ids.id('decision', now, 0, publication, number);
    const pairs = this.#demand.pairsOf(publication);
    const chosen = menu.map(({ index, propensity }) => ({
      campaign: list.campaigns[index]!,
      pair: list.pair[index]!,
      spend: list.spend[index]!,
      propensity,
    }));
    for (let i = 0; i < chosen.length; i++) {
      const { campaign: campaignNumber, pair, spend, propensity } = chosen[i]!;
      const c = this.#campaigns[campaignNumber]!;
      const draw = streamOf(config.seed, STREAM.offer, publication, number * 16 + i);
      const payout = Math.round(spend * PUBLISHER_SHARE);
      const offer: Offer = {
        id: this.#ids.id('offer', now, i, publication, number),
        publication,
        campaign: campaignNumber,
        creative: draw.integer(c.creatives.length),
        pair,
        menuSize: chosen.length,
        rank: i + 1,
        propensity,
        decision,
        payout,
        expiresMs: now + OFFER_LIFE_MS,
        menu: number,
      };
      this.#writeOffer(offer, 'offer.shown', now, 0, offer.creative, undefined, -1, '');

      const fit = resemblance(p.mixture, c.mixture);
      const reservation = (delivered / 1000) * p.reservationCpm * 1e6;
      const ratio = Math.log(payout / reservation);
      const tired = 0.3 * Math.min(3, this.#demand.exposures(publication, campaignNumber, now));
      const logit =
        ACCEPT_BASE + 2 * ratio + 1.5 * fit - 0.15 * chosen.length - tired + p.acceptEffect;
      const automatic = p.autoAccept && ratio >= AUTO_ACCEPT_RATIO;
      const pAccept = automatic ? 1 : 1 / (1 + Math.exp(-logit));
      const pDownvote =
        (1 - pAccept) * (DOWNVOTE_RATE / 0.7) * Math.exp(-0.8 * pairs.affinity[pair]!) * 0.75;
      const u = draw.uniform();
      const thought = automatic ? MINUTE_MS : 10 * MINUTE_MS + draw.exponential() * 10 * HOUR_MS;
      const delay = Math.min(OFFER_LIFE_MS - MINUTE_MS, thought);
      const answeredMs = Math.floor(now + delay);
      let outcome: string;
      if (u < pAccept) {
        outcome = 'accepted';
        this.#pending[publication]!++;
        this.#offers.push(offer);
        this.#heap.push(answeredMs, ACCEPT, this.#offers.length - 1);
      } else if (u < pAccept + Math.min(pDownvote, 1 - pAccept)) {
        outcome = 'downvoted';
        const reason = downvoteReason(draw, { affinity: pairs.affinity[pair]!, ratio, tired });
        this.#writeOffer(offer, 'offer.downvoted', answeredMs, 1, -1, undefined, -1, reason);
      } else if (draw.bernoulli(0.45)) {
        outcome = 'declined';
        this.#writeOffer(offer, 'offer.declined', answeredMs, 1, -1, undefined, -1, '');
      } else {
        outcome = 'expired';
        this.#writeOffer(offer, 'offer.expired', offer.expiresMs, 1, -1, undefined, -1, '');
      }
      this.#truth
        .get('offers')!
        .push([
          offer.id,
          p.id,
          c.id,
          pAccept,
          Math.min(pDownvote, 1 - pAccept),
          ratio,
          fit,
          outcome,
        ]);
    }
  }

  #accept(offer: Offer, now: number): void {
    const { publication, campaign } = offer;
    this.#pending[publication]!--;
    const c = this.#campaigns[campaign]!;
    const pairs = this.#demand.pairsOf(publication);
    let found: PostState | undefined;
    let slotNumber = -1;
    let delivered = 0;
    for (const post of this.#posts[publication]!) {
      if (post.plannedMs < now + HOUR_MS) continue;
      if (post.plannedMs > now + 28 * DAY_MS) break;
      delivered = post.delivered;
      if (post.plannedMs >= c.flightEndMs) break;
      slotNumber = post.slots.findIndex((slot) => slot.mode === ON_DEMAND && slot.placement < 0);
      if (slotNumber >= 0 && post.createdMs <= now && this.#fits(post, campaign)) {
        found = post;
        break;
      }
    }
    const spend = this.#demand.expectedSpend(publication, c, pairs.belief[offer.pair]!, delivered);
    const reserve = this.#demand.reserveFor(c, spend);
    const draw = streamOf(
      this.#config.seed,
      STREAM.offer,
      publication,
      0x200_0000 + offer.menu * 16 + offer.rank,
    );
    let creative = offer.creative;
    if (c.creatives.length > 1 && draw.bernoulli(OVERRIDE_RATE)) {
      creative = (creative + 1 + draw.integer(c.creatives.length - 1)) % c.creatives.length;
    }
    // The publisher has said yes, whether or not the campaign can still pay.
    this.#writeOffer(offer, 'offer.accepted', now, 1, creative, found, slotNumber, '');
    if (this.#demand.available(campaign, now, false) < reserve) {
      this.#writeOffer(offer, 'offer.withdrawn', now + 1, 2, -1, undefined, -1, 'budget');
      return;
    }
    const number = this.#place(
      {
        offer,
        publication,
        campaign,
        creative,
        recommended: offer.creative,
        pair: offer.pair,
        mode: ON_DEMAND,
        decision: offer.decision,
        propensity: offer.propensity,
        reservedMicros: reserve,
        post: found,
        slot: found === undefined ? -1 : slotNumber,
        eventPart: 0x3000 + offer.rank * 8,
        eventSequence: offer.menu,
      },
      now,
      this.#ids.id('placement', now, 0x100 + offer.rank, publication, offer.menu),
    );
    if (found === undefined) this.#heap.push(now + 7 * DAY_MS, CANCEL, number);
  }

  #place(fields: Omit<Placement, 'id' | 'amount'>, now: number, id: string): number {
    const number = this.#placements.length;
    const placement: Placement = { ...fields, id, amount: 0 };
    this.#placements.push(placement);
    if (placement.post !== undefined) placement.post.slots[placement.slot]!.placement = number;
    this.#demand.reserve(placement.campaign, placement.reservedMicros, now);
    this.#writePlacement(placement, 'placement.reserved', now, 0, 0);
    this.#writeLedger(placement, 'ledger.reserve', now, placement.reservedMicros, 0);
    return number;
  }

  #cancel(number: number, now: number): void {
    const placement = this.#placements[number]!;
    this.#writePlacement(placement, 'placement.cancelled', now, 1, 0);
    this.#release(placement, now);
  }

  #release(placement: Placement, now: number): void {
    this.#demand.settle(placement.campaign, placement.reservedMicros, 0);
    this.#writeLedger(placement, 'ledger.release', now, -placement.reservedMicros, 1);
  }

  #send(publication: number, post: PostState, now: number): void {
    const config = this.#config;
    const p = this.#publications[publication]!;
    const rng = streamOf(config.seed, STREAM.send, publication, post.day);
    for (let i = 0; i < post.slots.length; i++) {
      const slot = post.slots[i]!;
      if (slot.mode !== ON_DEMAND && slot.placement < 0) this.#fillSlot(rng, p, post, i, now);
    }
    // No-shows leave the message; the others are numbered from the top.
    const running: Placement[] = [];
    for (const slot of post.slots) {
      if (slot.placement < 0) continue;
      const placement = this.#placements[slot.placement]!;
      if (placement.mode === ON_DEMAND && rng.bernoulli(p.noShowRate)) {
        this.#writePlacement(placement, 'placement.no_show', now, 1, 0);
        this.#release(placement, now);
      } else {
        running.push(placement);
      }
    }
    this.#writeSend(post, running.length);
    const eligibleOpens = writeOpens(
      config,
      this.#ids,
      p,
      post,
      {
        tenant: this.#tenants.code(config.tenantId),
        type: this.#types.code('open.hour'),
        post: this.#postIds.code(post.id),
        publication: this.#publicationIds.code(p.id),
      },
      this.#table('opens'),
    );
    if (running.length > 0) this.#run(p, post, running, now, eligibleOpens);
  }

  #fillSlot(rng: Rng, p: PublicationState, post: PostState, slotNumber: number, now: number): void {
    const slot = post.slots[slotNumber]!;
    if (slot.mode === DIRECT && !rng.bernoulli(DIRECT_FILL)) return;
    const list = this.#candidates(p.index, now, now, post.delivered, slot.mode, slot.floorMicros);
    const chosen = explore(rng, list, 1, (_, candidate) => this.#fits(post, candidate));
    if (chosen.length === 0) return;
    const { index, propensity } = chosen[0]!;
    const campaign = list.campaigns[index]!;
    const c = this.#campaigns[campaign]!;
    const creative = rng.integer(c.creatives.length);
    this.#place(
      {
        offer: undefined,
        publication: p.index,
        campaign,
        creative,
        recommended: creative,
        pair: list.pair[index]!,
        mode: slot.mode,
        decision: this.#ids.id('decision', now, 1 + slotNumber, p.index, post.day),
        propensity,
        reservedMicros: this.#demand.reserveFor(c, list.spend[index]!),
        post,
        slot: slotNumber,
        eventPart: 0x3800 + slotNumber * 8,
        eventSequence: post.day,
      },
      now,
      this.#ids.id('placement', now, slotNumber, p.index, post.day),
    );
  }

  /** Everything that follows from ads having been sent. */
  #run(
    p: PublicationState,
    post: PostState,
    running: readonly Placement[],
    now: number,
    eligibleOpens: number,
  ): void {
    const config = this.#config;
    const timing = timingTables();
    const rng = streamOf(config.seed, STREAM.clicks, p.index, post.day);
    const conversions = streamOf(config.seed, STREAM.conversions, p.index, post.day);
    const arc = this.#readers.arcOf(p);
    const owner = this.#ids.owner(p.index);
    const share72h = timing.clickShare72h[post.localHour]!;
    const targets: { target: ClickTarget; tally: ClickTally; placement: Placement }[] = [];

    for (let i = 0; i < running.length; i++) {
      const placement = running[i]!;
      const c = this.#campaigns[placement.campaign]!;
      const creative = c.creatives[placement.creative]!;
      const parts = clickOdds({
        publication: p,
        campaign: c,
        creative,
        post,
        index: i,
        nAds: running.length,
        exposures: this.#demand.exposures(p.index, placement.campaign, now),
        drift: this.#drift.at(p.index, c, now, post.plannedMs),
      });
      // Shifted so that the noise leaves the expected rate alone.
      const noise = SEND_SIGMA * rng.normal() - SEND_SIGMA ** 2 / 2;
      const logit = clickLogit(parts);
      const pOracle = 1 / (1 + Math.exp(-logit));
      const pTrue = Math.min(0.3, 1 / (1 + Math.exp(-(logit + noise))));
      const count = rng.binomial(post.delivered, pTrue);

      const codes: ClickCodes = {
        tenant: this.#tenants.code(config.tenantId),
        type: this.#types.code('click'),
        placement: this.#placementIds.code(placement.id),
        post: this.#postIds.code(post.id),
        publication: this.#publicationIds.code(p.id),
        campaign: this.#campaignIds.code(c.id),
        creative: this.#creativeIds.code(creative.id),
      };
      const target: ClickTarget = {
        publication: p,
        arc,
        codes,
        sentMs: now,
        endMs: config.endMs,
        localHour: post.localHour,
        delivered: post.delivered,
        owner,
        day: post.day,
        slot: i,
      };
      const tally: ClickTally = { sequence: 0, people: 0, people72h: 0, billable72h: 0 };
      this.#clicks.people(rng, target, count, tally, (click) => {
        if (conversions.uniform() < c.conversionRate) {
          this.#convert(conversions, p, post, c, click.timeMs, (i << 24) | click.sequence);
        }
      });
      if (p.fraudRing && c.pricing === 'cpc') {
        this.#clicks.fraud(rng, target, rng.poisson(3 + 0.8 * pOracle * post.delivered), tally);
      }
      targets.push({ target, tally, placement });

      placement.amount = Math.round(
        c.pricing === 'cpc'
          ? c.bidMicros * tally.billable72h
          : c.pricing === 'cpm'
            ? (c.bidMicros * eligibleOpens) / 1000
            : c.bidMicros,
      );
      this.#heap.push(now + MATURITY_MS, MATURE, post.slots[placement.slot]!.placement);
      this.#demand.expose(p.index, placement.campaign, now);
      this.#writePlacement(
        placement,
        'placement.sent',
        now,
        2,
        post.delivered,
        i + 1,
        running.length,
      );
      this.#truth
        .get('placements')!
        .push([
          placement.id,
          p.id,
          c.id,
          creative.id,
          now,
          MODE_NAMES[placement.mode],
          placement.propensity,
          post.delivered,
          BASE_LOGIT,
          parts.publication,
          parts.campaign,
          parts.affinity,
          parts.creative,
          parts.place,
          parts.time,
          parts.fatigue,
          parts.drift,
          noise,
          pOracle,
          pTrue,
          share72h,
          tally.people,
          tally.people72h,
        ]);
    }

    // Scanners see the whole message: each visit clicks every ad.
    const scanners = Math.round(p.scannerShare * post.delivered);
    const stride = 1 + 2 * (p.index % 50) + 100;
    for (let s = 0; s < scanners; s++) {
      if (!rng.bernoulli(0.95)) continue;
      const visit = scannerVisit(rng, (s * stride + 13) % post.delivered);
      for (const { target, tally } of targets) this.#clicks.scanner(rng, target, visit, tally);
    }
  }

  #convert(
    rng: Rng,
    p: PublicationState,
    post: PostState,
    c: CampaignState,
    clickMs: number,
    sequence: number,
  ): void {
    const branch = rng.uniform();
    const mean = branch < 0.34 ? 20 * 60_000 : branch < 0.47 ? 8 * HOUR_MS : 10 * DAY_MS;
    const timeMs = clickMs + Math.floor(rng.exponential() * mean);
    const value = Math.round(c.conversionValue * Math.exp(0.5 * rng.normal()) * 100) * 10_000;
    const source = rng.bernoulli(0.6) ? 'pixel' : 's2s';
    const reversed = rng.bernoulli(0.04);
    const reversedMs = timeMs + Math.floor((1 + 9 * rng.uniform()) * DAY_MS);
    const clickId = this.#ids.id('click', clickMs, post.day & 0xffff, p.index, sequence >>> 0);
    const table = this.#table('conversions');
    const row = (type: string, at: number, part: number): void =>
      table.push([
        this.#config.tenantId,
        this.#ids.id('event', at, part, p.index, sequence >>> 0),
        at,
        type,
        clickId,
        c.id,
        p.id,
        c.conversionKind,
        value,
        source,
      ]);
    if (timeMs < this.#config.endMs) {
      row('conversion', timeMs, 0x4000 + (post.day & 0xfff));
      if (reversed && reversedMs < this.#config.endMs) {
        row('conversion.reversed', reversedMs, 0x5000 + (post.day & 0xfff));
      }
    }
  }

  #mature(number: number, now: number): void {
    const placement = this.#placements[number]!;
    const charge = this.#demand.settle(
      placement.campaign,
      placement.reservedMicros,
      placement.amount,
    );
    this.#writeLedger(placement, 'ledger.release', now, -placement.reservedMicros, 1);
    if (charge > 0) this.#writeLedger(placement, 'ledger.charge', now, charge, 2);
  }

  #writeOffer(
    offer: Offer,
    type: string,
    timeMs: number,
    part: number,
    creative: number,
    post: PostState | undefined,
    slot: number,
    reason: string,
  ): void {
    if (timeMs >= this.#config.endMs) return;
    const c = this.#campaigns[offer.campaign]!;
    this.#table('offers').push([
      this.#config.tenantId,
      this.#ids.id('event', timeMs, 0x2000 + offer.rank * 4 + part, offer.publication, offer.menu),
      timeMs,
      type,
      offer.id,
      this.#publications[offer.publication]!.id,
      c.id,
      creative < 0 ? '' : c.creatives[creative]!.id,
      post?.id ?? '',
      post === undefined || slot < 0 ? '' : post.slots[slot]!.id,
      c.pricing,
      c.bidMicros,
      offer.payout,
      offer.menuSize,
      offer.rank,
      offer.propensity,
      offer.decision,
      reason,
      offer.expiresMs,
    ]);
  }

  #writePlacement(
    placement: Placement,
    type: string,
    timeMs: number,
    part: number,
    delivered: number,
    position = placement.slot < 0 ? 1 : placement.slot + 1,
    nAds = placement.post === undefined ? 1 : placement.post.slots.length,
  ): void {
    const c = this.#campaigns[placement.campaign]!;
    this.#table('placements').push([
      this.#config.tenantId,
      this.#eventId(placement, timeMs, part),
      timeMs,
      type,
      placement.id,
      placement.offer?.id ?? '',
      this.#publications[placement.publication]!.id,
      c.id,
      c.creatives[placement.creative]!.id,
      c.creatives[placement.recommended]!.id,
      placement.post?.id ?? '',
      placement.post === undefined ? '' : placement.post.slots[placement.slot]!.id,
      position,
      nAds,
      MODE_NAMES[placement.mode],
      c.pricing,
      c.bidMicros,
      placement.reservedMicros,
      delivered,
      placement.decision,
    ]);
  }

  #eventId(placement: Placement, timeMs: number, part: number): string {
    return this.#ids.id(
      'event',
      timeMs,
      placement.eventPart + part,
      placement.publication,
      placement.eventSequence,
    );
  }

  #writeLedger(
    placement: Placement,
    type: string,
    timeMs: number,
    amount: number,
    part: number,
  ): void {
    this.#table('ledger_entries').push([
      this.#config.tenantId,
      this.#eventId(placement, timeMs, 4 + part),
      timeMs,
      type,
      this.#campaigns[placement.campaign]!.id,
      placement.id,
      amount,
      placement.decision,
    ]);
  }

  #writeCampaigns(): void {
    const { tenantId, endMs } = this.#config;
    const campaigns = this.#table('campaigns');
    const creatives = this.#table('creatives');
    for (const c of this.#campaigns) {
      const versions: [number, string][] = [[c.createdMs, 'scheduled']];
      if (c.flightStartMs < endMs) versions.push([c.flightStartMs, 'live']);
      if (c.flightEndMs < endMs) versions.push([c.flightEndMs, 'ended']);
      versions.forEach(([at, status], v) => {
        campaigns.push([
          tenantId,
          v + 1,
          at,
          c.createdMs,
          c.id,
          this.#advertisers[c.advertiser]!.id,
          c.name,
          c.description,
          c.category,
          c.goal,
          c.pricing,
          c.bidMicros,
          c.budgetMicros,
          c.dailyBudgetMicros,
          c.flightStartMs,
          c.flightEndMs,
          c.targetLanguages,
          c.targetCategories,
          c.guaranteedUnits,
          status,
        ]);
      });
      for (const creative of c.creatives) {
        creatives.push([
          tenantId,
          1,
          c.createdMs,
          c.createdMs,
          creative.id,
          c.id,
          creative.kind,
          creative.headline,
          creative.body,
          creative.landingUrl,
          'active',
        ]);
      }
    }
  }

  /**
   * Whether money was what held the campaign back: it used up what an even pace allowed, or was turned
   * away for want of it every fifth time it was considered.
   */
  #budgetBound(c: CampaignState, committed: number): boolean {
    const { endMs } = this.#config;
    if (c.flightStartMs >= endMs || this.#demand.considered[c.index] === 0) return false;
    const allowance = this.#demand.allowance(c.index, Math.min(endMs, c.flightEndMs));
    const refused = this.#demand.turnedAway[c.index]! / this.#demand.considered[c.index]!;
    return committed >= 0.85 * allowance || refused >= 0.2;
  }

  #writeTruthEntities(): void {
    const publications = this.#truth.get('publications')!;
    for (const p of this.#publications) {
      publications.push([
        p.id,
        p.observedEffect,
        p.latentEffect,
        p.acceptEffect,
        p.reservationCpm,
        p.humanOpenRate,
        p.mppShare,
        p.scannerShare,
        p.noShowRate,
        p.fraudRing,
        p.misTagged,
        topicsText(p.mixture.weights),
      ]);
    }
    const campaigns = this.#truth.get('campaigns')!;
    const creatives = this.#truth.get('creatives')!;
    for (const c of this.#campaigns) {
      const committed = this.#demand.reserved[c.index]! + this.#demand.charged[c.index]!;
      campaigns.push([
        c.id,
        c.effect,
        c.conversionRate,
        c.conversionValue,
        c.kind,
        committed,
        this.#demand.charged[c.index]!,
        this.#budgetBound(c, committed),
        topicsText(c.mixture.weights),
      ]);
      for (const creative of c.creatives) creatives.push([creative.id, c.id, creative.effect]);
    }
  }
}

/** Why a publisher votes an offer down: what speaks most against it, most of the time. */
function downvoteReason(
  rng: Rng,
  offer: { affinity: number; ratio: number; tired: number },
): DownvoteReason {
  const weights = [
    Math.exp(-0.9 * offer.affinity),
    0.7 * Math.exp(-1.2 * offer.ratio),
    2.5 * offer.tired,
    0.35,
  ];
  return DOWNVOTE_REASONS[rng.weighted(weights)]!;
}

function menuInterval(p: PublicationState): number {
  return (p.cadencePerWeek >= 5 ? 1.25 : p.cadencePerWeek >= 2 ? 2 : 3) * DAY_MS;
}

function menuHorizon(p: PublicationState): number {
  return (
    (p.cadencePerWeek >= 5 ? 5 : p.cadencePerWeek >= 2 ? 8 : p.cadencePerWeek >= 1 ? 11 : 21) *
    DAY_MS
  );
}

/** The ten heaviest topics as `key:weight` pairs. */
function topicsText(weights: Float64Array): string {
  return [...weights.keys()]
    .sort((a, b) => weights[b]! - weights[a]!)
    .slice(0, 10)
    .map((k) => `${TOPICS[k]!.key}:${weights[k]!.toFixed(4)}`)
    .join(' ');
}
