import { parseConfig } from '@waggle/core';
import { type Static, Type } from 'typebox';
import { parseApiKeys } from './auth.js';
import { gatewayError } from './errors.js';

const Ms = (value: number, maximum = 86_400_000) =>
  Type.Integer({ minimum: 0, maximum, default: value });

export const GatewayConfigSchema = Type.Object(
  {
    /** Address to bind; anything but loopback needs `apiKeys`. */
    host: Type.String({ minLength: 1, default: '127.0.0.1' }),
    /** 0 lets the system choose. */
    port: Type.Integer({ minimum: 0, maximum: 65_535, default: 8080 }),
    /** Waggle's folder: releases, and the gateway's own logs and ledger. */
    dir: Type.String({ minLength: 1, default: '.waggle' }),
    /**
     * `data` starts at the release's as-of time, which keeps a sample network's campaigns in flight; `auto`
     * does so for releases that say they are samples, and takes the system's time for all others.
     */
    clock: Type.Union([Type.Literal('auto'), Type.Literal('system'), Type.Literal('data')], {
      default: 'auto',
    }),
    /** A ClickHouse server to forward to; without it the local `waggle store`. */
    clickhouseUrl: Type.Optional(Type.String({ pattern: '^https?://' })),
    clickhouseUser: Type.Optional(Type.String()),
    clickhousePassword: Type.Optional(Type.String()),
    clickhouseDatabase: Type.Optional(Type.String()),
    /** Tenant of requests when no keys are configured. */
    tenantId: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$', default: 'ten_sample' }),
    /** `key:tenant[,key:tenant…]`; from WAGGLE_API_KEYS. */
    apiKeys: Type.String({ default: '' }),
    /** A client must send its whole request within this. */
    requestTimeoutMs: Ms(10_000),
    keepAliveTimeoutMs: Ms(72_000),
    /** How long to serve on after the signal to stop, not ready already, so that a balancer sees that first. */
    drainMs: Ms(0, 600_000),
    /** Work accepted before shutdown gets this long. */
    shutdownTimeoutMs: Ms(10_000),
    /** Median event-loop delay above which new work is refused with 503; 0 = never. */
    maxEventLoopDelayMs: Ms(500),
    /** Requests being worked on above which new ones are refused with 503. */
    maxInFlight: Type.Integer({ minimum: 1, maximum: 100_000, default: 2_000 }),
    idempotencyTtlMs: Ms(86_400_000, 7 * 86_400_000),
    idempotencyMaxBytes: Type.Integer({ minimum: 65_536, maximum: 2 ** 34, default: 67_108_864 }),
    /** Pause between two exchanges of money with other gateways on the same store; 0 = none. */
    ledgerPeersMs: Ms(2_000, 600_000),
    /** How far ahead of the clock an event's time may be. */
    eventFutureSkewMs: Ms(86_400_000),
    /** One summary line per interval while there is traffic; 0 = none. */
    summaryIntervalMs: Ms(60_000),
    /** Requests slower than this are logged, at most one a second. */
    slowRequestMs: Ms(250),
  },
  { additionalProperties: false },
);

export type GatewayConfig = Readonly<Static<typeof GatewayConfigSchema>>;

/** Checked configuration with defaults; refuses an open address without keys. @throws WAGGLE_CONFIG_INVALID, WAGGLE_BIND_REFUSED */
export function gatewayConfig(
  input: Partial<GatewayConfig> = {},
  source = 'gateway options',
  nameOf?: (key: string) => string,
): GatewayConfig {
  const config = parseConfig(
    GatewayConfigSchema,
    input,
    source,
    nameOf === undefined ? {} : { nameOf },
  );
  const keys = parseApiKeys(config.apiKeys);
  if (keys.length === 0 && !isLoopback(config.host)) {
    throw gatewayError(
      'WAGGLE_BIND_REFUSED',
      `refusing to listen on ${config.host} without API keys`,
      {
        details: { host: config.host },
      },
    );
  }
  return config;
}

const PREFIX = 'WAGGLE_GATEWAY_';

/** Options that other commands share have a name of their own; all others are WAGGLE_GATEWAY_<NAME>. */
const SHARED: Readonly<Record<string, keyof GatewayConfig>> = {
  WAGGLE_DIR: 'dir',
  WAGGLE_HOST: 'host',
  WAGGLE_PORT: 'port',
  WAGGLE_CLOCK: 'clock',
  WAGGLE_TENANT: 'tenantId',
  WAGGLE_API_KEYS: 'apiKeys',
  WAGGLE_CLICKHOUSE_URL: 'clickhouseUrl',
  WAGGLE_CLICKHOUSE_USER: 'clickhouseUser',
  WAGGLE_CLICKHOUSE_PASSWORD: 'clickhousePassword',
  WAGGLE_CLICKHOUSE_DATABASE: 'clickhouseDatabase',
};
const SHARED_KEYS = new Set<string>(Object.values(SHARED));

/** The environment variable of a key. */
function variableOf(key: string): string {
  const shared = Object.keys(SHARED).find((name) => SHARED[name] === key);
  if (shared !== undefined || key.startsWith(PREFIX)) return shared ?? key;
  return `${PREFIX}${key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/**
 * Configuration from the environment: the shared names above, and WAGGLE_GATEWAY_<NAME> for every other key of
 * the schema (`requestTimeoutMs` = WAGGLE_GATEWAY_REQUEST_TIMEOUT_MS). Unknown WAGGLE_GATEWAY_* names are
 * refused, empty values count as absent. `overrides` (command-line flags) win.
 * @throws WAGGLE_CONFIG_INVALID, WAGGLE_BIND_REFUSED
 */
export function gatewayConfigFromEnv(
  env: Readonly<Record<string, string | undefined>>,
  overrides: Partial<GatewayConfig> = {},
): GatewayConfig {
  const input: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value === '') continue;
    const shared = SHARED[name];
    if (shared !== undefined) {
      input[shared] = value;
    } else if (name.startsWith(PREFIX)) {
      const key = name
        .slice(PREFIX.length)
        .toLowerCase()
        .replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
      // One name for one thing: WAGGLE_GATEWAY_PORT is refused as unknown beside WAGGLE_PORT.
      input[SHARED_KEYS.has(key) ? name : key] = value;
    }
  }
  return gatewayConfig({ ...input, ...overrides }, 'environment', variableOf);
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}
