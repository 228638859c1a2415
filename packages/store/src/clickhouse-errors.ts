import { WaggleError } from '@waggle/core';
import { storeError } from './errors.js';

type StoreCode = Parameters<typeof storeError>[0];

/** ClickHouse's numbers (src/Common/ErrorCodes.cpp) that mean something to Waggle; all others are QUERY. */
const CODES: Readonly<Record<number, StoreCode>> = {
  6: 'WAGGLE_STORE_BAD_ROWS',
  16: 'WAGGLE_STORE_UNKNOWN_COLUMN',
  26: 'WAGGLE_STORE_BAD_ROWS',
  27: 'WAGGLE_STORE_BAD_ROWS',
  32: 'WAGGLE_STORE_BAD_ROWS',
  33: 'WAGGLE_STORE_BAD_ROWS',
  34: 'WAGGLE_STORE_BAD_ROWS',
  38: 'WAGGLE_STORE_BAD_ROWS',
  41: 'WAGGLE_STORE_BAD_ROWS',
  60: 'WAGGLE_STORE_UNKNOWN_TABLE',
  62: 'WAGGLE_STORE_SYNTAX',
  72: 'WAGGLE_STORE_BAD_ROWS',
  74: 'WAGGLE_STORE_BAD_ROWS',
  81: 'WAGGLE_STORE_UNKNOWN_TABLE',
  107: 'WAGGLE_STORE_FILE_NOT_FOUND',
  117: 'WAGGLE_STORE_BAD_ROWS',
  130: 'WAGGLE_STORE_BAD_ROWS',
  131: 'WAGGLE_STORE_BAD_ROWS',
  159: 'WAGGLE_STORE_TIMEOUT',
  160: 'WAGGLE_STORE_TIMEOUT',
  164: 'WAGGLE_STORE_READ_ONLY',
  192: 'WAGGLE_STORE_AUTH',
  193: 'WAGGLE_STORE_AUTH',
  194: 'WAGGLE_STORE_AUTH',
  202: 'WAGGLE_STORE_BUSY',
  209: 'WAGGLE_STORE_TIMEOUT',
  210: 'WAGGLE_STORE_CONNECTION_LOST',
  236: 'WAGGLE_STORE_UNAVAILABLE',
  241: 'WAGGLE_STORE_MEMORY',
  242: 'WAGGLE_STORE_READ_ONLY',
  243: 'WAGGLE_STORE_DISK_FULL',
  246: 'WAGGLE_STORE_BAD_ROWS',
  349: 'WAGGLE_STORE_BAD_ROWS',
  372: 'WAGGLE_STORE_BUSY',
  373: 'WAGGLE_STORE_BUSY',
  394: 'WAGGLE_STORE_ABORTED',
  456: 'WAGGLE_STORE_PARAMETER',
  457: 'WAGGLE_STORE_PARAMETER',
  497: 'WAGGLE_STORE_AUTH',
  516: 'WAGGLE_STORE_AUTH',
  636: 'WAGGLE_STORE_BAD_ROWS',
};

export interface ErrorContext {
  /** What was being done, for the message: `insert into clicks`. */
  readonly doing: string;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

/** Any failure of a driver, a socket or ClickHouse as a WaggleError; one that already is stays. */
export function toStoreError(thrown: unknown, context: ErrorContext): WaggleError {
  if (thrown instanceof WaggleError) return thrown;
  const { signal } = context;
  const message = tidy(thrown instanceof Error ? thrown.message : String(thrown));
  const fail = (code: StoreCode, text: string, details: Record<string, unknown> = {}) =>
    storeError(code, `${context.doing}: ${text}`, { cause: thrown, details });

  if (signal?.aborted) {
    const reason: unknown = signal.reason;
    if (reason instanceof WaggleError) return reason;
    if (reason instanceof Error && reason.name === 'TimeoutError') {
      return fail('WAGGLE_STORE_TIMEOUT', `not finished within ${context.timeoutMs} ms`, {
        timeoutMs: context.timeoutMs,
      });
    }
    return fail('WAGGLE_STORE_ABORTED', 'cancelled by the caller');
  }

  const clickhouseCode = codeOf(thrown);
  if (clickhouseCode !== undefined) {
    const details: Record<string, unknown> = { clickhouseCode };
    const type =
      (thrown as { type?: unknown }).type ?? /\(([A-Z][A-Z0-9_]{2,})\)[^()]*$/.exec(message)?.[1];
    if (type !== undefined) details['clickhouseType'] = type;
    const row = /\(at row (\d+)\)/.exec(message)?.[1];
    if (row !== undefined) details['row'] = Number(row);
    return fail(refine(clickhouseCode, message), message, details);
  }

  const errno = (thrown as { code?: unknown } | null)?.code;
  switch (errno) {
    case 'ECONNREFUSED':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return fail('WAGGLE_STORE_UNAVAILABLE', message, { errno });
    case 'ECONNRESET':
    case 'EPIPE':
    case 'ECONNABORTED':
    case 'ERR_STREAM_PREMATURE_CLOSE':
      return fail('WAGGLE_STORE_CONNECTION_LOST', message, { errno });
    case 'ETIMEDOUT':
      return fail('WAGGLE_STORE_TIMEOUT', message, { errno });
    case 'ENOSPC':
    case 'EDQUOT':
      return fail('WAGGLE_STORE_DISK_FULL', message, { errno });
    case 'EROFS':
    case 'EACCES':
    case 'EPERM':
      return fail('WAGGLE_STORE_READ_ONLY', message, { errno });
    case 'ENOENT':
      return fail('WAGGLE_STORE_FILE_NOT_FOUND', message, { errno });
  }
  if (/socket hang up|aborted|premature close|terminated/i.test(message)) {
    return fail('WAGGLE_STORE_CONNECTION_LOST', message);
  }
  if (/timeout error/i.test(message)) return fail('WAGGLE_STORE_TIMEOUT', message);
  return fail('WAGGLE_STORE_QUERY', message);
}

/** ClickHouse's exception code, from the client's error or from the text. */
export function codeOf(thrown: unknown): number | undefined {
  const fields = thrown as { clickhouseCode?: unknown; code?: unknown } | null;
  if (typeof fields?.clickhouseCode === 'number') return fields.clickhouseCode;
  if (typeof fields?.code === 'string' && /^\d+$/.test(fields.code)) return Number(fields.code);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const match = /Code: (\d+)\. DB::/.exec(message);
  return match === null ? undefined : Number(match[1]);
}

function refine(code: number, message: string): StoreCode {
  if (/No space left on device|not enough space/i.test(message)) return 'WAGGLE_STORE_DISK_FULL';
  if (/Read-only file system|Permission denied/i.test(message)) return 'WAGGLE_STORE_READ_ONLY';
  if (code === 117 && /Unknown field/i.test(message)) return 'WAGGLE_STORE_UNKNOWN_COLUMN';
  return CODES[code] ?? 'WAGGLE_STORE_QUERY';
}

/** Removes what ClickHouse repeats: nested prefixes and version notes. */
function tidy(message: string): string {
  return message
    .replace(/(Code: \d+\. DB::Exception: )+/g, (all) =>
      all.slice(0, all.indexOf('Exception: ') + 11),
    )
    .replace(/ \(version [^)]*\)\.?( \([A-Z_]+\))?/g, '')
    .trim();
}
