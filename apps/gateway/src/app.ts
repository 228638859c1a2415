import { type Clock, idFactory, type Logger } from '@waggle/core';
import type { ErrorResponseBody } from '@waggle/core/contract';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { Admission, runAdmission } from './admission.js';
import { parseApiKeys, tenantHook } from './auth.js';
import { registerJsonParser } from './body-parsers.js';
import { answerBrokenHttp } from './broken-http.js';
import type { GatewayConfig } from './config.js';
import { gatewayError, RETRY_AFTER_SECONDS, statusOf, toGatewayError } from './errors.js';
import { IdempotencyCache } from './idempotency.js';
import { GatewayMetrics } from './metrics.js';
import { registerOpenApi } from './openapi.js';
import type {
  ClockSource,
  EnginePort,
  IdempotencyJournal,
  JournalPort,
  LedgerPort,
  ReleasesPort,
} from './ports.js';
import { readiness } from './readiness.js';
import { declareRequestFacts, TRACEPARENT } from './request-facts.js';
import { budgetRoutes } from './routes/budgets.js';
import { eventRoutes } from './routes/events.js';
import { operationRoutes } from './routes/operations.js';
import { rankRoutes } from './routes/rank.js';
import type { RouteContext } from './routes/route-context.js';
import { VERSION } from './version.js';

const LATE_CHECK_MS = 1_000;

export interface GatewayParts {
  readonly engine: EnginePort;
  readonly releases: ReleasesPort;
  readonly ledger: LedgerPort;
  readonly journal: JournalPort;
  readonly clock: Clock;
  /** @default 'system' */
  readonly clockSource?: ClockSource;
  readonly logger: Logger;
  readonly config: GatewayConfig;
  /** Stored answers; made from the configuration when absent (then nothing outlives the process). */
  readonly idempotency?: IdempotencyCache;
  readonly idempotencyJournal?: IdempotencyJournal;
  /** True once shutdown has begun: /readyz says so, work is still answered. */
  readonly isDraining?: () => boolean;
}

/**
 * The gateway as a Fastify application: no environment, no signals, no sockets. Everything it talks to is an
 * argument, so `app.inject` tests all of HTTP without a port.
 */
export function buildApp(parts: GatewayParts): FastifyInstance {
  const { clock, logger, config } = parts;
  const newId = idFactory(() => clock.nowMs());
  const app = Fastify({
    // One line per request would cost more than ranking does; failures, slow requests and a summary are logged.
    logger: false,
    genReqId: () => newId('request'),
    bodyLimit: 1_048_576,
    requestTimeout: config.requestTimeoutMs,
    http: {
      // Of the two times Node takes the longer one for the whole request, and 60 s for the head unless told otherwise.
      headersTimeout: config.requestTimeoutMs,
      requestTimeout: config.requestTimeoutMs,
      // Node looks for late requests every 30 s unless told otherwise: 10 s would be up to 40.
      connectionsCheckingInterval: LATE_CHECK_MS,
    },
    keepAliveTimeout: config.keepAliveTimeoutMs,
    // Requests that arrive on open connections during shutdown are still answered.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    routerOptions: { ignoreTrailingSlash: false, maxParamLength: 128 },
    ajv: {
      customOptions: {
        coerceTypes: false,
        removeAdditional: false,
        useDefaults: true,
        allErrors: false,
        discriminator: true,
        strictNumbers: true,
      },
    },
    clientErrorHandler: answerBrokenHttp,
    frameworkErrors: (error, request, reply) => answerError(logger, error, request, reply),
  });

  const idempotency =
    parts.idempotency ??
    new IdempotencyCache({
      clock,
      logger,
      ttlMs: config.idempotencyTtlMs,
      maxBytes: config.idempotencyMaxBytes,
      journal: parts.idempotencyJournal,
    });
  const admission = new Admission({
    maxDelayMs: config.maxEventLoopDelayMs,
    maxInFlight: config.maxInFlight,
  });
  const isDraining = parts.isDraining ?? (() => false);
  const keys = parseApiKeys(config.apiKeys);
  const clockSource = parts.clockSource ?? 'system';
  const metrics = new GatewayMetrics({
    inFlight: () => admission.inFlight,
    eventLoopDelayMs: () => admission.takeDelayMs(),
    release: () => {
      const { release, loadedAtMs, swaps, rejected } = parts.releases.status();
      return { id: release, loadedAtMs, swaps, rejected: rejected !== undefined };
    },
    forwarder: () => parts.journal.forwarder(),
    peers: () => parts.ledger.peers(),
    idempotency: () => ({
      entries: idempotency.size,
      bytes: idempotency.bytes,
      evicted: idempotency.evicted,
      replayed: idempotency.replayed,
    }),
    ready: () => readiness({ ...parts, clockSource, isDraining }).status === 'ready',
  });
  const context: RouteContext = {
    engine: parts.engine,
    releases: parts.releases,
    journal: parts.journal,
    ledger: parts.ledger,
    clock,
    clockSource,
    logger,
    config,
    metrics,
    idempotency,
    admission,
    keys,
    tenant: tenantHook(keys, config.tenantId),
    admit: admission.hook(metrics),
    isDraining,
  };

  declareRequestFacts(app, metrics);
  registerJsonParser(app);
  runAdmission(app, admission);
  const methodsByPath = watchRoutes(app, context);
  addRequestHooks(app, context, methodsByPath);
  app.setErrorHandler((error, request, reply) => answerError(logger, error, request, reply));
  registerOpenApi(app, VERSION);
  app.register(async (scope) => {
    rankRoutes(scope, context);
    operationRoutes(scope, context);
    budgetRoutes(scope, context);
    await scope.register(async (eventScope) => eventRoutes(eventScope, context));
  });
  return app;
}

/** Gives every route its own counters, and remembers which methods a path has. */
function watchRoutes(app: FastifyInstance, context: RouteContext): Map<string, Set<string>> {
  const { clock, logger, metrics, config } = context;
  const methodsByPath = new Map<string, Set<string>>();
  let nextSlowLogMs = 0;
  app.addHook('onRoute', (route) => {
    const methods = [route.method].flat();
    const known = methodsByPath.get(route.url) ?? new Set();
    for (const method of methods) known.add(method);
    methodsByPath.set(route.url, known);
    const counts = metrics.route(methods[0]!, route.url);
    const count = (request: FastifyRequest, reply: FastifyReply, done: () => void): void => {
      const nowMs = clock.monotonicMs();
      const durationMs = nowMs - request.receivedAtMs;
      counts.observe(reply.statusCode, durationMs);
      if (durationMs > config.slowRequestMs && nowMs >= nextSlowLogMs) {
        nextSlowLogMs = nowMs + 1000;
        logger.warn(
          {
            request_id: request.id,
            route: route.url,
            status: reply.statusCode,
            duration_ms: durationMs,
            traceparent: request.headers['traceparent'],
          },
          'slow request; look at waggle_event_loop_lag_seconds and at the candidates of the request',
        );
      }
      done();
    };
    route.onResponse = [...[route.onResponse ?? []].flat(), count];
  });
  return methodsByPath;
}

function addRequestHooks(
  app: FastifyInstance,
  context: RouteContext,
  methodsByPath: ReadonlyMap<string, ReadonlySet<string>>,
): void {
  const { clock, metrics, isDraining } = context;
  app.addHook('onRequest', (request, reply, done) => {
    request.receivedAtMs = clock.monotonicMs();
    // A client that is told so takes its next request elsewhere, instead of finding the connection closed.
    if (isDraining()) reply.header('connection', 'close');
    const trace = request.headers['traceparent'];
    if (typeof trace === 'string' && TRACEPARENT.test(trace)) reply.header('traceparent', trace);
    if (!request.is404) {
      done();
      return;
    }
    const error = unknownRoute(request, methodsByPath);
    if (error.details['allow'] !== undefined) reply.header('allow', error.details['allow']);
    metrics.route('*', '(unknown)').observe(statusOf(error.code), 0);
    done(error);
  });
}

function unknownRoute(
  request: FastifyRequest,
  methodsByPath: ReadonlyMap<string, ReadonlySet<string>>,
) {
  const path = request.url.split('?', 1)[0]!;
  const methods = methodsByPath.get(path);
  if (methods === undefined) {
    return gatewayError('WAGGLE_ROUTE_UNKNOWN', `no route ${path.slice(0, 200)}`);
  }
  const allow = [...methods].join(', ');
  return gatewayError('WAGGLE_METHOD_NOT_ALLOWED', `${path} does not take ${request.method}`, {
    details: { allow },
  });
}

/** Every error answer has one shape. */
function answerError(
  logger: Logger,
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): void {
  const error = toGatewayError(thrown);
  const status = statusOf(error.code);
  const requestId = idOfCaller(request) ?? request.id;
  // 503 and 504 come in storms and are counted; 500 is news each time.
  if (status === 500) {
    logger.error(
      {
        code: error.code,
        request_id: requestId,
        method: request.method,
        url: request.url,
        traceparent: request.headers['traceparent'],
        err: error.cause ?? error,
      },
      error.message,
    );
  }
  const body: ErrorResponseBody = {
    error: {
      code: error.code,
      message: error.message,
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
      ...(Object.keys(error.details).length === 0 ? {} : { details: error.details }),
      ...(requestId === undefined ? {} : { request_id: requestId }),
    },
  };
  if (status === 503) reply.header('retry-after', RETRY_AFTER_SECONDS);
  reply
    .code(status)
    .header('content-type', 'application/json; charset=utf-8')
    .send(JSON.stringify(body));
}

function idOfCaller(request: FastifyRequest): string | undefined {
  const id = (request.body as { request_id?: unknown } | null | undefined)?.request_id;
  return typeof id === 'string' && id.length > 0 && id.length <= 128 ? id : undefined;
}
