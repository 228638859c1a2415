import { HOUR_MS, type Rng } from '@waggle/core';
import type {
  BytesColumn,
  CountColumn,
  DictColumn,
  NumberColumn,
  TableBuilder,
} from './batches.js';
import { ID_BYTES, prefixBytes, type WorldIds, writeId } from './ids.js';
import type { PostState } from './posts.js';
import type { PublicationState } from './publications.js';
import type { WorldConfig } from './scales.js';
import { STREAM, streamOf } from './streams.js';
import { MATURITY_MS, OPEN_HOURS, openFactor, timingTables } from './timing.js';

export const PREFETCH_RATE = 0.9;
const EVENT = prefixBytes('event');
/** Distinguishes the events of one post in the 16-bit part of an id. */
export const OPEN_PART = 0x1000;

/**
 * Hourly counts of unique opens for seven days after a send. Readers behind Apple's privacy proxy show up
 * as a prefetch whether they read or not; the others when they open. O(168) draws.
 * @returns opens by people in hours that are over within 72 h of the send, which is what an open counts as eligible by
 */
export function writeOpens(
  config: WorldConfig,
  ids: WorldIds,
  publication: PublicationState,
  post: PostState,
  codes: { tenant: number; type: number; post: number; publication: number },
  table: TableBuilder,
): number {
  const timing = timingTables();
  const rng = streamOf(config.seed, STREAM.opens, publication.index, post.day);
  const mppReaders = rng.binomial(post.delivered, publication.mppShare);
  const humans = rng.binomial(
    post.delivered - mppReaders,
    publication.humanOpenRate * openFactor(post.plannedMs, post.localWeekday),
  );
  const prefetched = rng.binomial(mppReaders, PREFETCH_RATE);
  const proxied = rng.binomial(post.delivered, Math.min(0.2, 0.004 + publication.scannerShare));
  const firstHour = Math.floor(post.sentMs / HOUR_MS) * HOUR_MS;
  const owner = ids.owner(publication.index);
  let humansLeft = humans;
  let prefetchLeft = prefetched;
  let proxyLeft = proxied;
  let eligible = 0;
  const shareBase = post.localHour * OPEN_HOURS;
  for (let h = 0; h < OPEN_HOURS; h++) {
    const ts = firstHour + h * HOUR_MS;
    if (ts >= config.endMs) break;
    const human = Math.min(
      humansLeft,
      countWithMean(rng, humans * timing.openShares[shareBase + h]!),
    );
    humansLeft -= human;
    if (ts + HOUR_MS <= post.sentMs + MATURITY_MS) eligible += human;
    let prefetch = 0;
    let proxy = 0;
    if (h < timing.prefetchShares.length) {
      const share = timing.prefetchShares[h]!;
      if (share > 1e-5) {
        prefetch = Math.min(prefetchLeft, countWithMean(rng, prefetched * share));
        prefetchLeft -= prefetch;
        proxy = Math.min(proxyLeft, countWithMean(rng, proxied * share));
        proxyLeft -= proxy;
      }
    }
    const row = table.row;
    const c = table.columns;
    (c[0] as DictColumn).codes[row] = codes.tenant;
    writeId(
      (c[1] as BytesColumn).data,
      row * (ID_BYTES + 4) + 4,
      EVENT,
      ts,
      OPEN_PART + h,
      owner,
      post.day,
    );
    (c[2] as NumberColumn).data[row] = ts;
    (c[3] as DictColumn).codes[row] = codes.type;
    (c[4] as DictColumn).codes[row] = codes.post;
    (c[5] as DictColumn).codes[row] = codes.publication;
    (c[6] as CountColumn).data[row] = human;
    (c[7] as CountColumn).data[row] = prefetch;
    (c[8] as CountColumn).data[row] = proxy;
    table.advance();
  }
  return eligible;
}

/**
 * Poisson count: inversion with one uniform below a mean of 30, rounded normal above (relative error of
 * the variance below 1 %).
 */
export function countWithMean(rng: Rng, mean: number): number {
  if (mean <= 0) return 0;
  if (mean > 30) return Math.max(0, Math.round(mean + Math.sqrt(mean) * rng.normal()));
  let p = Math.exp(-mean);
  let cumulative = p;
  const u = rng.uniform();
  let n = 0;
  while (u > cumulative && n < 200) {
    n++;
    p *= mean / n;
    cumulative += p;
  }
  return n;
}
