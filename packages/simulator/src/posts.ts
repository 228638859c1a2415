import { DAY_MS, HOUR_MS, MINUTE_MS } from '@waggle/core';
import type { WorldIds } from './ids.js';
import { localPostTitle } from './local-texts.js';
import { type PublicationState, statusAt, subscribersAt } from './publications.js';
import type { WorldConfig } from './scales.js';
import { STREAM, streamOf } from './streams.js';
import { postTitle } from './texts.js';
import { holidayDepth } from './timing.js';

export type SlotModeIndex = 0 | 1 | 2;
export const ON_DEMAND = 0;
export const PROGRAMMATIC = 1;
export const DIRECT = 2;
export const MODE_NAMES = ['on_demand', 'programmatic', 'direct'] as const;
const MODE_WEIGHTS = [0.6, 0.25, 0.15];

export interface SlotState {
  readonly id: string;
  readonly mode: SlotModeIndex;
  readonly floorMicros: number;
  /** Placement that holds the slot, −1 while open. */
  placement: number;
}

export interface PostState {
  readonly id: string;
  readonly publication: number;
  /** Days since the epoch of its local date: names the post within its publication. */
  readonly day: number;
  readonly title: string;
  readonly createdMs: number;
  readonly plannedMs: number;
  readonly sentMs: number;
  readonly localHour: number;
  readonly localWeekday: number;
  readonly recipients: number;
  readonly delivered: number;
  readonly unsubscribes: number;
  readonly slots: readonly SlotState[];
}

/** Posts are planned this long ahead, past the end of the world too, so that they can be filled. */
export const PLANNING_DAYS = 10;
const SLOT_COUNT_WEIGHTS = [0.585, 0.285, 0.13];
/** Issues left out, in ordinary weeks and in holiday weeks. */
const SKIP_RATE = 0.005;
const HOLIDAY_SKIP_RATE = 0.04;
export const DELIVERY_RATE = 0.985;
const UNSUBSCRIBE_RATE = 0.002;

/** All posts of a publication from the world's start to a week past its end, in time order. */
export function createPosts(
  config: WorldConfig,
  ids: WorldIds,
  publication: PublicationState,
): PostState[] {
  const posts: PostState[] = [];
  const from = Math.max(config.startMs, publication.createdMs + DAY_MS);
  const to = config.endMs + 7 * DAY_MS;
  const firstDay = Math.floor(from / DAY_MS) - 1;
  const lastDay = Math.floor(to / DAY_MS) + 1;
  for (let day = firstDay; day <= lastDay; day++) {
    const weekday = (day + 4) % 7; // 1970-01-01 was a Thursday
    if (!publication.days.includes(weekday)) continue;
    if (publication.sparse && (Math.floor((day + 4) / 7) + publication.index) % 2 === 1) continue;
    const rng = streamOf(config.seed, STREAM.posts, publication.index, day);
    const onHoliday = holidayDepth(day * DAY_MS) > 0;
    if (rng.bernoulli(onHoliday ? HOLIDAY_SKIP_RATE : SKIP_RATE)) continue;
    const minute = rng.bernoulli(0.6) ? 0 : rng.integer(20);
    const localMs = day * DAY_MS + publication.sendHour * HOUR_MS + minute * MINUTE_MS;
    const plannedMs = localMs - publication.offsetHours * HOUR_MS;
    if (plannedMs < from || plannedMs >= to) continue;
    const sentMs =
      plannedMs + Math.min(Math.round(rng.exponential() * 2 * MINUTE_MS), 30 * MINUTE_MS);
    const createdMs = Math.max(
      publication.createdMs,
      plannedMs - Math.floor((PLANNING_DAYS - 2 * rng.uniform()) * DAY_MS),
    );
    const recipients = subscribersAt(publication, config, plannedMs);
    const delivered = rng.binomial(recipients, DELIVERY_RATE);
    const wanted = 1 + rng.weighted(SLOT_COUNT_WEIGHTS);
    const nSlots =
      statusAt(publication, plannedMs) === 'eligible' ? Math.min(wanted, publication.maxAds) : 0;
    const slots: SlotState[] = [];
    for (let i = 0; i < nSlots; i++) {
      const floor = rng.bernoulli(0.3)
        ? (recipients / 1000) * publication.reservationCpm * 0.1 * (0.5 + rng.uniform())
        : 0;
      slots.push({
        id: ids.id('slot', plannedMs, i, publication.index, day),
        mode: rng.weighted(MODE_WEIGHTS) as SlotModeIndex,
        floorMicros: Math.round(floor * 100) * 10_000,
        placement: -1,
      });
    }
    posts.push({
      id: ids.id('post', plannedMs, 0, publication.index, day),
      publication: publication.index,
      day,
      title:
        publication.language === 'en'
          ? postTitle(rng, publication.mixture.weights)
          : localPostTitle(rng, publication.language, publication.mixture.weights),
      createdMs,
      plannedMs,
      sentMs,
      localHour: publication.sendHour,
      localWeekday: weekday,
      recipients,
      delivered,
      unsubscribes: rng.binomial(delivered, UNSUBSCRIBE_RATE),
      slots,
    });
  }
  return posts;
}
