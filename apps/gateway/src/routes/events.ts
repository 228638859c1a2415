import { isWaggleError, parseTimestampMs } from '@waggle/core';
import { ErrorResponse, EVENTS_LIMITS, EventsResponse } from '@waggle/core/contract';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import { checkServed } from '../auth.js';
import { registerNdjsonParser } from '../body-parsers.js';
import { gatewayError } from '../errors.js';
import { checkEvents, type ShapedEvent } from '../event-checks.js';
import { eventsRequestSchema, kindOfType } from '../event-contract.js';
import { idempotencyScope } from '../idempotency.js';
import { idempotentNdjsonRoute, protectedRoute } from '../openapi.js';
import type { PlacementReport } from '../ports.js';
import { notReady } from '../readiness.js';
import type { RouteContext } from './route-context.js';

const ROUTE = '/v1/events';

/** Registered in a scope of its own: only this route reads NDJSON. */
export function eventRoutes(app: FastifyInstance, context: RouteContext): void {
  const { releases, journal, ledger, metrics, idempotency, admission, clock, config } = context;
  registerNdjsonParser(app);

  const accept = async (
    request: FastifyRequest,
    events: readonly ShapedEvent[],
  ): Promise<Static<typeof EventsResponse>> => {
    const release = releases.current();
    // Without one, entities cannot be checked.
    if (release === undefined) throw notReady(releases);
    checkServed(release, request.tenantId);
    const latestMs = clock.nowMs() + config.eventFutureSkewMs;
    let rows: ReturnType<typeof checkEvents>;
    try {
      rows = checkEvents(events, { tenantId: request.tenantId, release, latestMs });
    } catch (error) {
      metrics.observeRefusedEvents(
        events.length,
        isWaggleError(error) && error.code === 'WAGGLE_EVENT_CONFLICT',
      );
      throw error;
    }
    const append = async () => {
      try {
        return await journal.append(rows);
      } catch (error) {
        if (!isWaggleError(error) || error.code !== 'WAGGLE_JOURNAL_CONFLICT') throw error;
        // To whoever posts it makes no difference which request had the other one.
        metrics.observeRefusedEvents(events.length, true);
        throw gatewayError('WAGGLE_EVENT_CONFLICT', error.message, {
          cause: error,
          ...(error.details === undefined ? {} : { details: error.details }),
        });
      }
    };
    const result = await admission.track(
      append().then(async (appended) => {
        // Also for duplicates: a crash between the two steps is mended by the client's repeat.
        await ledger.follow(
          events.filter(isPlacement).map((event) => reportOf(event, request.tenantId)),
        );
        return appended;
      }),
    );
    metrics.observeEvents(result.accepted, result.duplicates);
    return result;
  };

  app.post(
    ROUTE,
    {
      bodyLimit: EVENTS_LIMITS.bodyBytes,
      onRequest: [context.tenant, context.admit],
      config: idempotentNdjsonRoute,
      schema: {
        operationId: 'postEvents',
        summary: 'Post events; durable before 202, and twice is once',
        description:
          `Up to ${EVENTS_LIMITS.maxEvents} events and ${EVENTS_LIMITS.bodyBytes} bytes, as {"events":[…]} or as ` +
          'NDJSON (application/x-ndjson), one event a line. All or nothing: one wrong event refuses the request. ' +
          'Events name publications, campaigns and creatives of the active release, and times from 2000-01-01 to a day ahead of its clock. ' +
          'A repeated type and event_id count as a duplicate when the content is the same; other content under those of ' +
          'a recent event (some 200,000 are remembered) is refused with 409 WAGGLE_EVENT_CONFLICT. ' +
          'placement.reserved holds its reserved_micros of the campaign’s budget before the answer, once for each ' +
          'placement_id, beyond the budget too, since it happened; what fill holds for a placement is not held again. ' +
          'placement.settled turns what is held into charged_micros spent, the rest goes back; more than was held is ' +
          'charged as far as the budgets allow, and the first settlement counts. ' +
          'placement.cancelled and placement.no_show give all of it back. Reports of more than 7 days ago move no money.',
        tags: ['events'],
        ...protectedRoute,
        body: eventsRequestSchema(),
        response: { 202: EventsResponse, default: ErrorResponse },
      },
    },
    async (request, reply) => {
      const { events } = request.body as { events: ShapedEvent[] };
      const scope = idempotencyScope(request, ROUTE);
      reply.code(202);
      if (scope === undefined) return accept(request, events);
      const answer = await idempotency.answer(scope, request.bodyDigest, false, async () => ({
        status: 202,
        body: reply.serialize(await accept(request, events)) as string,
      }));
      if (answer.replayed) reply.header('idempotent-replayed', 'true');
      reply.header('content-type', 'application/json; charset=utf-8');
      return answer.body;
    },
  );
}

function isPlacement({ type }: ShapedEvent): boolean {
  const kind = kindOfType(type);
  return kind === 'placements' || kind === 'settlements';
}

function reportOf(event: ShapedEvent, tenantId: string): PlacementReport {
  return {
    type: event.type,
    placementId: event['placement_id'] as string,
    campaignId: event['campaign_id'] as string,
    tenantId,
    amountMicros: (event['charged_micros'] ?? event['reserved_micros']) as number,
    decisionId: event['decision_id'] as string,
    atMs: parseTimestampMs(event.ts)!,
  };
}
