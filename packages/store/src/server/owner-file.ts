import { open, readFile, rename, rm } from 'node:fs/promises';
import { get } from 'node:http';
import { join, resolve } from 'node:path';
import { toStoreError } from '../clickhouse-errors.js';
import { isAlive } from '../directory-lock.js';

/** `owner.json`: where the process that owns a store directory listens; readable by its user alone. */
export interface Owner {
  readonly url: string;
  readonly user: string;
  readonly password: string;
  readonly pid: number;
  /** RFC 3339. */
  readonly startedAt: string;
}

export interface LiveOwner extends Owner {
  /** True when the owner stops by itself once nobody holds a lease. */
  readonly onDemand: boolean;
}

const FILE = 'owner.json';
export const SERVER_NAME = 'waggle store';
/** What `openLocalStore` says over the IPC channel of the owner that it has started. */
export const STOP_WHEN_UNUSED = 'waggle: stop when unused';

/** @throws WAGGLE_STORE_DISK_FULL, WAGGLE_STORE_READ_ONLY */
export async function writeOwner(directory: string, owner: Owner): Promise<void> {
  const path = join(directory, FILE);
  const next = `${path}.${process.pid}`;
  // Created with its final mode: the password is never readable by others, not even for a moment.
  try {
    await rm(next, { force: true });
    const handle = await open(next, 'wx', 0o600);
    try {
      await handle.writeFile(`${JSON.stringify(owner, null, 2)}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(next, path);
  } catch (err) {
    await rm(next, { force: true }).catch(() => {});
    throw toStoreError(err, { doing: `write ${path}` });
  }
}

/** Removes the file if it still names this process. */
export async function removeOwner(directory: string, owner: Owner): Promise<void> {
  const current = await readOwner(directory);
  if (current?.pid === owner.pid && current.password === owner.password) {
    await rm(join(directory, FILE), { force: true });
  }
}

export async function readOwner(directory: string): Promise<Owner | undefined> {
  try {
    const value = JSON.parse(await readFile(join(directory, FILE), 'utf8')) as Partial<Owner>;
    if (typeof value.url !== 'string' || typeof value.pid !== 'number') return undefined;
    if (typeof value.user !== 'string' || typeof value.password !== 'string') return undefined;
    return value as Owner;
  } catch {
    return undefined;
  }
}

/**
 * The owner of a store directory, if it lives and answers with the password of `owner.json`: a file left behind by
 * a killed process, a reused process id and a reused port are all told apart.
 */
export async function readLiveOwner(
  directory: string,
  timeoutMs = 2_000,
): Promise<LiveOwner | undefined> {
  const owner = await readOwner(directory);
  if (owner === undefined || !isAlive(owner.pid)) return undefined;
  return new Promise((fulfil) => {
    const request = get(
      `${owner.url}/waggle/owner`,
      { auth: `${owner.user}:${owner.password}`, timeout: timeoutMs, agent: false },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          body += chunk;
        });
        response.on('end', () => {
          try {
            const facts = JSON.parse(body) as { pid?: unknown; onDemand?: unknown };
            const matches = response.statusCode === 200 && facts.pid === owner.pid;
            fulfil(matches ? { ...owner, onDemand: facts.onDemand === true } : undefined);
          } catch {
            fulfil(undefined);
          }
        });
        response.on('error', () => fulfil(undefined));
      },
    );
    request.on('timeout', () => request.destroy());
    request.on('error', () => fulfil(undefined));
  });
}

/** Where the local store lies in Waggle's folder. */
export function storeDirectory(dataDir: string): string {
  return join(resolve(dataDir), 'store');
}
