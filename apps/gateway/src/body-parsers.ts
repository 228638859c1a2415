import { isUtf8 } from 'node:buffer';
import { hash } from 'node:crypto';
import { EVENTS_LIMITS } from '@waggle/core/contract';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { gatewayError } from './errors.js';

/**
 * Parsers that refuse what Node and JSON.parse would let through: invalid UTF-8 (replaced silently),
 * unpaired surrogate escapes (which no UTF-8 consumer downstream can store), `__proto__` keys, other
 * charsets and compressed bodies.
 */
export function registerJsonParser(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser<Buffer>(
    'application/json',
    { parseAs: 'buffer' },
    (request, body, done) => {
      const text = decodeBody(request, body);
      if (body.length > 0 && MAYBE_SURROGATE.test(text)) {
        const value = parseStrictly(parseJson, request, text, 'the body');
        checkWellFormed(value, 'the body');
        done(null, value);
        return;
      }
      void parseJson(request, text, done);
    },
  );
}

/** NDJSON becomes the same `{ events: […] }` that JSON bodies carry; event i is line i of the non-empty lines. */
export function registerNdjsonParser(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser('error', 'error');
  const parse = (
    request: FastifyRequest,
    body: Buffer,
    done: (error: Error | null, value?: unknown) => void,
  ) => {
    let events: unknown[];
    try {
      events = parseLines(parseJson, request, decodeBody(request, body));
    } catch (error) {
      done(error as Error);
      return;
    }
    done(null, { events });
  };
  for (const type of ['application/x-ndjson', 'application/ndjson']) {
    app.addContentTypeParser<Buffer>(type, { parseAs: 'buffer' }, parse);
  }
}

type JsonParser = ReturnType<FastifyInstance['getDefaultJsonParser']>;

function parseLines(parseJson: JsonParser, request: FastifyRequest, text: string): unknown[] {
  const events: unknown[] = [];
  let number = 0;
  for (let start = 0; start < text.length; ) {
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline;
    number++;
    const line = text.slice(start, end).trim();
    start = end + 1;
    if (line === '') continue;
    if (events.length === EVENTS_LIMITS.maxEvents) {
      throw gatewayError(
        'WAGGLE_REQUEST_TOO_LARGE',
        `more than ${EVENTS_LIMITS.maxEvents} events in one request`,
      );
    }
    const value = parseStrictly(parseJson, request, line, `line ${number}`);
    if (MAYBE_SURROGATE.test(line)) checkWellFormed(value, `line ${number}`);
    events.push(value);
  }
  return events;
}

function parseStrictly(
  parseJson: JsonParser,
  request: FastifyRequest,
  text: string,
  where: string,
): unknown {
  let value: unknown;
  let failed = false;
  void parseJson(request, text, (error, parsed) => {
    failed = error !== null;
    value = parsed;
  });
  if (failed) throw gatewayError('WAGGLE_REQUEST_MALFORMED', `${where} is not valid JSON`);
  return value;
}

function decodeBody(request: FastifyRequest, body: Buffer): string {
  const { headers } = request;
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw gatewayError(
      'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
      `content encoding ${encoding.slice(0, 40)} is not accepted`,
      {
        remedy: 'Send the body uncompressed.',
      },
    );
  }
  const charset = /;\s*charset\s*=\s*"?([^";\s]+)/i.exec(headers['content-type'] ?? '')?.[1];
  if (charset !== undefined && !/^utf-?8$/i.test(charset)) {
    throw gatewayError(
      'WAGGLE_MEDIA_TYPE_UNSUPPORTED',
      `charset ${charset.slice(0, 40)} is not accepted`,
      {
        remedy: 'Encode the body as UTF-8.',
      },
    );
  }
  if (!isUtf8(body)) throw gatewayError('WAGGLE_REQUEST_ENCODING', 'the body is not valid UTF-8');
  if (headers['idempotency-key'] !== undefined)
    request.bodyDigest = hash('sha256', body, 'base64url');
  return body.toString('utf8');
}

/** With the `u` flag a pair is one code point of another category. */
const UNPAIRED_SURROGATE = /\p{Cs}/u;

/** A surrogate escape, paired or not; raw surrogates cannot occur in valid UTF-8. */
const MAYBE_SURROGATE = /\\u[dD][89a-fA-F]/;

function checkWellFormed(value: unknown, where: string): void {
  const pending: unknown[] = [value];
  while (pending.length > 0) {
    const next = pending.pop();
    if (typeof next === 'string') {
      if (UNPAIRED_SURROGATE.test(next)) {
        throw gatewayError(
          'WAGGLE_REQUEST_ENCODING',
          `${where} has a string with an unpaired surrogate`,
        );
      }
    } else if (typeof next === 'object' && next !== null) {
      for (const [key, item] of Object.entries(next)) pending.push(key, item);
    }
  }
}
