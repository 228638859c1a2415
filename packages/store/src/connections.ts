import { createClient } from '@clickhouse/client';
import { type Logger, silentLogger } from '@waggle/core';
import { ClientStore } from './client-store.js';
import { engineConnection } from './engine/chdb-connection.js';
import { ChdbEngine } from './engine/chdb-engine.js';
import type { Store } from './store.js';

export interface EmbeddedStoreOptions {
  /** Directory of the store; created when missing, owned by this process until `close()`. */
  readonly path: string;
  readonly logger?: Logger;
}

/**
 * chDB inside this process, for tests and single-process tools: one directory per process and one process per
 * directory. Everything else goes through `waggle store`.
 * @throws WAGGLE_STORE_LOCKED, WAGGLE_STORE_READ_ONLY, WAGGLE_STORE_DISK_FULL, WAGGLE_STORE_OPEN_FAILED
 */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<Store> {
  const logger = options.logger ?? silentLogger;
  const engine = await ChdbEngine.open({ path: options.path, logger });
  const client = createClient({ connection: engineConnection(engine), log: silentClientLog });
  return new ClientStore({ client, kind: 'embedded', logger });
}

export interface ServerStoreOptions {
  /** `http://host:8123` or `https://…`; user, password and database may be part of it. */
  readonly url: string;
  readonly username?: string;
  readonly password?: string;
  readonly database?: string;
  readonly logger?: Logger;
  /** Gzip request and response bodies: worth it over a network, a waste on loopback. @default by host */
  readonly compression?: boolean;
  /** Marks the loopback `waggle store`. @default 'server' */
  readonly kind?: 'owner' | 'server';
  readonly onClose?: () => Promise<void>;
}

/** Silence on a socket for longer than this is a lost connection; statements are limited by `timeoutMs`. */
const REQUEST_TIMEOUT_MS = 600_000;

/**
 * A ClickHouse server, or the loopback `waggle store`, over HTTP. Opening does not connect: `ping()` does.
 */
export async function openServerStore(options: ServerStoreOptions): Promise<Store> {
  const logger = options.logger ?? silentLogger;
  const compress =
    options.compression ?? !/^https?:\/\/([^@]*@)?(127\.|localhost|\[::1\])/.test(options.url);
  const client = createClient({
    url: options.url,
    ...(options.username === undefined ? {} : { username: options.username }),
    ...(options.password === undefined ? {} : { password: options.password }),
    ...(options.database === undefined ? {} : { database: options.database }),
    application: 'waggle',
    request_timeout: REQUEST_TIMEOUT_MS,
    max_open_connections: 16,
    compression: { request: compress, response: compress },
    // Below the five seconds after which Node's HTTP server drops idle sockets.
    keep_alive: { enabled: true, idle_socket_ttl: 2_500 },
    log: silentClientLog,
  });
  return new ClientStore({
    client,
    kind: options.kind ?? 'server',
    logger,
    ...(options.onClose === undefined ? {} : { onClose: options.onClose }),
  });
}

const nothing = (): void => {};

/** Every failure reaches the caller as an error; the client's own console lines would say it twice. */
const silentClientLog = {
  level: 127,
  LoggerClass: class {
    trace = nothing;
    debug = nothing;
    info = nothing;
    warn = nothing;
    error = nothing;
  },
} as const;
