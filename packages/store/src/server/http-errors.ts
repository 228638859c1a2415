import { isWaggleError } from '@waggle/core';
import { codeOf } from '../clickhouse-errors.js';

/** HTTP status of ClickHouse's exception codes (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp). */
const STATUS: Readonly<Record<number, number>> = {
  194: 401,
  192: 403,
  193: 403,
  497: 403,
  511: 403,
  516: 403,
  // Parse errors and bad arguments.
  6: 400,
  26: 400,
  27: 400,
  36: 400,
  38: 400,
  41: 400,
  43: 400,
  53: 400,
  62: 400,
  63: 400,
  70: 400,
  72: 400,
  117: 400,
  130: 400,
  131: 400,
  161: 400,
  354: 400,
  377: 400,
  456: 400,
  457: 400,
  610: 400,
  // Unknown things.
  46: 404,
  47: 404,
  50: 404,
  56: 404,
  60: 404,
  73: 404,
  81: 404,
  115: 404,
  372: 404,
  159: 408,
  307: 413,
  373: 500,
  48: 501,
  202: 503,
  209: 503,
  236: 503,
};

/** ClickHouse codes for failures that Waggle found by itself. */
const WAGGLE_CODES: Readonly<Record<string, [number, string]>> = {
  WAGGLE_STORE_DISK_FULL: [243, 'NOT_ENOUGH_SPACE'],
  WAGGLE_STORE_READ_ONLY: [242, 'TABLE_IS_READ_ONLY'],
  WAGGLE_STORE_CLOSED: [236, 'ABORTED'],
  WAGGLE_STORE_ABORTED: [394, 'QUERY_WAS_CANCELLED'],
  WAGGLE_STORE_TIMEOUT: [159, 'TIMEOUT_EXCEEDED'],
};

export interface HttpException {
  readonly status: number;
  readonly code: number;
  /** `Code: 62. DB::Exception: … (SYNTAX_ERROR)`, one line end included. */
  readonly body: string;
}

/** An error in ClickHouse's own shape, for the status line, the headers and the body. */
export function toHttpException(thrown: unknown, version: string): HttpException {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const own = isWaggleError(thrown) ? WAGGLE_CODES[thrown.code] : undefined;
  const code = own?.[0] ?? codeOf(thrown) ?? 1002;
  const text = /^Code: \d+\. DB::/.test(message)
    ? message
    : `Code: ${code}. DB::Exception: ${message}. (${own?.[1] ?? 'UNKNOWN_EXCEPTION'})`;
  const suffix = /\(version [^)]*\)/.test(text) ? '' : ` (version ${version})`;
  return { status: STATUS[code] ?? 500, code, body: `${text.trimEnd()}${suffix}\n` };
}

/** An error with one of ClickHouse's codes. */
export function exception(code: number, type: string, message: string): Error {
  return new Error(`Code: ${code}. DB::Exception: ${message}. (${type})`);
}
