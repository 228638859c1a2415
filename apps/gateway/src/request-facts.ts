import type { FastifyInstance } from 'fastify';
import type { GatewayMetrics } from './metrics.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** Whom the request speaks for; set by the tenant hook. */
    tenantId: string;
    /** Monotonic milliseconds when the head arrived. */
    receivedAtMs: number;
    /** SHA-256 of the body's bytes, where an Idempotency-Key asks for it. */
    bodyDigest: string;
  }
  interface FastifyInstance {
    gatewayMetrics: GatewayMetrics;
  }
}

/** Declared up front, so that every request object has one shape. */
export function declareRequestFacts(app: FastifyInstance, metrics: GatewayMetrics): void {
  app.decorateRequest('tenantId', '');
  app.decorateRequest('receivedAtMs', 0);
  app.decorateRequest('bodyDigest', '');
  app.decorate('gatewayMetrics', metrics);
}

/** W3C Trace Context, version 00. */
export const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;
