import type { Clock, Logger } from '@waggle/core';
import type { onRequestHookHandler } from 'fastify';
import type { Admission } from '../admission.js';
import type { ApiKey } from '../auth.js';
import type { GatewayConfig } from '../config.js';
import type { IdempotencyCache } from '../idempotency.js';
import type { GatewayMetrics } from '../metrics.js';
import type { ClockSource, EnginePort, JournalPort, LedgerPort, ReleasesPort } from '../ports.js';

/** What routes share. */
export interface RouteContext {
  readonly engine: EnginePort;
  readonly releases: ReleasesPort;
  readonly journal: JournalPort;
  readonly ledger: LedgerPort;
  readonly clock: Clock;
  readonly clockSource: ClockSource;
  readonly logger: Logger;
  readonly config: GatewayConfig;
  readonly keys: readonly ApiKey[];
  readonly metrics: GatewayMetrics;
  readonly idempotency: IdempotencyCache;
  readonly admission: Admission;
  /** Sets the request's tenant or refuses it. */
  readonly tenant: onRequestHookHandler;
  /** Refuses work while the process is overloaded. */
  readonly admit: onRequestHookHandler;
  isDraining(): boolean;
}
