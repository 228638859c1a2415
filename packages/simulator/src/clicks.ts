import { HOUR_MS, type Rng } from '@waggle/core';
import type {
  BoolColumn,
  BytesColumn,
  CountColumn,
  DictColumn,
  NumberColumn,
  TableBuilder,
} from './batches.js';
import { ID_BYTES, prefixBytes, SUBSCRIBER_BYTES, writeId, writeSubscriberKey } from './ids.js';
import type { PublicationState } from './publications.js';
import { DEVICE_UNKNOWN, type Readers, type RoundSet } from './readers.js';
import { normalCdf } from './streams.js';
import { clickDelayMs, MATURITY_MS, type TimingTables } from './timing.js';

const CLICK = prefixBytes('click');
const ID_STRIDE = ID_BYTES + 4;
/** Deviation of the log of subscribers' activity: a few read and click most. */
const ACTIVITY_SIGMA = 1.0;
const REPEAT_RATE = 0.06;

export const CAUSES = ['person', 'repeat', 'scanner', 'fraud'] as const;
export const PERSON = 0;
export const REPEAT = 1;
export const SCANNER = 2;
export const FRAUD = 3;

export const UA_CLASSES = ['human', 'proxy', 'unknown'] as const;
const UA_HUMAN = 0;
const UA_PROXY = 1;
const UA_UNKNOWN = 2;

/** Codes of the rows' dictionary columns. */
export interface ClickCodes {
  readonly tenant: number;
  readonly type: number;
  readonly placement: number;
  readonly post: number;
  readonly publication: number;
  readonly campaign: number;
  readonly creative: number;
}

/** One placement of one send as the click generator sees it. */
export interface ClickTarget {
  readonly publication: PublicationState;
  readonly arc: number;
  readonly codes: ClickCodes;
  readonly sentMs: number;
  readonly endMs: number;
  readonly localHour: number;
  readonly delivered: number;
  /** For ids: bijection of the publication, day of the post, slot of the placement. */
  readonly owner: number;
  readonly day: number;
  readonly slot: number;
}

/** Clicks of one placement so far, for ids and billing. */
export interface ClickTally {
  sequence: number;
  people: number;
  people72h: number;
  /** Clicks that a filter would let through within 72 h: people's and a fraud ring's. */
  billable72h: number;
}

export type OnPersonClick = (row: { timeMs: number; sequence: number }) => void;

export class ClickWriter {
  readonly #table: TableBuilder;
  readonly #truth: TableBuilder;
  readonly #timing: TimingTables;
  readonly #readers: Readers;
  readonly #seen: RoundSet;
  readonly #deviceCodes: readonly number[];
  readonly #uaCodes: readonly number[];
  readonly #prefixCodes: (index: number) => number;
  readonly #causeCodes: readonly number[];

  constructor(o: {
    table: TableBuilder;
    truth: TableBuilder;
    timing: TimingTables;
    readers: Readers;
    seen: RoundSet;
    deviceCodes: readonly number[];
    uaCodes: readonly number[];
    prefixCodes: (index: number) => number;
    causeCodes: readonly number[];
  }) {
    this.#table = o.table;
    this.#truth = o.truth;
    this.#timing = o.timing;
    this.#readers = o.readers;
    this.#seen = o.seen;
    this.#deviceCodes = o.deviceCodes;
    this.#uaCodes = o.uaCodes;
    this.#prefixCodes = o.prefixCodes;
    this.#causeCodes = o.causeCodes;
  }

  /** `count` different people click once or, rarely, again. */
  people(
    rng: Rng,
    target: ClickTarget,
    count: number,
    tally: ClickTally,
    onClick: OnPersonClick,
  ): void {
    this.#seen.begin(count);
    const list = target.delivered;
    for (let i = 0; i < count; i++) {
      // Clickers are drawn in proportion to a log-normal activity: the rank of a size-biased draw.
      let position: number;
      do {
        position = Math.floor(list * normalCdf(-(rng.normal() + ACTIVITY_SIGMA)));
      } while (!this.#seen.add(position));
      const lag = Math.floor(rng.uniform() * 120_000);
      const ms = clickDelayMs(this.#timing, target.localHour, rng.uniform());
      const timeMs = target.sentMs + lag + ms;
      if (timeMs - target.sentMs < MATURITY_MS) {
        tally.people72h++;
        tally.billable72h++;
      }
      tally.people++;
      const u = rng.uniform();
      const sequence = tally.sequence++;
      if (timeMs >= target.endMs) continue;
      this.#readers.at(target.publication.index, target.arc, position);
      const links = u < 0.03 ? 2 : 1;
      const honeypot = u > 0.9995;
      const ua = u > 0.93 ? (u > 0.99 ? UA_PROXY : UA_UNKNOWN) : UA_HUMAN;
      this.#write(target, sequence, timeMs, ms, ua, links, honeypot, PERSON);
      onClick({ timeMs, sequence });
      if (rng.uniform() < REPEAT_RATE) {
        const later = Math.round(5_000 + rng.exponential() * 0.7 * HOUR_MS);
        const repeat = tally.sequence++;
        if (timeMs + later < target.endMs) {
          this.#write(target, repeat, timeMs + later, ms + later, ua, 1, false, REPEAT);
        }
      }
    }
  }

  /** One scanner that follows every link of a message; call once per ad of the send. */
  scanner(
    rng: Rng,
    target: ClickTarget,
    visit: {
      position: number;
      ms: number;
      links: number;
      honeypot: boolean;
      ua: number;
      lag: number;
    },
    tally: ClickTally,
  ): void {
    const ms = visit.ms + Math.floor(rng.uniform() * 4_000 * (visit.links > 1 ? 1 : 0));
    const timeMs = target.sentMs + visit.lag + ms;
    const sequence = tally.sequence++;
    if (timeMs >= target.endMs) return;
    this.#readers.at(target.publication.index, target.arc, visit.position);
    this.#readers.device = visit.ua === UA_HUMAN ? 1 : DEVICE_UNKNOWN;
    this.#write(target, sequence, timeMs, ms, visit.ua, visit.links, visit.honeypot, SCANNER);
  }

  /** A fraud ring's clicks: few addresses, human-looking timing. */
  fraud(rng: Rng, target: ClickTarget, count: number, tally: ClickTally): void {
    for (let i = 0; i < count; i++) {
      const ms = 60_000 + Math.floor(rng.exponential() * 6 * HOUR_MS);
      const timeMs = target.sentMs + ms;
      const sequence = tally.sequence++;
      if (ms < MATURITY_MS) tally.billable72h++;
      const position = rng.integer(target.delivered);
      const ring = rng.integer(3);
      if (timeMs >= target.endMs) continue;
      this.#readers.at(target.publication.index, target.arc, position);
      this.#readers.prefix = (target.publication.index * 31 + ring) % 16_384;
      this.#write(target, sequence, timeMs, ms, UA_HUMAN, 1, false, FRAUD);
    }
  }

  #write(
    target: ClickTarget,
    sequence: number,
    timeMs: number,
    ms: number,
    ua: number,
    links: number,
    honeypot: boolean,
    cause: number,
  ): void {
    const { codes } = target;
    const readers = this.#readers;
    const table = this.#table;
    const row = table.row;
    const c = table.columns;
    (c[0] as DictColumn).codes[row] = codes.tenant;
    const idData = (c[1] as BytesColumn).data;
    writeId(
      idData,
      row * ID_STRIDE + 4,
      CLICK,
      timeMs,
      target.day,
      target.owner,
      (target.slot << 24) | sequence,
    );
    (c[2] as NumberColumn).data[row] = timeMs;
    (c[3] as DictColumn).codes[row] = codes.type;
    (c[4] as DictColumn).codes[row] = codes.placement;
    (c[5] as DictColumn).codes[row] = codes.post;
    (c[6] as DictColumn).codes[row] = codes.publication;
    (c[7] as DictColumn).codes[row] = codes.campaign;
    (c[8] as DictColumn).codes[row] = codes.creative;
    writeSubscriberKey(
      (c[9] as BytesColumn).data,
      row * (SUBSCRIBER_BYTES + 4) + 4,
      readers.hi,
      readers.lo,
    );
    (c[10] as DictColumn).codes[row] = this.#deviceCodes[readers.device]!;
    (c[11] as DictColumn).codes[row] = this.#uaCodes[ua]!;
    (c[12] as DictColumn).codes[row] = this.#prefixCodes(readers.prefix);
    (c[13] as NumberColumn).data[row] = ms;
    (c[14] as CountColumn).data[row] = links;
    (c[15] as BoolColumn).data[row] = honeypot ? 1 : 0;

    const truth = this.#truth;
    const truthRow = truth.row;
    const t = truth.columns;
    (t[0] as BytesColumn).data.set(
      idData.subarray(row * ID_STRIDE, (row + 1) * ID_STRIDE),
      truthRow * ID_STRIDE,
    );
    (t[1] as DictColumn).codes[truthRow] = codes.placement;
    (t[2] as DictColumn).codes[truthRow] = this.#causeCodes[cause]!;
    (t[3] as BoolColumn).data[truthRow] = cause <= REPEAT ? 1 : 0;
    truth.advance();
    table.advance();
  }
}

/** What one scanner does to one message. */
export function scannerVisit(
  rng: Rng,
  position: number,
): { position: number; ms: number; links: number; honeypot: boolean; ua: number; lag: number } {
  const fast = rng.bernoulli(0.9);
  const ms = fast
    ? Math.min(55_000, Math.round(6_000 * Math.exp(rng.normal())))
    : Math.round(60_000 * Math.exp(rng.uniform() * Math.log(45)));
  const links = rng.bernoulli(0.96) ? 3 + rng.integer(17) : 1;
  const draw = rng.uniform();
  return {
    position,
    ms,
    links,
    honeypot: rng.bernoulli(0.9),
    ua: draw < 0.4 ? UA_PROXY : draw < 0.65 ? UA_UNKNOWN : UA_HUMAN,
    lag: Math.floor(rng.uniform() * 120_000),
  };
}
