import { hash, timingSafeEqual } from 'node:crypto';
import { coreError, isId } from '@waggle/core';
import type { onRequestHookHandler } from 'fastify';
import { gatewayError } from './errors.js';
import type { ServedRelease } from './ports.js';

export const MIN_KEY_LENGTH = 16;

export interface ApiKey {
  /** SHA-256 of the key; the key itself is not kept. */
  readonly digest: Buffer;
  readonly tenantId: string;
}

/**
 * Reads `key:tenant[,key:tenant…]`. Messages give positions, never the keys.
 * @throws WAGGLE_CONFIG_INVALID
 */
export function parseApiKeys(text: string): ApiKey[] {
  if (text.trim() === '') return [];
  const seen = new Set<string>();
  return text.split(',').map((entry, index) => {
    const invalid = (why: string) =>
      coreError('WAGGLE_CONFIG_INVALID', `WAGGLE_API_KEYS: entry ${index + 1} ${why}`, {
        remedy: `Use key:tenant[,key:tenant…] with keys of at least ${MIN_KEY_LENGTH} printable characters.`,
      });
    const trimmed = entry.trim();
    const colon = trimmed.indexOf(':');
    if (colon < 0) throw invalid('has no ":tenant"');
    const key = trimmed.slice(0, colon);
    const tenantId = trimmed.slice(colon + 1);
    if (key.length < MIN_KEY_LENGTH)
      throw invalid(`has a key shorter than ${MIN_KEY_LENGTH} characters`);
    if (!/^[\x21-\x7e]+$/.test(key))
      throw invalid('has a key with characters outside printable ASCII');
    if (!isId(tenantId)) throw invalid('has a tenant that is not an id');
    if (seen.has(key)) throw invalid('repeats a key');
    seen.add(key);
    return { digest: sha256(key), tenantId };
  });
}

function sha256(text: string): Buffer {
  return hash('sha256', text, 'buffer');
}

/** The tenant that a bearer key belongs to. Compares digests, all of them, in constant time. */
export function tenantOfKey(
  keys: readonly ApiKey[],
  authorization: string | undefined,
): string | undefined {
  if (authorization === undefined || !/^bearer /i.test(authorization)) return undefined;
  const digest = sha256(authorization.slice(7).trim());
  let found: string | undefined;
  for (const key of keys) if (timingSafeEqual(key.digest, digest)) found = key.tenantId;
  return found;
}

/** Puts the tenant on the request, or refuses it. Without keys (loopback) every request is the default tenant's. */
export function tenantHook(keys: readonly ApiKey[], defaultTenantId: string): onRequestHookHandler {
  if (keys.length === 0) {
    return (request, _reply, done) => {
      request.tenantId = defaultTenantId;
      done();
    };
  }
  return (request, reply, done) => {
    const tenantId = tenantOfKey(keys, request.headers.authorization);
    if (tenantId === undefined) {
      reply.header('www-authenticate', 'Bearer realm="waggle"');
      done(gatewayError('WAGGLE_UNAUTHORIZED', 'a valid API key is required'));
      return;
    }
    request.tenantId = tenantId;
    done();
  };
}

/** @throws WAGGLE_TENANT_FORBIDDEN when the release is another tenant's */
export function checkServed(release: ServedRelease, tenantId: string): void {
  if (release.tenantId !== undefined && release.tenantId !== tenantId) {
    throw gatewayError('WAGGLE_TENANT_FORBIDDEN', 'the active release does not serve this tenant');
  }
}

/** @throws WAGGLE_TENANT_FORBIDDEN when the body names another tenant than the key's */
export function checkTenant(named: string | undefined, tenantId: string): void {
  if (named !== undefined && named !== tenantId) {
    throw gatewayError(
      'WAGGLE_TENANT_FORBIDDEN',
      `this request may only speak for tenant ${tenantId}`,
    );
  }
}
