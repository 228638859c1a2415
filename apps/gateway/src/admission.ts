import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { FastifyInstance, onRequestHookHandler } from 'fastify';
import { gatewayError, RETRY_AFTER_SECONDS } from './errors.js';
import type { GatewayMetrics } from './metrics.js';

const RESOLUTION_MS = 10;
const SAMPLE_INTERVAL_MS = 250;
/** A verdict needs so many ticks; ticks longer than the interval take several intervals to gather. */
const MIN_SAMPLES = 3;
const NS_PER_MS = 1e6;

/**
 * Refuses work that could not be answered in time, so that what is accepted still is. It looks at the median
 * delay of the event loop over the last quarter second, or the last three ticks where those take longer: one long
 * tick, such as a release being loaded, moves a mean or a maximum but not the median, and must not cost anybody an
 * answer.
 */
export class Admission {
  readonly #maxDelayMs: number;
  readonly #maxInFlight: number;
  #sampled: IntervalHistogram | undefined;
  #scraped: IntervalHistogram | undefined;
  #timer: NodeJS.Timeout | undefined;
  #overloaded = false;
  #inFlight = 0;

  constructor(limits: { maxDelayMs: number; maxInFlight: number }) {
    this.#maxDelayMs = limits.maxDelayMs;
    this.#maxInFlight = limits.maxInFlight;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Counts work from acceptance to answer. */
  track<T>(work: Promise<T>): Promise<T> {
    this.#inFlight++;
    return work.finally(() => {
      this.#inFlight--;
    });
  }

  start(): void {
    this.#scraped = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    this.#scraped.enable();
    if (this.#maxDelayMs === 0) return;
    const sampled = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
    sampled.enable();
    this.#sampled = sampled;
    this.#timer = setInterval(() => {
      if (sampled.count < MIN_SAMPLES) return;
      this.#overloaded = sampled.percentile(50) / NS_PER_MS - RESOLUTION_MS > this.#maxDelayMs;
      sampled.reset();
    }, SAMPLE_INTERVAL_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#sampled?.disable();
    this.#scraped?.disable();
  }

  /** Delay of the event loop beyond the timer's own resolution, since the last call. */
  takeDelayMs(): { mean: number; p99: number; max: number } {
    const histogram = this.#scraped;
    if (histogram === undefined || histogram.count === 0) return { mean: 0, p99: 0, max: 0 };
    const beyond = (ns: number) => Math.max(0, ns / NS_PER_MS - RESOLUTION_MS);
    const delay = {
      mean: beyond(histogram.mean),
      p99: beyond(histogram.percentile(99)),
      max: beyond(histogram.max),
    };
    histogram.reset();
    return delay;
  }

  hook(metrics: GatewayMetrics): onRequestHookHandler {
    return (_request, reply, done) => {
      const reason = this.#overloaded
        ? 'overload'
        : this.#inFlight >= this.#maxInFlight
          ? 'in_flight'
          : undefined;
      if (reason === undefined) {
        done();
        return;
      }
      metrics.observeRefusal(reason);
      reply.header('retry-after', RETRY_AFTER_SECONDS);
      done(
        gatewayError('WAGGLE_OVERLOADED', 'the gateway is over its load limit', {
          details: { reason },
        }),
      );
    };
  }
}

export function runAdmission(app: FastifyInstance, admission: Admission): void {
  app.addHook('onReady', (done) => {
    admission.start();
    done();
  });
  app.addHook('onClose', (_app, done) => {
    admission.stop();
    done();
  });
}
