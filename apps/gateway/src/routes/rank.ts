import {
  ErrorResponse,
  RANK_LIMITS,
  RankRequest,
  type RankRequestBody,
  RankResponse,
  type RankResponseBody,
} from '@waggle/core/contract';
import { answerJson } from '@waggle/engine';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { checkServed, checkTenant } from '../auth.js';
import { idempotencyScope } from '../idempotency.js';
import { idempotentRoute, protectedRoute } from '../openapi.js';
import { notReady } from '../readiness.js';
import type { RouteContext } from './route-context.js';

const ROUTE = '/v1/rank';
const JSON_TYPE = 'application/json; charset=utf-8';

export function rankRoutes(app: FastifyInstance, context: RouteContext): void {
  const { engine, releases, metrics, idempotency, admission } = context;

  const decide = (
    request: FastifyRequest,
    body: RankRequestBody,
  ): RankResponseBody | Promise<RankResponseBody> => {
    const release = releases.current();
    if (release === undefined) throw notReady(releases);
    checkServed(release, request.tenantId);
    const decision = engine.rank(body, {
      tenantId: request.tenantId,
      requestId: body.request_id ?? request.id,
      receivedAtMs: request.receivedAtMs,
    });
    if (!(decision instanceof Promise)) {
      metrics.observeRank(decision);
      return decision;
    }
    return admission.track(
      decision.then((response) => {
        metrics.observeRank(response);
        return response;
      }),
    );
  };

  const decideOnce = async (
    scope: string,
    request: FastifyRequest,
    reply: FastifyReply,
    body: RankRequestBody,
  ): Promise<string> => {
    // `fill` sets money aside, so its answer outlives the process; offers are cheap to rank again.
    const durable = body.mode === 'fill' && body.test !== true;
    const answer = await idempotency.answer(scope, request.bodyDigest, durable, async () => {
      const response = await decide(request, body);
      // Without the ledger a repeat may be answered better; but what some slots hold must not be held again.
      const passing =
        response.degraded.includes('ledger_unavailable') && !(durable && response.items.length > 0);
      return { status: 200, body: reply.serialize(response) as string, passing };
    });
    if (answer.replayed) reply.header('idempotent-replayed', 'true');
    reply.header('content-type', JSON_TYPE);
    return answer.body;
  };

  app.post(
    ROUTE,
    {
      bodyLimit: RANK_LIMITS.bodyBytes,
      // An explained answer is mostly doubles: JSON.stringify takes 33 µs where the compiled serialiser takes 52,
      // and the engine knows most of the text already. Tests compare the documents.
      serializerCompiler: () => (answer) => answerJson(answer as RankResponseBody),
      onRequest: [context.tenant, context.admit],
      config: idempotentRoute,
      schema: {
        operationId: 'rank',
        summary: 'Rank campaigns for a publication, or fill the slots of a send',
        description:
          `Body up to ${RANK_LIMITS.bodyBytes} bytes. With an Idempotency-Key header, the same body gets the ` +
          'same answer for 24 hours and another body gets 409. Answers of `offers` are forgotten earlier when memory is ' +
          'full; one that lists `ledger_unavailable` and holds no money is not kept, so that a repeat is decided anew. ' +
          'fill holds reserved_micros of each item until placement.settled, placement.cancelled or placement.no_show is ' +
          'posted for its placement_id; a hold does not expire. Each fill knows its own slots only: what other fills put into the same ' +
          'post is named in context.already_placed.',
        tags: ['decisions'],
        ...protectedRoute,
        body: RankRequest,
        response: { 200: RankResponse, default: ErrorResponse },
      },
    },
    (request, reply) => {
      const body = request.body as RankRequestBody;
      checkTenant(body.tenant_id, request.tenantId);
      const scope = idempotencyScope(request, ROUTE);
      return scope === undefined ? decide(request, body) : decideOnce(scope, request, reply, body);
    },
  );
}
