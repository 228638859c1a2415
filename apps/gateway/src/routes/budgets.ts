import { ID_PATTERN } from '@waggle/core';
import { ErrorResponse } from '@waggle/core/contract';
import type { FastifyInstance } from 'fastify';
import { type Static, Type } from 'typebox';
import { checkServed } from '../auth.js';
import { gatewayError } from '../errors.js';
import { protectedRoute } from '../openapi.js';
import { notReady } from '../readiness.js';
import type { RouteContext } from './route-context.js';

const MAX_CAMPAIGNS = 100;

const Micros = (description: string) => Type.Integer({ description });

const BudgetsQuery = Type.Object(
  {
    campaign_id: Type.Array(Type.String({ pattern: ID_PATTERN }), {
      minItems: 1,
      maxItems: MAX_CAMPAIGNS,
      description: 'Repeated for each campaign.',
    }),
  },
  { additionalProperties: false },
);

const BudgetsResponse = Type.Object({
  release: Type.String(),
  /** By the gateway's clock; its UTC day is the one that daily budgets are of. */
  as_of: Type.String(),
  budgets: Type.Array(
    Type.Object({
      campaign_id: Type.String(),
      budget_micros: Micros('The whole budget.'),
      daily_budget_micros: Micros('0 = no daily limit.'),
      available_micros: Micros(
        'What may still be held now: the least that the budget and the day’s budget have left, and never below 0.',
      ),
      held_micros: Micros('Reserved for placements that have not ended, by this gateway.'),
      spent_micros: Micros('Charged by this gateway.'),
      outside_micros: Micros(
        'Held or charged elsewhere: by other gateways, and as the release counted it.',
      ),
      today_micros: Micros('Held and charged for the UTC day of `as_of`, by all gateways.'),
    }),
  ),
});

/** Where campaigns' money is, as the ledger that decides has it: what the store knows comes later. */
export function budgetRoutes(app: FastifyInstance, context: RouteContext): void {
  const { releases, ledger, clock } = context;

  app.get(
    '/v1/budgets',
    {
      onRequest: context.tenant,
      // A name that is there once is no list to the parser.
      preValidation: (request, _reply, done) => {
        const query = request.query as Record<string, unknown>;
        if (typeof query['campaign_id'] === 'string') query['campaign_id'] = [query['campaign_id']];
        done();
      },
      schema: {
        operationId: 'budgets',
        summary: 'Where the money of campaigns is',
        description:
          `Up to ${MAX_CAMPAIGNS} campaigns of the release being served, answered in the order asked for. ` +
          'Money of other gateways on the same store is as old as waggle_ledger_peers_age_seconds.',
        tags: ['operations'],
        ...protectedRoute,
        querystring: BudgetsQuery,
        response: { 200: BudgetsResponse, default: ErrorResponse },
      },
    },
    (request): Static<typeof BudgetsResponse> => {
      const release = releases.current();
      if (release === undefined) throw notReady(releases);
      checkServed(release, request.tenantId);
      const { campaign_id: ids } = request.query as Static<typeof BudgetsQuery>;
      const nowMs = clock.nowMs();
      const budgets = ids.map((id) => {
        const account = release.knows('campaign', id) ? ledger.account(id, nowMs) : undefined;
        if (account === undefined) {
          throw gatewayError('WAGGLE_UNKNOWN_CAMPAIGN', `unknown campaign ${id}`, {
            details: { campaign_id: id, release: release.id },
          });
        }
        return {
          campaign_id: id,
          budget_micros: account.budgetMicros,
          daily_budget_micros: account.dailyBudgetMicros,
          available_micros: account.availableMicros,
          held_micros: account.heldMicros,
          spent_micros: account.spentMicros,
          outside_micros: account.outsideMicros,
          today_micros: account.todayMicros,
        };
      });
      return { release: release.id, as_of: new Date(nowMs).toISOString(), budgets };
    },
  );
}
