import { ErrorResponse } from '@waggle/core/contract';
import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { checkServed, tenantOfKey } from '../auth.js';
import { protectedRoute } from '../openapi.js';
import { notReady, ReadyResponse, readiness, withoutDetails } from '../readiness.js';
import type { RouteContext } from './route-context.js';

const ReleaseResponse = Type.Object({
  release: Type.String(),
  loaded_at: Type.Optional(Type.String()),
  swaps: Type.Integer(),
  /** What the times of events are compared with. */
  clock: Type.Object({
    source: Type.Union([Type.Literal('system'), Type.Literal('data')]),
    now: Type.String(),
  }),
  manifest: Type.Unknown(),
  rejected: Type.Optional(
    Type.Object({
      release: Type.Optional(Type.String()),
      code: Type.String(),
      message: Type.String(),
      remedy: Type.String(),
    }),
  ),
});

/** What operators and their machines ask. Health, in words that name nothing, and the API document are open; the rest needs a key where keys are set. */
export function operationRoutes(app: FastifyInstance, context: RouteContext): void {
  const { metrics, releases, clock, clockSource, keys } = context;

  const mayKnow = (authorization: string | undefined): boolean => {
    if (keys.length === 0) return true;
    const tenantId = tenantOfKey(keys, authorization);
    return tenantId !== undefined && tenantId === (releases.current()?.tenantId ?? tenantId);
  };

  app.get(
    '/healthz',
    {
      schema: {
        operationId: 'health',
        summary: 'The process is alive',
        tags: ['operations'],
        response: { 200: Type.Object({ status: Type.Literal('ok') }), default: ErrorResponse },
      },
    },
    () => ({ status: 'ok' as const }),
  );

  app.get(
    '/readyz',
    {
      schema: {
        operationId: 'ready',
        summary: 'The gateway can answer rankings and take events',
        description:
          'Open to probes. Where keys are configured, the release and the details of checks are for keys of its tenant.',
        tags: ['operations'],
        response: { 200: ReadyResponse, 503: ReadyResponse, default: ErrorResponse },
      },
    },
    (request, reply) => {
      const body = readiness(context);
      if (body.status !== 'ready') reply.code(503);
      return mayKnow(request.headers.authorization) ? body : withoutDetails(body);
    },
  );

  app.get(
    '/metrics',
    {
      onRequest: context.tenant,
      schema: {
        operationId: 'metrics',
        summary: 'Prometheus metrics',
        tags: ['operations'],
        ...protectedRoute,
        response: {
          200: { content: { 'text/plain': { schema: Type.String() } } },
          default: ErrorResponse,
        },
      },
    },
    async (_request, reply) => {
      reply.header('content-type', metrics.registry.contentType);
      return metrics.registry.metrics();
    },
  );

  app.get(
    '/v1/release',
    {
      onRequest: context.tenant,
      schema: {
        operationId: 'release',
        summary: 'The release being served',
        tags: ['operations'],
        ...protectedRoute,
        response: { 200: ReleaseResponse, default: ErrorResponse },
      },
    },
    (request) => {
      const served = releases.current();
      if (served === undefined) throw notReady(releases);
      checkServed(served, request.tenantId);
      const { loadedAtMs, swaps, rejected } = releases.status();
      return {
        release: served.id,
        ...(loadedAtMs === undefined ? {} : { loaded_at: new Date(loadedAtMs).toISOString() }),
        swaps,
        clock: { source: clockSource, now: new Date(clock.nowMs()).toISOString() },
        manifest: served.summary(),
        ...(rejected === undefined ? {} : { rejected }),
      };
    },
  );

  let document: string | undefined;
  app.get('/openapi.json', { schema: { hide: true } }, (_request, reply) => {
    document ??= JSON.stringify(app.swagger());
    reply.header('content-type', 'application/json; charset=utf-8');
    return document;
  });
}
