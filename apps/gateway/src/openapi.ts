import swagger from '@fastify/swagger';
import type { FastifyInstance, FastifySchema } from 'fastify';
import { Type } from 'typebox';
import { IDEMPOTENCY_KEY } from './idempotency.js';

/** Spread into the schema of routes that need an API key where keys are configured. */
export const protectedRoute = { security: [{ apiKey: [] as string[] }] };

/** Config of routes that take an Idempotency-Key: documented here, checked by `idempotencyScope` under a code of its own. */
export const idempotentRoute = {
  swaggerTransform: ({ schema, url }: { schema: FastifySchema; url: string }) => ({
    schema: {
      ...schema,
      headers: Type.Object({
        'Idempotency-Key': Type.Optional(
          Type.String({
            pattern: IDEMPOTENCY_KEY.source,
            description:
              'The same key with the same bytes gets the same answer, with `idempotent-replayed: true`; another body gets 409.',
          }),
        ),
      }),
    },
    url,
  }),
};

/**
 * Config of the route that takes NDJSON too. The parser makes of it what JSON has, so both are validated by one schema;
 * but on the wire it is lines, for which OpenAPI 3.1 has no schema but text.
 */
export const idempotentNdjsonRoute = {
  swaggerTransform: (route: { schema: FastifySchema; url: string }) => {
    const { schema, url } = idempotentRoute.swaggerTransform(route);
    const lines = Type.String({
      description: 'One event a line, each as in `events` of application/json.',
    });
    const content = {
      'application/json': { schema: route.schema.body },
      'application/x-ndjson': { schema: lines },
    };
    return { schema: { ...schema, body: { content } }, url };
  },
};

export function registerOpenApi(app: FastifyInstance, version: string): void {
  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Waggle gateway',
        description:
          'Ranks newsletter ad campaigns and takes the events that they are learned from.',
        version,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      tags: [
        { name: 'decisions', description: 'What to offer and what to fill' },
        { name: 'events', description: 'What happened' },
        { name: 'operations', description: 'Health, metrics, release, budgets' },
      ],
      components: {
        securitySchemes: {
          apiKey: {
            type: 'http',
            scheme: 'bearer',
            description: 'A key of WAGGLE_API_KEYS. Not needed on a loopback gateway without keys.',
          },
        },
      },
    },
  });
}
