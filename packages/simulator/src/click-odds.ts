import { DAY_MS, type Rng } from '@waggle/core';
import type { CampaignState, CreativeState } from './campaigns.js';
import type { PostState } from './posts.js';
import type { PublicationState } from './publications.js';
import type { WorldConfig } from './scales.js';
import { STREAM, streamOf } from './streams.js';
import { DAY_EFFECT, HOUR_EFFECT, holidayEffect, seasonEffect } from './timing.js';
import { affinity } from './topic-space.js';
import { TOPIC_COUNT } from './topics.js';

/** Log-odds of a click for an average publication, campaign, creative and place; sets the median rate. */
export const BASE_LOGIT = -6.3;
const AFFINITY_SIGMA = 0.5;
const POSITION_EFFECT = [0.1, -0.05, -0.18];
const CROWDING_EFFECT = -0.06;
const FATIGUE_RATE = 0.12;
const FATIGUE_FLOOR = 0.5;
const TOPIC_WALK_SIGMA = 0.02;
const PUBLICATION_WALK_SIGMA = 0.015;

/** What the log-odds of a click consist of, base and send noise apart. */
export interface ClickOdds {
  readonly publication: number;
  readonly campaign: number;
  readonly affinity: number;
  readonly creative: number;
  readonly place: number;
  readonly time: number;
  readonly fatigue: number;
  readonly drift: number;
}

/** An ad in a send, whether it ran or not. */
export interface AdInSend {
  readonly publication: PublicationState;
  readonly campaign: CampaignState;
  readonly creative: CreativeState;
  readonly post: PostState;
  /** Place among the ads of the send, 0 = top. */
  readonly index: number;
  readonly nAds: number;
  /** Earlier exposures of the list to the campaign, see `Exposures`. */
  readonly exposures: number;
  /** `Drift.at` the time of sending. */
  readonly drift: number;
}

export function clickOdds(ad: AdInSend): ClickOdds {
  const { publication: p, campaign: c, post } = ad;
  const fatigue = Math.max(FATIGUE_FLOOR, Math.exp(-FATIGUE_RATE * ad.exposures));
  return {
    publication: p.observedEffect + p.latentEffect,
    campaign: c.effect,
    affinity: AFFINITY_SIGMA * clampFit(affinity(p.mixture, c.mixture)),
    creative: ad.creative.effect,
    place: POSITION_EFFECT[ad.index]! + CROWDING_EFFECT * (ad.nAds - 1),
    time: DAY_EFFECT[post.localWeekday]! + HOUR_EFFECT[post.localHour]!,
    fatigue: Math.log(fatigue),
    drift: ad.drift,
  };
}

/** Log-odds without send noise. */
export function clickLogit(odds: ClickOdds): number {
  return (
    BASE_LOGIT +
    odds.publication +
    odds.campaign +
    odds.affinity +
    odds.creative +
    odds.place +
    odds.time +
    odds.fatigue +
    odds.drift
  );
}

/** Slow walks of topics and publications, the season and the holidays: what moves the odds with time. */
export class Drift {
  readonly #config: WorldConfig;
  readonly #topics: readonly Float64Array[];
  readonly #publications: (Float64Array | undefined)[] = [];

  constructor(config: WorldConfig) {
    this.#config = config;
    this.#topics = Array.from({ length: TOPIC_COUNT }, (_, k) =>
      walk(streamOf(config.seed, STREAM.topicWalk, k), config.days, TOPIC_WALK_SIGMA),
    );
  }

  at(publication: number, campaign: CampaignState, sentMs: number, plannedMs: number): number {
    const { startMs, days } = this.#config;
    const day = Math.min(days - 1, Math.floor((sentMs - startMs) / DAY_MS));
    let topics = 0;
    for (let k = 0; k < TOPIC_COUNT; k++) {
      topics += campaign.mixture.weights[k]! * this.#topics[k]![day]!;
    }
    const season = seasonEffect(sentMs) + holidayEffect(plannedMs);
    return this.#walkOf(publication)[day]! + topics + season;
  }

  #walkOf(publication: number): Float64Array {
    let steps = this.#publications[publication];
    if (steps === undefined) {
      const { seed, days } = this.#config;
      steps = walk(
        streamOf(seed, STREAM.publicationWalk, publication),
        days,
        PUBLICATION_WALK_SIGMA,
      );
      this.#publications[publication] = steps;
    }
    return steps;
  }
}

function clampFit(z: number): number {
  return Math.min(3, Math.max(-2.5, z));
}

function walk(rng: Rng, days: number, sigma: number): Float64Array {
  const steps = new Float64Array(days);
  for (let day = 1; day < days; day++) steps[day] = steps[day - 1]! + sigma * rng.normal();
  return steps;
}
