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
    /** Tenant of requests when no keys are configured. */
    tenantId: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$', default: 'ten_sample' }),
    /** `key:tenant[,key:tenant…]`; from WAGGLE_API_KEYS. */
    apiKeys: Type.String({ default: '' }),
    /** A client must send its whole request within this. */
    requestTimeoutMs: Ms(10_000),
    keepAliveTimeoutMs: Ms(72_000),
    /** Work accepted before shutdown gets this long. */
    shutdownTimeoutMs: Ms(10_000),
    /** Median event-loop delay above which new work is refused with 503; 0 = never. */
    maxEventLoopDelayMs: Ms(500),
    /** Requests being worked on above which new ones are refused with 503. */
    maxInFlight: Type.Integer({ minimum: 1, maximum: 100_000, default: 2_000 }),
    idempotencyTtlMs: Ms(86_400_000, 7 * 86_400_000),
    idempotencyMaxBytes: Type.Integer({ minimum: 65_536, maximum: 2 ** 34, default: 67_108_864 }),
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
): GatewayConfig {
  const config = parseConfig(GatewayConfigSchema, input, source);
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

/**
 * Configuration from the environment: WAGGLE_GATEWAY_<NAME> for every key of the schema
 * (`requestTimeoutMs` = WAGGLE_GATEWAY_REQUEST_TIMEOUT_MS) and WAGGLE_API_KEYS. Unknown
 * WAGGLE_GATEWAY_* names are refused. `overrides` (command-line flags) win.
 * @throws WAGGLE_CONFIG_INVALID, WAGGLE_BIND_REFUSED
 */
export function gatewayConfigFromEnv(
  env: Readonly<Record<string, string | undefined>>,
  overrides: Partial<GatewayConfig> = {},
): GatewayConfig {
  const input: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith(PREFIX) || value === undefined) continue;
    const key = name
      .slice(PREFIX.length)
      .toLowerCase()
      .replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
    // Keys come from one variable alone, so that a secret has one name to look for.
    input[key === 'apiKeys' ? name : key] = value;
  }
  if (env['WAGGLE_API_KEYS'] !== undefined) input['apiKeys'] = env['WAGGLE_API_KEYS'];
  return gatewayConfig({ ...input, ...overrides }, 'environment (WAGGLE_GATEWAY_*)');
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}
