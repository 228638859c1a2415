import { randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import zlib from 'node:zlib';
import type { Clock, Logger } from '@waggle/core';
import { summaryText } from '../engine/chdb-connection.js';
import { ChdbEngine, type EngineResult } from '../engine/chdb-engine.js';
import { storeError } from '../errors.js';
import { IN_THE_BACKGROUND, type Standing } from './background.js';
import { exception, toHttpException } from './http-errors.js';
import { readStatement } from './http-request.js';
import {
  type Owner,
  readLiveOwner,
  removeOwner,
  SERVER_NAME,
  STOP_WHEN_UNUSED,
  writeOwner,
} from './owner-file.js';

export interface StoreServerOptions {
  /** Directory of the store: `chdb/`, `spool/` and `owner.json` lie in it. */
  readonly dir: string;
  /** @default '127.0.0.1' */
  readonly host?: string;
  /** @default 0: any free one */
  readonly port?: number;
  /** @default random */
  readonly password?: string;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Statements that run at once. @default 2 */
  readonly concurrency?: number;
  /**
   * Called once nobody holds a lease any more.
   * @default when `openLocalStore` started this process and says so: SIGTERM to itself; otherwise never
   */
  readonly onUnused?: () => void;
  /** How long `close` waits for running statements before it cancels them. @default 10_000 */
  readonly drainMs?: number;
  /** Told when somebody waits for a statement, see `stepBack`. */
  readonly standing?: Standing;
}

export interface StoreServer {
  readonly url: string;
  readonly user: string;
  readonly password: string;
  /** Finishes what runs, closes the directory, removes `owner.json`. Idempotent. */
  close(): Promise<void>;
}

const USER = 'waggle';
/** Statements that may wait for their turn. */
const MAX_WAITING = 1_000;
/** An owner that was started for somebody who never came stops after this time. */
const FIRST_LEASE_MS = 30_000;
const UNUSED_MS = 300;

/**
 * `waggle store`: the one process that opens a chDB directory, speaking ClickHouse's HTTP protocol on loopback.
 * @throws WAGGLE_STORE_LOCKED when another process owns the directory, WAGGLE_STORE_PORT_IN_USE,
 *   WAGGLE_STORE_READ_ONLY, WAGGLE_STORE_DISK_FULL, WAGGLE_STORE_OPEN_FAILED
 */
export async function startStoreServer(options: StoreServerOptions): Promise<StoreServer> {
  const directory = resolve(options.dir);
  let engine: ChdbEngine;
  try {
    engine = await ChdbEngine.open({
      path: directory,
      logger: options.logger,
      ...(options.concurrency === undefined ? {} : { concurrency: options.concurrency }),
    });
  } catch (err) {
    const owner = await readLiveOwner(directory);
    if (owner === undefined) throw err;
    throw storeError(
      'WAGGLE_STORE_LOCKED',
      `process ${owner.pid} owns ${directory} and answers at ${owner.url}`,
      {
        cause: err,
        details: { pid: owner.pid, url: owner.url, path: join(directory, 'chdb') },
      },
    );
  }
  try {
    const version = await engineVersion(engine);
    const password = options.password ?? randomBytes(24).toString('base64url');
    const handler = new RequestHandler({
      engine,
      version,
      user: USER,
      password,
      logger: options.logger,
      standing: options.standing,
    });
    const server = createServer(
      { maxHeaderSize: 1 << 20, requestTimeout: 0, keepAliveTimeout: 65_000 },
      (request, response) => {
        void handler.handle(request, response);
      },
    );
    await listen(server, options.host ?? '127.0.0.1', options.port ?? 0);
    const { address, port, family } = server.address() as AddressInfo;
    const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
    const owner: Owner = {
      url,
      user: USER,
      password,
      pid: process.pid,
      startedAt: new Date(options.clock.nowMs()).toISOString(),
    };
    try {
      await writeOwner(directory, owner);
    } catch (err) {
      server.close();
      throw err;
    }
    const stopListening = onStopWhenUnused(() => handler.stopWhenUnused(terminateSelf));
    if (options.onUnused !== undefined) handler.stopWhenUnused(options.onUnused);
    options.logger.info({ url, directory, version }, 'the store is open');
    let closing: Promise<void> | undefined;
    return {
      url,
      user: USER,
      password,
      close() {
        closing ??= (async () => {
          // First nobody finds it any more, then nobody gets in, then the others finish.
          stopListening();
          await removeOwner(directory, owner).catch(() => {});
          await handler.drain(server, options.drainMs ?? 10_000);
          await engine.close();
          options.logger.info({ directory }, 'the store is closed');
        })();
        return closing;
      },
    };
  } catch (err) {
    await engine.close();
    throw err;
  }
}

function onStopWhenUnused(act: () => void): () => void {
  if (process.channel === undefined) return () => {};
  const onMessage = (message: unknown) => {
    if (message === STOP_WHEN_UNUSED) act();
  };
  process.on('message', onMessage);
  return () => process.off('message', onMessage);
}

/** The process that runs the server knows what SIGTERM means to it. */
function terminateSelf(): void {
  process.kill(process.pid, 'SIGTERM');
}

async function engineVersion(engine: ChdbEngine): Promise<string> {
  const result = await engine.run({ sql: 'SELECT version()', materialise: true });
  let text = '';
  for await (const chunk of result.chunks) text += Buffer.from(chunk).toString();
  return text.trim();
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((fulfil, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(
        cause.code === 'EADDRINUSE'
          ? storeError('WAGGLE_STORE_PORT_IN_USE', `port ${port} of ${host} is taken`, {
              cause,
              details: { host, port },
            })
          : storeError(
              'WAGGLE_STORE_OPEN_FAILED',
              `cannot listen on ${host}:${port}: ${cause.message}`,
              { cause },
            ),
      );
    });
    server.listen(port, host, fulfil);
  });
}

interface HandlerOptions {
  readonly engine: ChdbEngine;
  readonly version: string;
  readonly user: string;
  readonly password: string;
  readonly logger: Logger;
  readonly standing: Standing | undefined;
}

class RequestHandler {
  readonly #options: HandlerOptions;
  readonly #active = new Set<AbortController>();
  readonly #leases = new Set<ServerResponse>();
  #onUnused: (() => void) | undefined;
  #unused: NodeJS.Timeout | undefined;
  #draining = false;

  constructor(options: HandlerOptions) {
    this.#options = options;
  }

  /** From now on somebody must hold a lease; the first one may take a while to come. */
  stopWhenUnused(act: () => void): void {
    this.#onUnused = act;
    this.#watchLeases(FIRST_LEASE_MS);
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on('error', () => {});
    response.on('error', () => {});
    response.setHeader('X-ClickHouse-Server-Display-Name', SERVER_NAME);
    response.setHeader('X-ClickHouse-Timezone', 'UTC');
    try {
      const url = new URL(request.url ?? '/', 'http://store');
      if (
        url.pathname === '/ping' ||
        (url.pathname === '/' && request.method === 'GET' && url.search === '')
      ) {
        response.end('Ok.\n');
        return;
      }
      this.#authenticate(request, url);
      switch (url.pathname) {
        case '/':
          await this.#statement(request, response, url);
          return;
        case '/waggle/owner':
          response.setHeader('Content-Type', 'application/json');
          response.end(
            JSON.stringify({
              pid: process.pid,
              version: this.#options.version,
              onDemand: this.#onUnused !== undefined,
              leases: this.#leases.size,
              ...this.#options.engine.load,
            }),
          );
          return;
        case '/waggle/lease':
          this.#lease(response);
          return;
      }
      response.statusCode = 404;
      response.end(`There is no handle ${url.pathname}\n\nUse / or /ping for health checks.\n`);
    } catch (thrown) {
      this.#fail(response, thrown);
    }
  }

  /** Refuses new requests, waits for the running ones, cancels what is left. */
  async drain(server: Server, drainMs: number): Promise<void> {
    this.#draining = true;
    clearTimeout(this.#unused);
    const closed = new Promise<void>((fulfil) => server.close(() => fulfil()));
    for (const lease of this.#leases) lease.end();
    server.closeIdleConnections();
    const deadline = setTimeout(() => {
      for (const controller of this.#active) {
        controller.abort(storeError('WAGGLE_STORE_CLOSED', 'the store is closing'));
      }
      setTimeout(() => server.closeAllConnections(), 1_000).unref();
    }, drainMs);
    while (this.#active.size > 0) {
      await new Promise((wake) => setTimeout(wake, 5));
      server.closeIdleConnections();
    }
    clearTimeout(deadline);
    server.closeIdleConnections();
    // Sockets that finished their answer but were told to stay open.
    setTimeout(() => server.closeAllConnections(), 200).unref();
    await closed;
  }

  #authenticate(request: IncomingMessage, url: URL): void {
    const { user, password } = credentials(request, url);
    const known = equal(user, this.#options.user) || equal(user, 'default');
    // Both are compared, so that the time taken does not tell which one was wrong.
    const right = equal(password, this.#options.password);
    if (known && right) return;
    throw exception(
      516,
      'AUTHENTICATION_FAILED',
      `${user}: Authentication failed: password is incorrect, or there is no user with such name`,
    );
  }

  async #statement(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    if (this.#draining) throw storeError('WAGGLE_STORE_CLOSED', 'the store is closing');
    if (this.#options.engine.load.waiting >= MAX_WAITING) {
      throw exception(
        202,
        'TOO_MANY_SIMULTANEOUS_QUERIES',
        `Too many simultaneous queries: ${MAX_WAITING} wait`,
      );
    }
    const controller = new AbortController();
    this.#active.add(controller);
    // Nobody reads the answer any more: stop working on it.
    const onClose = () => {
      if (!response.writableFinished)
        controller.abort(storeError('WAGGLE_STORE_ABORTED', 'the client went away'));
    };
    response.once('close', onClose);
    let result: EngineResult | undefined;
    let attended: (() => void) | undefined;
    try {
      const statement = await readStatement(request, url);
      if (statement.settings?.['log_comment'] !== IN_THE_BACKGROUND) {
        attended = this.#options.standing?.attend();
      }
      const queryId = statement.queryId ?? randomUUID();
      response.setHeader('X-ClickHouse-Query-Id', queryId);
      result = await this.#options.engine.run({ ...statement, signal: controller.signal });
      await this.#answer(request, response, result, statement.compressResponse);
    } catch (thrown) {
      if (response.destroyed) this.#options.logger.debug({ err: thrown }, 'a client went away');
      else this.#fail(response, thrown);
    } finally {
      await result?.chunks.return().catch(() => {});
      attended?.();
      response.off('close', onClose);
      this.#active.delete(controller);
      // A refused INSERT leaves its body unread: the socket cannot be used again.
      if (!request.complete) request.resume();
    }
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    result: EngineResult,
    compress: boolean,
  ): Promise<void> {
    // Status and headers wait for the first chunk, so that most errors still get their own status.
    const first = await result.chunks.next();
    const tag = randomBytes(8).toString('hex');
    response.setHeader('X-ClickHouse-Format', result.format);
    response.setHeader('X-ClickHouse-Exception-Tag', tag);
    response.setHeader('X-ClickHouse-Summary', JSON.stringify(summaryText(result.summary)));
    response.setHeader('Content-Type', contentType(result.format));
    const encoder = compress ? encoderFor(request, response) : undefined;
    const out: Writable = encoder ?? response;
    encoder?.pipe(response);
    encoder?.on('error', () => response.destroy());
    try {
      let step = first;
      while (!step.done) {
        if (!out.write(step.value)) await drained(out, response);
        step = await result.chunks.next();
      }
    } catch (thrown) {
      if (response.destroyed) throw thrown;
      if (!response.headersSent && encoder === undefined) throw thrown;
      // Too late for a status: the exception goes into the body, where clients of 25.11 and later look for it.
      const { body } = toHttpException(thrown, this.#options.version);
      out.write(
        `\r\n__exception__\r\n${tag}\r\n${body}${Buffer.byteLength(body)} ${tag}\r\n__exception__\r\n`,
      );
    }
    out.end();
    await finished(response).catch(() => {});
  }

  #fail(response: ServerResponse, thrown: unknown): void {
    const { status, code, body } = toHttpException(thrown, this.#options.version);
    if (response.headersSent) {
      response.destroy();
      return;
    }
    response.statusCode = status;
    response.removeHeader('Content-Encoding');
    response.setHeader('X-ClickHouse-Exception-Code', String(code));
    response.setHeader('Content-Type', 'text/plain; charset=UTF-8');
    if (status === 401)
      response.setHeader('WWW-Authenticate', 'Basic realm="ClickHouse server HTTP API"');
    response.end(body);
  }

  /** A lease is a request that stays open: it ends with its holder, however that ends. */
  #lease(response: ServerResponse): void {
    if (this.#draining) throw storeError('WAGGLE_STORE_CLOSED', 'the store is closing');
    clearTimeout(this.#unused);
    this.#leases.add(response);
    response.writeHead(200, { 'Content-Type': 'text/plain' });
    response.write('leased\n');
    response.once('close', () => {
      this.#leases.delete(response);
      if (!this.#draining) this.#watchLeases(UNUSED_MS);
    });
  }

  #watchLeases(ms: number): void {
    const onUnused = this.#onUnused;
    if (onUnused === undefined || this.#leases.size > 0) return;
    clearTimeout(this.#unused);
    this.#unused = setTimeout(() => {
      if (this.#leases.size === 0 && this.#active.size === 0) onUnused();
      else this.#watchLeases(UNUSED_MS);
    }, ms);
  }
}

function credentials(request: IncomingMessage, url: URL): { user: string; password: string } {
  const basic = /^Basic (.+)$/i.exec(request.headers.authorization ?? '');
  if (basic !== null) {
    const text = Buffer.from(basic[1]!, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    return {
      user: text.slice(0, colon < 0 ? text.length : colon),
      password: colon < 0 ? '' : text.slice(colon + 1),
    };
  }
  const user = request.headers['x-clickhouse-user'];
  if (typeof user === 'string') {
    const key = request.headers['x-clickhouse-key'];
    return { user, password: typeof key === 'string' ? key : '' };
  }
  return {
    user: url.searchParams.get('user') ?? 'default',
    password: url.searchParams.get('password') ?? '',
  };
}

function equal(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

function encoderFor(
  request: IncomingMessage,
  response: ServerResponse,
): zlib.Gzip | zlib.BrotliCompress | undefined {
  const accepted = String(request.headers['accept-encoding'] ?? '').toLowerCase();
  if (/\bgzip\b/.test(accepted)) {
    response.setHeader('Content-Encoding', 'gzip');
    return zlib.createGzip({ level: 3 });
  }
  if (/\bdeflate\b/.test(accepted)) {
    response.setHeader('Content-Encoding', 'deflate');
    return zlib.createDeflate({ level: 3 }) as unknown as zlib.Gzip;
  }
  if (/\bbr\b/.test(accepted)) {
    response.setHeader('Content-Encoding', 'br');
    return zlib.createBrotliCompress({ params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 3 } });
  }
  return undefined;
}

function drained(out: Writable, response: ServerResponse): Promise<void> {
  return new Promise((fulfil) => {
    const done = () => {
      out.off('drain', done);
      response.off('close', done);
      fulfil();
    };
    out.once('drain', done);
    response.once('close', done);
    if (response.destroyed) done();
  });
}

function contentType(format: string): string {
  if (/^JSON(EachRow|Lines|CompactEachRow|StringsEachRow|CompactStringsEachRow)/.test(format))
    return 'application/x-ndjson; charset=UTF-8';
  if (format.startsWith('JSON')) return 'application/json; charset=UTF-8';
  if (format.startsWith('CSV')) return 'text/csv; charset=UTF-8; header=absent';
  if (/^(TSV|TabSeparated)/.test(format)) return 'text/tab-separated-values; charset=UTF-8';
  if (/^(Native|RowBinary|Parquet|Arrow|ORC|Avro)/.test(format)) return 'application/octet-stream';
  return 'text/plain; charset=UTF-8';
}
