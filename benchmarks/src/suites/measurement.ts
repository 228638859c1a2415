import type { Contender } from '../contenders/protocol.js';
import type { Measurement } from '../record.js';
import { median, pairedRatios, summarize } from '../statistics.js';

export interface TimeRecord {
  readonly suite: string;
  readonly case: string;
  readonly seed: number;
  /** Milliseconds of our runs. */
  readonly ours: readonly number[];
  readonly peer?:
    | { readonly name: string; readonly version: string; readonly times: readonly number[] }
    | undefined;
  /** Milliseconds that the work would take at the limit, as measured in the same rounds. */
  readonly limit?: { readonly name: string; readonly times: readonly number[] } | undefined;
  readonly on?: Measurement['on'];
}

/** `time_ms` of a case, peer's and limit's medians beside it, ratio and fraction from pairs of runs. */
export function timeRecord(o: TimeRecord): Measurement {
  const figure = summarize(o.ours);
  const { peer, limit } = o;
  return {
    suite: o.suite,
    case: o.case,
    metric: 'time_ms',
    unit: 'ms',
    better: 'lower',
    seed: o.seed,
    ...figure,
    ...(peer === undefined
      ? {}
      : {
          peer: { name: peer.name, version: peer.version, value: median(peer.times) },
          ratio: median(pairedRatios(peer.times, o.ours)),
        }),
    ...(limit === undefined
      ? {}
      : {
          limit: { name: limit.name, value: median(limit.times) },
          fractionOfLimit: median(pairedRatios(limit.times, o.ours)),
        }),
    ...(o.on === undefined ? {} : { on: o.on }),
  };
}

/** How many times as fast as something else of ours, from pairs of runs. */
export function speedupRecord(o: {
  readonly suite: string;
  readonly case: string;
  readonly metric: string;
  readonly seed: number;
  readonly slow: readonly number[];
  readonly fast: readonly number[];
}): Measurement {
  return {
    suite: o.suite,
    case: o.case,
    metric: o.metric,
    unit: '×',
    better: 'higher',
    seed: o.seed,
    ...summarize(pairedRatios(o.slow, o.fast)),
  };
}

/** A figure that was taken once, such as a size. */
export function singleRecord(
  o: Pick<Measurement, 'suite' | 'case' | 'metric' | 'unit' | 'better' | 'value' | 'seed'>,
): Measurement {
  return { ...o, runs: 1, iqr: 0 };
}

/** Where a contender computed, for records that another choice than this process's own gave. */
export function placeOf(contender: Contender): NonNullable<Measurement['on']> {
  const { simd, gpu } = contender.hello;
  return { ...(simd === undefined ? {} : { simd }), ...(gpu === undefined ? {} : { gpu }) };
}
