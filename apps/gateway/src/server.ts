import { readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { setImmediate, setTimeout } from 'node:timers/promises';
import type { Logger, WaggleError } from '@waggle/core';
import type { FastifyInstance } from 'fastify';
import type { GatewayConfig } from './config.js';
import { gatewayError } from './errors.js';

/** Files that connections leave to the logs, the releases and the way to the store. */
const RESERVED_FILES = 128;

/**
 * How many connections may be open at once, by what Linux says in `/proc/self/limits`: were all files connections, no log could
 * make sure of its lock, and nothing could be written. undefined for no limit.
 */
export function connectionLimit(limits: string): number | undefined {
  const files = /^Max open files +([0-9]+) /m.exec(limits)?.[1];
  if (files === undefined) return undefined;
  return Math.max(Number(files) - RESERVED_FILES, Math.ceil(Number(files) / 2));
}

/** Opens the socket. @throws WAGGLE_PORT_IN_USE, WAGGLE_BIND_FAILED */
export async function listen(app: FastifyInstance, config: GatewayConfig): Promise<string> {
  const limit = connectionLimit(await readFile('/proc/self/limits', 'utf8').catch(() => ''));
  if (limit !== undefined) app.server.maxConnections = limit;
  app.server.on('drop', () => app.gatewayMetrics.observeRefusal('connections'));
  try {
    await app.listen({ host: config.host, port: config.port });
  } catch (cause) {
    throw bindError(cause, config);
  }
  const address = app.server.address() as AddressInfo;
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `http://${host}:${address.port}`;
}

export function bindError(cause: unknown, { host, port }: GatewayConfig): unknown {
  const { code } = cause as NodeJS.ErrnoException;
  const details = { host, port };
  switch (code) {
    case 'EADDRINUSE':
      return gatewayError('WAGGLE_PORT_IN_USE', `port ${port} of ${host} is taken`, {
        cause,
        details,
      });
    case 'EACCES':
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return gatewayError('WAGGLE_BIND_FAILED', `cannot listen on ${host}:${port} (${code})`, {
        cause,
        details,
      });
    default:
      return cause;
  }
}

/** One thing to do at shutdown; the order of the list is the order of the work. */
export interface ShutdownStep {
  readonly name: string;
  run(): Promise<unknown> | unknown;
}

const IDLE_CHECK_MS = 20;

/**
 * Serves on for `drainMs`, stops accepting, waits for what was accepted, then runs every step even when an earlier one
 * failed. Connections that outlive `timeoutMs` are cut; each step gets the same time again.
 * @returns false when something had to be cut or failed
 */
export async function shutDown(
  app: FastifyInstance,
  steps: readonly ShutdownStep[],
  o: { drainMs?: number; timeoutMs: number; logger: Logger },
): Promise<boolean> {
  if (o.drainMs !== undefined && o.drainMs > 0) await setTimeout(o.drainMs);
  let clean = true;
  const attempt = async (step: ShutdownStep, onTimeout?: () => void): Promise<void> => {
    try {
      const finished = await within(o.timeoutMs, Promise.resolve(step.run()), onTimeout);
      if (finished) return;
      o.logger.error(
        { step: step.name, timeout_ms: o.timeoutMs },
        'shutdown step took too long and was left behind',
      );
    } catch (cause) {
      o.logger.error(
        { step: step.name, err: cause as WaggleError },
        'shutdown step failed; the next ones still run',
      );
    }
    clean = false;
  };
  // What clients have sent is read first: a connection that looks idle before may hold a request, and would be reset.
  // The first one ends this turn of the event loop, the second comes after the sockets have been read.
  await setImmediate();
  await setImmediate();
  // A connection that was busy when closing began would stay open, idle, until its keep-alive ends.
  const idle = setInterval(
    () => void setImmediate().then(() => app.server.closeIdleConnections()),
    IDLE_CHECK_MS,
  );
  await attempt({ name: 'finish requests', run: () => app.close() }, () =>
    app.server.closeAllConnections(),
  );
  clearInterval(idle);
  for (const step of steps) await attempt(step);
  return clean;
}

/** True when `work` settled in time; a failure is thrown on. */
async function within(
  timeoutMs: number,
  work: Promise<unknown>,
  onTimeout?: () => void,
): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<false>((resolve) => {
    timer = globalThis.setTimeout(() => {
      onTimeout?.();
      resolve(false);
    }, timeoutMs);
  });
  try {
    return await Promise.race([work.then(() => true as const), expired]);
  } finally {
    clearTimeout(timer);
  }
}
