import {
  coreError,
  defineErrors,
  type ErrorCode,
  isWaggleError,
  type WaggleError,
} from '@waggle/core';

const gateway = defineErrors({
  WAGGLE_REQUEST_MALFORMED: {
    summary: 'The request body is not the JSON (or NDJSON) that its content type promises.',
    remedy: 'Send one JSON document (or one JSON object per line) with a matching Content-Type.',
  },
  WAGGLE_REQUEST_ENCODING: {
    summary: 'The request body is not valid UTF-8, or a string in it is not valid Unicode.',
    remedy: 'Encode the body as UTF-8; surrogate escapes must come in pairs.',
  },
  WAGGLE_REQUEST_INVALID: {
    summary: 'The request does not match the contract.',
    remedy: 'Correct the named field; GET /openapi.json has the full schema and its limits.',
  },
  WAGGLE_REQUEST_TOO_LARGE: {
    summary: 'The request body or its headers are larger than the stated limit.',
    remedy: 'Split the request; the limits are in GET /openapi.json.',
  },
  WAGGLE_REQUEST_TIMEOUT: {
    summary: 'The client did not finish sending its request in time.',
    remedy: 'Send the whole request at once; retry it with the same Idempotency-Key.',
  },
  WAGGLE_MEDIA_TYPE_UNSUPPORTED: {
    summary: 'The content type of the body is not accepted by this route.',
    remedy:
      'Send Content-Type: application/json (POST /v1/events also takes application/x-ndjson).',
  },
  WAGGLE_ROUTE_UNKNOWN: {
    summary: 'No route has this path.',
    remedy: 'Check the path; GET /openapi.json lists the routes.',
  },
  WAGGLE_METHOD_NOT_ALLOWED: {
    summary: 'The path exists, with other methods.',
    remedy: 'Use one of the methods in the Allow header.',
  },
  WAGGLE_UNAUTHORIZED: {
    summary: 'The API key is missing or unknown.',
    remedy: 'Send Authorization: Bearer <key> with a key from WAGGLE_API_KEYS.',
  },
  WAGGLE_TENANT_FORBIDDEN: {
    summary:
      'The request names a tenant that its API key does not belong to, or the active release is another tenant’s.',
    remedy: "Leave tenant_id out, or use that tenant's own key.",
  },
  WAGGLE_TENANT_CHANGED: {
    summary: 'The active release is of another tenant than the one that the gateway serves.',
    remedy:
      'Activate a release of the same tenant, or restart the gateway to serve the other one; two at once need a gateway and a folder each.',
  },
  WAGGLE_IDEMPOTENCY_CONFLICT: {
    summary: 'The Idempotency-Key was used within 24 hours with a different body.',
    remedy: 'Use a new key for a new request; repeat a request with exactly the same bytes.',
  },
  WAGGLE_IDEMPOTENCY_KEY_INVALID: {
    summary: 'The Idempotency-Key header is empty, too long or not printable ASCII.',
    remedy: 'Use 1 to 255 printable ASCII characters; a UUID is a good key.',
  },
  WAGGLE_IDEMPOTENCY_UNREADABLE: {
    summary: 'The stored answer of this Idempotency-Key cannot be read from the disk.',
    remedy: 'Check the disk of the data directory, then repeat the request with the same key.',
  },
  WAGGLE_UNKNOWN_CAMPAIGN: {
    summary: 'The release that is served does not know the campaign.',
    remedy:
      'Check the id; a campaign has a budget here after the first release built since it was ingested.',
  },
  WAGGLE_EVENT_ENTITY_UNKNOWN: {
    summary:
      'An event names a publication, campaign or creative that the active release does not know.',
    remedy:
      'Load the entity, build and activate a release that contains it, then post the event again.',
  },
  WAGGLE_EVENT_TIME_INVALID: {
    summary: 'An event carries a time that is not on the calendar, too old, or in the future.',
    remedy: 'Send times in UTC as RFC 3339, from 2000-01-01 to a day ahead of now.',
  },
  WAGGLE_EVENT_CONFLICT: {
    summary:
      'An event has the type and event_id of another one, of the same request or of a recent one, and other content.',
    remedy:
      'Give each event of a type an id of its own; only an exact repeat may reuse one. Nothing of the request was accepted.',
  },
  WAGGLE_NOT_READY: {
    summary: 'The gateway has no active release to serve.',
    remedy: 'Run `waggle run` or activate a release with `waggle release`; then retry.',
  },
  WAGGLE_OVERLOADED: {
    summary:
      'The gateway is over its load limit and refuses work that it could not answer in time.',
    remedy:
      'Retry after the seconds in Retry-After; if it stays, give the gateway more cores or send less.',
  },
  WAGGLE_PORT_IN_USE: {
    summary: 'Another process listens on the port.',
    remedy: 'Stop that process, or choose another port with --port or WAGGLE_PORT.',
  },
  WAGGLE_BIND_FAILED: {
    summary: 'The gateway cannot listen on the given address.',
    remedy: 'Choose an address of this machine and a port that this user may open.',
  },
  WAGGLE_BIND_REFUSED: {
    summary: 'A non-loopback address was asked for without API keys.',
    remedy: 'Set WAGGLE_API_KEYS=key:tenant[,key:tenant…], or bind to 127.0.0.1.',
  },
});

export const gatewayErrors = gateway.specs;
export const gatewayError = gateway.error;

/**
 * The only place where codes become HTTP statuses. A code that is not here is our fault: 500.
 * Codes of other packages are listed when a request can cause them.
 */
export const STATUS_BY_CODE: Readonly<Record<ErrorCode, number>> = {
  WAGGLE_REQUEST_MALFORMED: 400,
  WAGGLE_REQUEST_ENCODING: 400,
  WAGGLE_REQUEST_INVALID: 400,
  WAGGLE_IDEMPOTENCY_KEY_INVALID: 400,
  WAGGLE_UNAUTHORIZED: 401,
  WAGGLE_TENANT_FORBIDDEN: 403,
  WAGGLE_ROUTE_UNKNOWN: 404,
  WAGGLE_METHOD_NOT_ALLOWED: 405,
  WAGGLE_REQUEST_TIMEOUT: 408,
  WAGGLE_IDEMPOTENCY_CONFLICT: 409,
  WAGGLE_EVENT_CONFLICT: 409,
  WAGGLE_PIN_UNKNOWN: 409,
  WAGGLE_LEDGER_CONFLICT: 409,
  WAGGLE_REQUEST_TOO_LARGE: 413,
  WAGGLE_MEDIA_TYPE_UNSUPPORTED: 415,
  WAGGLE_EVENT_ENTITY_UNKNOWN: 422,
  WAGGLE_EVENT_TIME_INVALID: 422,
  WAGGLE_UNKNOWN_CAMPAIGN: 422,
  WAGGLE_UNKNOWN_PUBLICATION: 422,
  WAGGLE_UNKNOWN_CANDIDATES: 422,
  WAGGLE_RANK_INVALID: 422,
  WAGGLE_WAL_RECORD_TOO_LARGE: 413,
  WAGGLE_NOT_READY: 503,
  WAGGLE_NO_ACTIVE_RELEASE: 503,
  WAGGLE_DEADLINE_EXCEEDED: 504,
  // Nothing was acknowledged; the same request may be sent again once the disk is well.
  WAGGLE_DECISION_NOT_RECORDED: 503,
  WAGGLE_IDEMPOTENCY_UNREADABLE: 503,
  WAGGLE_WAL_DISK_FULL: 503,
  WAGGLE_WAL_READ_ONLY: 503,
  WAGGLE_WAL_IO: 503,
  WAGGLE_WAL_LOCKED: 503,
  WAGGLE_WAL_CLOSED: 503,
  WAGGLE_LEDGER_CLOSED: 503,
  WAGGLE_ABORTED: 503,
  WAGGLE_OVERLOADED: 503,
};

/** Statuses whose answers carry Retry-After. */
export const RETRY_AFTER_SECONDS = 1;

export function statusOf(code: ErrorCode): number {
  return Object.hasOwn(STATUS_BY_CODE, code) ? STATUS_BY_CODE[code]! : 500;
}

interface SchemaProblem {
  readonly instancePath?: string;
  readonly keyword?: string;
  readonly message?: string;
  readonly params?: Readonly<Record<string, unknown>>;
}

/** What Fastify, its parsers and its validator throw, as far as we read it. */
interface FrameworkError {
  readonly code?: string;
  readonly statusCode?: number;
  readonly message?: string;
  readonly validation?: readonly SchemaProblem[];
  readonly validationContext?: string;
}

/** Fastify's own codes, translated; its messages are about its API, ours about the request. */
const FRAMEWORK: Readonly<Record<string, (error: FrameworkError) => WaggleError>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: () =>
    gatewayError('WAGGLE_REQUEST_TOO_LARGE', 'the body is larger than the limit of this route'),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () =>
    gatewayError(
      'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
      'the content type of the body is not accepted here',
    ),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () =>
    gatewayError(
      'WAGGLE_REQUEST_MALFORMED',
      'the body does not have the length that Content-Length says',
    ),
  FST_ERR_CTP_EMPTY_JSON_BODY: () => gatewayError('WAGGLE_REQUEST_MALFORMED', 'the body is empty'),
  FST_ERR_CTP_INVALID_JSON_BODY: () =>
    gatewayError('WAGGLE_REQUEST_MALFORMED', 'the body is not valid JSON'),
  FST_ERR_BAD_URL: () => gatewayError('WAGGLE_ROUTE_UNKNOWN', 'the path is not a valid URL'),
};

const MAX_PROBLEMS = 5;

function describeProblem(problem: SchemaProblem, context: string): string {
  const path = `${context}${problem.instancePath ?? ''}`;
  const params = problem.params ?? {};
  switch (problem.keyword) {
    case 'additionalProperties':
      return `${path} has an unknown field "${String(params['additionalProperty']).slice(0, 80)}"`;
    case 'required':
      return `${path} lacks the field "${String(params['missingProperty'])}"`;
    case 'enum':
      return `${path} must be one of ${JSON.stringify(params['allowedValues'])}`;
    case 'const':
      return `${path} must be ${JSON.stringify(params['allowedValue'])}`;
    case 'discriminator':
      return `${path} has an unknown or missing "${String(params['tag'])}": ${JSON.stringify(params['tagValue'])?.slice(0, 80)}`;
    default:
      return `${path} ${problem.message ?? 'is invalid'}`;
  }
}

function schemaError(error: FrameworkError): WaggleError {
  const context = error.validationContext ?? 'body';
  const all = error.validation ?? [];
  // A union reports each branch and then itself; the branches say what is allowed.
  const problems = all
    .filter((p, _i, list) => !(p.keyword === 'anyOf' && list.length > 1))
    .slice(0, MAX_PROBLEMS)
    .map((p) => ({
      path: `/${context}${p.instancePath ?? ''}`,
      problem: describeProblem(p, context),
    }));
  return gatewayError('WAGGLE_REQUEST_INVALID', problems.map((p) => p.problem).join('; '), {
    details: { problems },
  });
}

/** Turns whatever a handler, hook, parser or the framework raised into a coded error. */
export function toGatewayError(thrown: unknown): WaggleError {
  if (isWaggleError(thrown)) return thrown;
  const error = (thrown ?? {}) as FrameworkError;
  if (error.validation !== undefined) return schemaError(error);
  const translate = error.code === undefined ? undefined : FRAMEWORK[error.code];
  if (translate !== undefined) return translate(error);
  if (thrown instanceof SyntaxError && error.statusCode === 400) {
    return gatewayError(
      'WAGGLE_REQUEST_MALFORMED',
      `the body is not valid JSON: ${clip(thrown.message)}`,
    );
  }
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) {
    return gatewayError(
      'WAGGLE_REQUEST_MALFORMED',
      clip(error.message ?? 'the request is not acceptable'),
    );
  }
  // The client learns no internals; the log has the cause.
  return coreError(
    'WAGGLE_INTERNAL',
    'an internal error occurred; the request had no further effect',
    {
      cause: thrown,
    },
  );
}

function clip(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
