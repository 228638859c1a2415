import { DAY_MS, type Rng } from '@waggle/core';
import { type CampaignState, staticallyEligible } from './campaigns.js';
import { Exposures } from './exposures.js';
import type { PublicationState } from './publications.js';
import type { WorldConfig } from './scales.js';
import { normalQuantile, pairUniform } from './streams.js';
import { affinity } from './topic-space.js';

/**
 * The side of the network that chose ads in the simulated past: what it believed about each pair, who had
 * money left, and an exploring choice whose propensities are kept.
 */

/** Click probability of an average pair, the policy's anchor. */
const BELIEVED_RATE = 0.0022;
/** How much of the true affinity the policy sees, and the error it makes. */
const BELIEF_WEIGHT = 0.4;
const BELIEF_ERROR = 0.25;
const TEMPERATURE = 0.8;
const UNIFORM_SHARE = 0.1;
/** Campaigns are paced: this much of the budget ahead of an even spend is allowed. */
const PACING_HEAD_START = 0.4;
export const PUBLISHER_SHARE = 0.7;
/** Money is set aside for more than the expected spend (roughly its 80th percentile). */
const RESERVE_FACTOR = 1.25;

export interface Pairs {
  /** Campaign numbers that pass the static filters. */
  readonly campaigns: Uint16Array;
  /** True affinity, standard deviations. */
  readonly affinity: Float32Array;
  /** Believed log of the click probability. */
  readonly belief: Float32Array;
}

export class Demand {
  readonly #config: WorldConfig;
  readonly #campaigns: readonly CampaignState[];
  readonly #publications: readonly PublicationState[];
  readonly #pairs: (Pairs | undefined)[] = [];
  /** Money set aside and not yet charged or released, micros. */
  readonly reserved: Float64Array;
  readonly charged: Float64Array;
  readonly #dayCommitted: Float64Array;
  readonly #dayOf: Int32Array;
  /** Times a campaign was considered, and turned away for want of (paced) budget. */
  readonly considered: Float64Array;
  readonly turnedAway: Float64Array;
  readonly #exposures = new Exposures();

  constructor(
    config: WorldConfig,
    publications: readonly PublicationState[],
    campaigns: readonly CampaignState[],
  ) {
    this.#config = config;
    this.#publications = publications;
    this.#campaigns = campaigns;
    const n = campaigns.length;
    this.reserved = new Float64Array(n);
    this.charged = new Float64Array(n);
    this.#dayCommitted = new Float64Array(n);
    this.#dayOf = new Int32Array(n);
    this.considered = new Float64Array(n);
    this.turnedAway = new Float64Array(n);
  }

  pairsOf(publication: number): Pairs {
    let pairs = this.#pairs[publication];
    if (pairs === undefined) {
      const p = this.#publications[publication]!;
      const eligible = this.#campaigns.filter((c) => staticallyEligible(p, c));
      const n = eligible.length;
      pairs = {
        campaigns: new Uint16Array(n),
        affinity: new Float32Array(n),
        belief: new Float32Array(n),
      };
      for (let i = 0; i < n; i++) {
        const c = eligible[i]!;
        const fit = affinity(p.mixture, c.mixture);
        const u = pairUniform(this.#config.seed, p.index, c.index);
        const error = BELIEF_ERROR * normalQuantile(Math.min(Math.max(u, 1e-6), 1 - 1e-6));
        pairs.campaigns[i] = c.index;
        pairs.affinity[i] = fit;
        pairs.belief[i] =
          Math.log(BELIEVED_RATE) + 0.8 * p.observedEffect + BELIEF_WEIGHT * fit + error;
      }
      this.#pairs[publication] = pairs;
    }
    return pairs;
  }

  /** Micros that may still be committed now: budget, daily limit and an even pace, whichever is least. */
  available(campaign: number, timeMs: number, paced: boolean): number {
    const c = this.#campaigns[campaign]!;
    const committed = this.reserved[campaign]! + this.charged[campaign]!;
    let left = c.budgetMicros - committed;
    if (c.dailyBudgetMicros > 0) {
      const day = Math.floor(timeMs / DAY_MS);
      const today = this.#dayOf[campaign] === day ? this.#dayCommitted[campaign]! : 0;
      left = Math.min(left, c.dailyBudgetMicros - today);
    }
    if (paced) left = Math.min(left, this.allowance(campaign, timeMs) - committed);
    return left;
  }

  /** What an even spend over the (observed part of the) flight would have committed by now, micros. */
  allowance(campaign: number, timeMs: number): number {
    const c = this.#campaigns[campaign]!;
    const from = Math.max(c.flightStartMs, this.#config.startMs);
    const elapsed = (timeMs - from) / (c.flightEndMs - from);
    return c.budgetMicros * Math.min(1, Math.max(0, elapsed) + PACING_HEAD_START);
  }

  reserve(campaign: number, micros: number, timeMs: number): void {
    const day = Math.floor(timeMs / DAY_MS);
    if (this.#dayOf[campaign] !== day) {
      this.#dayOf[campaign] = day;
      this.#dayCommitted[campaign] = 0;
    }
    this.#dayCommitted[campaign]! += micros;
    this.reserved[campaign]! += micros;
  }

  /** Ends a reservation; charges at most what the whole budget still covers. Returns the micros charged. */
  settle(campaign: number, reserved: number, amount: number): number {
    this.reserved[campaign]! -= reserved;
    const c = this.#campaigns[campaign]!;
    const left = c.budgetMicros - this.charged[campaign]! - this.reserved[campaign]!;
    const charge = Math.max(0, Math.min(amount, left));
    this.charged[campaign]! += charge;
    return charge;
  }

  /** Expected spend if an ad of the campaign runs once to so many delivered emails, micros. */
  expectedSpend(
    publication: number,
    campaign: CampaignState,
    belief: number,
    delivered: number,
  ): number {
    const p = this.#publications[publication]!;
    switch (campaign.pricing) {
      case 'cpc':
        return campaign.bidMicros * delivered * Math.exp(belief);
      case 'cpm':
        return (campaign.bidMicros * delivered * p.humanOpenRate) / 1000;
      default:
        return campaign.bidMicros;
    }
  }

  reserveFor(campaign: CampaignState, expected: number): number {
    return Math.ceil(campaign.pricing === 'flat' ? expected : expected * RESERVE_FACTOR);
  }

  /** Earlier exposures of a publication's list to a campaign, each halved every 30 days. */
  exposures(publication: number, campaign: number, timeMs: number): number {
    return this.#exposures.at(publication, campaign, timeMs);
  }

  expose(publication: number, campaign: number, timeMs: number): void {
    this.#exposures.add(publication, campaign, timeMs);
  }
}

/** Candidates of one decision, reused between decisions. */
export class Shortlist {
  readonly campaigns: number[] = [];
  readonly pair: number[] = [];
  readonly spend: number[] = [];
  readonly score: number[] = [];

  clear(): void {
    this.campaigns.length = 0;
    this.pair.length = 0;
    this.spend.length = 0;
    this.score.length = 0;
  }

  add(campaign: number, pair: number, spend: number, score: number): void {
    this.campaigns.push(campaign);
    this.pair.push(pair);
    this.spend.push(spend);
    this.score.push(score);
  }
}

/**
 * Draws up to `count` candidates one after another: with probability 0.1 uniformly, otherwise by softmax
 * of the log value. `propensity` is the probability of each draw given those before it.
 */
export function explore(
  rng: Rng,
  list: Shortlist,
  count: number,
  compatible: (chosen: readonly number[], candidate: number) => boolean,
): { index: number; propensity: number }[] {
  const n = list.campaigns.length;
  const weights = new Float64Array(n);
  let highest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < n; i++) highest = Math.max(highest, list.score[i]!);
  for (let i = 0; i < n; i++) weights[i] = Math.exp((list.score[i]! - highest) / TEMPERATURE);
  const taken: number[] = [];
  const out: { index: number; propensity: number }[] = [];
  const open = new Uint8Array(n).fill(1);
  while (out.length < count) {
    let total = 0;
    let left = 0;
    for (let i = 0; i < n; i++) {
      if (open[i] === 1 && !compatible(taken, list.campaigns[i]!)) open[i] = 0;
      if (open[i] === 1) {
        total += weights[i]!;
        left++;
      }
    }
    if (left === 0) break;
    let draw = rng.uniform();
    let chosen = -1;
    let propensity = 0;
    for (let i = 0; i < n; i++) {
      if (open[i] === 0) continue;
      propensity = (1 - UNIFORM_SHARE) * (weights[i]! / total) + UNIFORM_SHARE / left;
      chosen = i;
      draw -= propensity;
      if (draw < 0) break;
    }
    open[chosen] = 0;
    taken.push(list.campaigns[chosen]!);
    out.push({ index: chosen, propensity: Math.min(1, propensity) });
  }
  return out;
}
