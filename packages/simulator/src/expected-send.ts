import { DELIVERY_RATE } from './posts.js';
import { openFactor, timingTables } from './timing.js';

/** What a send can be expected to bring by one who knows its list and its readers. */
export interface ExpectedSend {
  readonly delivered: number;
  /** Unique opens by people within 72 h, as the hourly counts show them. */
  readonly opens72h: number;
}

/**
 * Expectation of a send's deliveries and opens under the truth, chance taken out: what no forecast can be better than.
 * @param o `localWeekday` 0 = Sunday
 */
export function expectedSend(o: {
  readonly recipients: number;
  readonly mppShare: number;
  readonly humanOpenRate: number;
  readonly plannedMs: number;
  readonly localWeekday: number;
  readonly localHour: number;
}): ExpectedSend {
  const delivered = o.recipients * DELIVERY_RATE;
  return {
    delivered,
    opens72h:
      delivered *
      (1 - o.mppShare) *
      o.humanOpenRate *
      openFactor(o.plannedMs, o.localWeekday) *
      timingTables().openShare72h[o.localHour]!,
  };
}
