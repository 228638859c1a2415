import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { ledgerError } from '../errors.js';
import type { WriteAheadLog } from '../wal/index.js';
import { readIfPresent, writeDurably } from './durable-file.js';

const IDENTITY_FILE = 'ledger.json';

/** Which ledger this is, for good. */
export interface LedgerIdentity {
  readonly id: string;
  /** Records up to this one are of the time before it had an id, and so are the names of their entries. */
  readonly since: number;
}

/** Reads which ledger the log's directory is, or makes it one. @throws WAGGLE_LEDGER_CORRUPT */
export async function identityOf(wal: WriteAheadLog): Promise<LedgerIdentity> {
  const path = join(wal.dir, IDENTITY_FILE);
  const text = await readIfPresent(path);
  if (text === undefined) {
    const identity = { id: randomBytes(6).toString('hex'), since: wal.durableSequence };
    await writeDurably(path, JSON.stringify(identity));
    return identity;
  }
  try {
    const { id, since } = JSON.parse(text) as Partial<LedgerIdentity>;
    if (typeof id !== 'string' || !/^[0-9a-f]{12}$/.test(id) || !Number.isSafeInteger(since))
      throw new Error('no id');
    return { id, since: since! };
  } catch (cause) {
    throw ledgerError('WAGGLE_LEDGER_CORRUPT', `${path} cannot be read`, {
      cause,
      details: { path },
    });
  }
}
