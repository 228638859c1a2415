import type { Logger } from '@waggle/core';
import type { GatewayMetrics } from './metrics.js';

/** One line per interval with traffic, in place of one per request. Returns what stops it. */
export function logSummaries(
  metrics: GatewayMetrics,
  logger: Logger,
  intervalMs: number,
): () => void {
  if (intervalMs === 0) return () => {};
  const rank = metrics.route('POST', '/v1/rank');
  const events = metrics.route('POST', '/v1/events');
  let last = { rank: 0, failures: 0, events: 0, buckets: rank.buckets.slice() };
  const timer = setInterval(() => {
    const now = {
      rank: rank.count,
      failures: rank.failures + events.failures,
      events: events.count,
      buckets: rank.buckets.slice(),
    };
    if (now.rank + now.events > last.rank + last.events && logger.isLevelEnabled('info')) {
      logger.info(
        {
          interval_ms: intervalMs,
          rank: now.rank - last.rank,
          events: now.events - last.events,
          failures: now.failures - last.failures,
          rank_p50_ms_at_most: rank.quantileMs(0.5, last.buckets),
          rank_p99_ms_at_most: rank.quantileMs(0.99, last.buckets),
        },
        'traffic',
      );
    }
    last = now;
  }, intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
