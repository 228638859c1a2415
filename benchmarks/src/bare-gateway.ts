import {
  ErrorResponse,
  RANK_LIMITS,
  RankRequest,
  RankResponse,
  type RankResponseBody,
} from '@waggle/core/contract';
import Fastify, { type FastifyInstance } from 'fastify';

/**
 * The limit that `rank` is measured against: nothing but Fastify with the gateway's schemas, taking the same
 * request body and serialising the same answer. No keys, no checks of encoding, no metrics, no ranking.
 */
export function bareGateway(answer: RankResponseBody): FastifyInstance {
  const app = Fastify({
    logger: false,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allErrors: false } },
  });
  app.post(
    '/v1/rank',
    {
      bodyLimit: RANK_LIMITS.bodyBytes,
      schema: { body: RankRequest, response: { 200: RankResponse, default: ErrorResponse } },
    },
    () => answer,
  );
  return app;
}
