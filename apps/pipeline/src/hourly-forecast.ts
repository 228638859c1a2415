import type { SendHistory } from '@waggle/core';
import { HourlyCurve } from '@waggle/forecasting';

/**
 * The curve of one kind of event, by publication. It needs an event of a send that was watched to the end: without, there is
 * none, and that is no reason not to forecast.
 * @param counts float64 [nSends × nHours], row-major, NaN = not observed (yet)
 */
export function hourlyCurve(
  history: Pick<SendHistory, 'nSends' | 'nPublications' | 'localHour' | 'publication'>,
  counts: Float64Array,
): HourlyCurve | undefined {
  const { nSends, nPublications, localHour, publication } = history;
  const nHours = counts.length / nSends;
  const hasEvents = (i: number): boolean => {
    let sum = 0;
    for (let h = i * nHours; h < (i + 1) * nHours; h++) sum += counts[h]!;
    return sum > 0;
  };
  let send = 0;
  while (send < nSends && !hasEvents(send)) send++;
  if (send === nSends) return undefined;
  return HourlyCurve.fit({
    ...{ nSends, nHours, counts, localHour },
    ...{ group: publication, nGroups: nPublications },
  });
}

/** Hours until half of what is expected has come; undefined where nothing is. */
export function halfBy(hours: readonly number[]): number | undefined {
  const half = hours.reduce((sum, value) => sum + value, 0) / 2;
  if (!(half > 0)) return undefined;
  let sum = 0;
  let hour = 0;
  while (hour < hours.length && sum < half) sum += hours[hour++]!;
  return hour;
}
