import type { Shares } from './ledger-records.js';

/** A campaign's money. */
export interface Campaign {
  budget: number;
  daily: number;
  outside: number;
  /** When the three above were true. */
  asOf: number;
  /** What of `outside` was counted for other ledgers. */
  shares: Shares;
  /** What they have committed by now beyond that. */
  beyond: number;
  /** Their money of the day that they told of last. */
  peersDay: number;
  peersDayMicros: number;
  held: number;
  spent: number;
  /** What is held and charged by UTC day; the day that money was held on last stands last. */
  days: Map<number, number>;
  /** The latest snapshot that has it, or was begun before it came. */
  capture: number;
}

/** What money was held for, and what became of it. */
export interface Reference {
  readonly id: string;
  campaign: string;
  amount: number;
  day: number;
  decision: string;
  state: 'held' | 'released' | 'charged';
  charged: number;
  atMs: number;
  /** What the log of decisions had on disk when the money was held; −1 = nobody said. */
  since: number;
  /** undefined = the ledger's own. */
  tenant: string | undefined;
  /** Settles when the latest change of this reference is durable. */
  durable: Promise<unknown> | undefined;
  /** The latest snapshot that has it, or was begun before it came. */
  capture: number;
}

/** Days on which a campaign's money is counted: more than a clock that jumps, or late reports, hold money on. */
const DAYS_KEPT = 16;

/** One without a budget. */
export function newCampaign(capture: number): Campaign {
  return {
    budget: 0,
    daily: 0,
    outside: 0,
    asOf: 0,
    shares: [],
    beyond: 0,
    peersDay: 0,
    peersDayMicros: 0,
    held: 0,
    spent: 0,
    days: new Map(),
    capture,
  };
}

/** Of the whole budget; below 0 where more was committed than it has. */
export function uncommitted({ budget, outside, beyond, held, spent }: Campaign): number {
  return budget - outside - beyond - held - spent;
}

/** Held and charged on a UTC day, by this ledger and the others. */
export function usedOn({ days, peersDay, peersDayMicros }: Campaign, day: number): number {
  return (days.get(day) ?? 0) + (peersDay === day ? peersDayMicros : 0);
}

/** What may still be held on a UTC day. */
export function available(campaign: Campaign, day: number): number {
  const total = uncommitted(campaign);
  if (campaign.daily === 0) return Math.max(0, total);
  return Math.max(0, Math.min(total, campaign.daily - usedOn(campaign, day)));
}

export function holdOn({ days }: Campaign, day: number, amount: number): void {
  const used = days.get(day) ?? 0;
  days.delete(day);
  days.set(day, used + amount);
  if (days.size > DAYS_KEPT) days.delete(days.keys().next().value!);
}

/** What settles comes days later: it makes no day count that does not any more. */
export function settleOn({ days }: Campaign, day: number, amount: number): void {
  const used = days.get(day);
  if (used !== undefined) days.set(day, Math.max(0, used + amount));
}
