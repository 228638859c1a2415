import { FILTER_NAMES, type RankResponseBody } from '@waggle/core/contract';
import { Counter, Gauge, type Metric, Registry } from 'prom-client';
import type { PeersStatus } from './ports.js';

/** Upper bounds in seconds; the service level is stated at 2, 20 and 80 ms. */
const DURATION_BUCKETS_S = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1, 5];

/**
 * Counts of one route. Plain numbers, so that a request costs a few additions; prom-client reads them only
 * when somebody scrapes.
 */
export class RouteMetrics {
  readonly route: string;
  readonly method: string;
  readonly byStatus = new Map<number, number>();
  readonly buckets = new Float64Array(DURATION_BUCKETS_S.length + 1);
  sumMs = 0;
  count = 0;

  constructor(method: string, route: string) {
    this.method = method;
    this.route = route;
  }

  observe(status: number, durationMs: number): void {
    this.byStatus.set(status, (this.byStatus.get(status) ?? 0) + 1);
    const seconds = durationMs / 1000;
    let bucket = 0;
    while (bucket < DURATION_BUCKETS_S.length && seconds > DURATION_BUCKETS_S[bucket]!) bucket++;
    this.buckets[bucket]!++;
    this.sumMs += durationMs;
    this.count++;
  }

  get failures(): number {
    let n = 0;
    for (const [status, count] of this.byStatus) if (status >= 500) n += count;
    return n;
  }

  /** Upper bound of the bucket that holds quantile `p`, milliseconds. */
  quantileMs(p: number, since?: Float64Array): number {
    let total = 0;
    for (let i = 0; i < this.buckets.length; i++) total += this.buckets[i]! - (since?.[i] ?? 0);
    let seen = 0;
    for (let i = 0; i < this.buckets.length; i++) {
      seen += this.buckets[i]! - (since?.[i] ?? 0);
      if (seen >= p * total) return 1000 * (DURATION_BUCKETS_S[i] ?? Number.POSITIVE_INFINITY);
    }
    return 0;
  }
}

/** Anything the gateway can be asked for at scrape time. */
export interface GaugeSources {
  inFlight(): number;
  eventLoopDelayMs(): { mean: number; p99: number; max: number };
  release(): {
    id: string | undefined;
    loadedAtMs: number | undefined;
    swaps: number;
    rejected: boolean;
  };
  forwarder(): { ok: boolean; backlog: number; lagMs: number; dropped: number };
  peers(): PeersStatus;
  idempotency(): { entries: number; bytes: number; evicted: number; replayed: number };
  ready(): boolean;
}

const RANK_MODES = ['offers', 'fill'] as const;
const REFUSAL_REASONS = ['overload', 'in_flight', 'connections'] as const;
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

/** Every metric of the gateway, in a registry of its own. */
export class GatewayMetrics {
  readonly registry = new Registry();
  readonly #routes = new Map<string, RouteMetrics>();
  readonly #requests = { offers: 0, fill: 0 };
  readonly #items = { offers: 0, fill: 0 };
  readonly #empty = { offers: 0, fill: 0 };
  readonly #filtered = new Map<string, number>(FILTER_NAMES.map((name) => [name, 0]));
  readonly #degraded = new Map<string, number>();
  readonly #events = { accepted: 0, duplicate: 0, refused: 0, conflict: 0 };
  readonly #refused = new Map<RefusalReason, number>(REFUSAL_REASONS.map((reason) => [reason, 0]));
  #eligible = 0;

  constructor(sources: GaugeSources) {
    this.#describeRoutes();
    this.#describeRanking();
    this.#describeState(sources);
  }

  route(method: string, route: string): RouteMetrics {
    const name = `${method} ${route}`;
    let metrics = this.#routes.get(name);
    if (metrics === undefined) {
      metrics = new RouteMetrics(method, route);
      this.#routes.set(name, metrics);
    }
    return metrics;
  }

  observeRank(response: RankResponseBody): void {
    const { mode } = response;
    this.#requests[mode]++;
    this.#items[mode] += response.items.length;
    if (response.items.length === 0) this.#empty[mode]++;
    this.#eligible += response.n_eligible;
    const { filtered } = response;
    for (const name in filtered) {
      const n = filtered[name as keyof typeof filtered];
      if (n !== undefined) this.#filtered.set(name, (this.#filtered.get(name) ?? 0) + n);
    }
    for (const reason of response.degraded) {
      this.#degraded.set(reason, (this.#degraded.get(reason) ?? 0) + 1);
    }
  }

  observeEvents(accepted: number, duplicates: number): void {
    this.#events.accepted += accepted;
    this.#events.duplicate += duplicates;
  }

  /** `conflict` is one event that repeats an id with other content; its whole request is refused. */
  observeRefusedEvents(n: number, conflict = false): void {
    this.#events.refused += n;
    if (conflict) this.#events.conflict++;
  }

  observeRefusal(reason: RefusalReason): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }

  #describeRoutes(): void {
    const routes = this.#routes;
    const { registry } = this;
    new Counter({
      name: 'waggle_http_requests_total',
      help: 'Answered requests by route and status.',
      labelNames: ['method', 'route', 'status'],
      registers: [registry],
      collect() {
        this.reset();
        for (const r of routes.values()) {
          for (const [status, count] of r.byStatus) {
            this.inc({ method: r.method, route: r.route, status: String(status) }, count);
          }
        }
      },
    });
    // prom-client's Histogram cannot take ready-made buckets; a metric is anything with get().
    const duration = {
      name: 'waggle_http_request_duration_seconds',
      help: 'Time from the head of a request to the end of its answer.',
      type: 'histogram',
      aggregator: 'sum',
      reset() {},
      async get() {
        const values: object[] = [];
        for (const r of routes.values()) {
          if (r.count === 0 && r.method === 'HEAD') continue;
          const labels = { method: r.method, route: r.route };
          let cumulative = 0;
          for (let i = 0; i < r.buckets.length; i++) {
            cumulative += r.buckets[i]!;
            const le = DURATION_BUCKETS_S[i] ?? '+Inf';
            values.push({
              labels: { le, ...labels },
              value: cumulative,
              metricName: `${this.name}_bucket`,
            });
          }
          values.push({ labels, value: r.sumMs / 1000, metricName: `${this.name}_sum` });
          values.push({ labels, value: r.count, metricName: `${this.name}_count` });
        }
        return {
          name: this.name,
          help: this.help,
          type: this.type,
          aggregator: this.aggregator,
          values,
        };
      },
    };
    registry.registerMetric(duration as unknown as Metric);
  }

  #describeRanking(): void {
    this.#counter('waggle_rank_requests_total', 'Answered rankings.', 'mode', () =>
      RANK_MODES.map((mode) => [mode, this.#requests[mode]]),
    );
    this.#counter('waggle_rank_items_total', 'Items given out.', 'mode', () =>
      RANK_MODES.map((mode) => [mode, this.#items[mode]]),
    );
    this.#counter(
      'waggle_rank_empty_total',
      'Rankings that found nothing to give out (no fill).',
      'mode',
      () => RANK_MODES.map((mode) => [mode, this.#empty[mode]]),
    );
    this.#counter(
      'waggle_rank_eligible_total',
      'Candidates that passed every hard filter.',
      undefined,
      () => [['', this.#eligible]],
    );
    this.#counter(
      'waggle_rank_filtered_total',
      'Candidates left out, by the first filter that hit them.',
      'filter',
      () => [...this.#filtered],
    );
    this.#counter('waggle_rank_degraded_total', 'Rankings that used a fallback.', 'reason', () => [
      ...this.#degraded,
    ]);
    this.#counter('waggle_events_total', 'Posted events by outcome.', 'outcome', () =>
      Object.entries(this.#events),
    );
    this.#counter(
      'waggle_http_refused_total',
      'Requests, and connections, refused because of load.',
      'reason',
      () => [...this.#refused],
    );
  }

  #describeState(sources: GaugeSources): void {
    const { registry } = this;
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers: [registry],
        collect() {
          this.set(read());
        },
      });
    gauge('waggle_http_in_flight', 'Requests being worked on.', () => sources.inFlight());
    gauge('waggle_ready', '1 when the gateway answers rankings and takes events.', () =>
      Number(sources.ready()),
    );
    gauge('waggle_forwarder_up', '1 when the store takes events.', () =>
      Number(sources.forwarder().ok),
    );
    gauge(
      'waggle_forwarder_backlog',
      'Durable here, not yet in the store.',
      () => sources.forwarder().backlog,
    );
    gauge(
      'waggle_forwarder_lag_seconds',
      'Age of the oldest of them.',
      () => sources.forwarder().lagMs / 1000,
    );
    gauge(
      'waggle_ledger_peers',
      'Other gateways whose money is seen.',
      () => sources.peers().peers,
    );
    gauge(
      'waggle_ledger_peers_age_seconds',
      'Since it was last seen; 0 where the store is nobody else’s.',
      () => sources.peers().ageMs / 1000,
    );
    gauge('waggle_release_rejected', '1 while the release asked for could not be loaded.', () =>
      Number(sources.release().rejected),
    );
    gauge(
      'waggle_release_loaded_timestamp_seconds',
      'When the served release was loaded.',
      () => (sources.release().loadedAtMs ?? 0) / 1000,
    );
    gauge('waggle_idempotency_entries', 'Stored answers.', () => sources.idempotency().entries);
    gauge(
      'waggle_idempotency_bytes',
      'Memory that stored answers take.',
      () => sources.idempotency().bytes,
    );
    this.#counter(
      'waggle_decisions_dropped_total',
      'Decisions that the disk did not take.',
      undefined,
      () => [['', sources.forwarder().dropped]],
    );
    this.#counter('waggle_release_swaps_total', 'Releases taken into service.', undefined, () => [
      ['', sources.release().swaps],
    ]);
    this.#counter(
      'waggle_idempotency_replayed_total',
      'Requests answered from a stored answer.',
      undefined,
      () => [['', sources.idempotency().replayed]],
    );
    this.#counter(
      'waggle_idempotency_evicted_total',
      'Stored answers forgotten early.',
      undefined,
      () => [['', sources.idempotency().evicted]],
    );
    new Gauge({
      name: 'waggle_release_info',
      help: 'The release being served; its value is always 1.',
      labelNames: ['release'],
      registers: [registry],
      collect() {
        this.reset();
        const { id } = sources.release();
        if (id !== undefined) this.set({ release: id }, 1);
      },
    });
    new Gauge({
      name: 'waggle_event_loop_lag_seconds',
      help: 'Event-loop delay since the last scrape.',
      labelNames: ['stat'],
      registers: [registry],
      collect() {
        const delay = sources.eventLoopDelayMs();
        this.set({ stat: 'mean' }, delay.mean / 1000);
        this.set({ stat: 'p99' }, delay.p99 / 1000);
        this.set({ stat: 'max' }, delay.max / 1000);
      },
    });
  }

  #counter(
    name: string,
    help: string,
    label: string | undefined,
    read: () => Iterable<readonly [string, number]>,
  ): void {
    new Counter({
      name,
      help,
      labelNames: label === undefined ? [] : [label],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const [value, count] of read()) {
          if (label === undefined) this.inc(count);
          else this.inc({ [label]: value }, count);
        }
      },
    });
  }
}
