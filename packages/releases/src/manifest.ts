import { createHash } from 'node:crypto';
import { canonicalJson } from '@waggle/core';
import { releaseError } from './errors.js';

export interface ReleaseFile {
  readonly section: string;
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** What a release is made of. The id is the hash of everything but `createdAt`. */
export interface ReleaseManifest {
  readonly format: 1;
  /** `rel_` and the first 16 hex digits of the SHA-256 of {format, lineage, files}. */
  readonly id: string;
  /** When this content was first stored, RFC 3339; not part of the id. */
  readonly createdAt: string;
  /** What it was made from: data range, model versions, fingerprints, code version, gate numbers. */
  readonly lineage: Readonly<Record<string, unknown>>;
  /** Sorted by section, then file. */
  readonly files: readonly ReleaseFile[];
}

const FORMAT = 1;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const ID = /^rel_[0-9a-f]{16}$/;

export function isReleaseId(value: unknown): value is string {
  return typeof value === 'string' && ID.test(value);
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** @throws WAGGLE_RELEASE_NAME */
export function checkName(name: string, what: 'section' | 'file'): void {
  if (!NAME.test(name)) {
    throw releaseError(
      'WAGGLE_RELEASE_NAME',
      `${what} name ${JSON.stringify(name)} is not allowed`,
    );
  }
}

function contentId(lineage: unknown, files: readonly ReleaseFile[]): string {
  const content = canonicalJson({ format: FORMAT, lineage, files });
  return `rel_${sha256(Buffer.from(content)).slice(0, 16)}`;
}

export function makeManifest(
  lineage: Record<string, unknown>,
  files: ReleaseFile[],
  createdAt: string,
): ReleaseManifest {
  const sorted = [...files].sort(
    (a, b) => compareText(a.section, b.section) || compareText(a.file, b.file),
  );
  return { format: FORMAT, id: contentId(lineage, sorted), createdAt, lineage, files: sorted };
}

/** By code units, so that the order does not depend on the locale. */
function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** No newline at the end: a manifest cut anywhere is not JSON any more. */
export function encodeManifest(manifest: ReleaseManifest): Uint8Array {
  return Buffer.from(JSON.stringify(manifest, null, 2));
}

/**
 * Reads and checks a manifest against the id of its folder.
 * @throws WAGGLE_RELEASE_CORRUPT, WAGGLE_RELEASE_FORMAT
 */
export function decodeManifest(bytes: Uint8Array, id: string): ReleaseManifest {
  const corrupt = (why: string, cause?: unknown) =>
    releaseError('WAGGLE_RELEASE_CORRUPT', `release ${id}: manifest ${why}`, {
      details: { release: id },
      ...(cause === undefined ? {} : { cause }),
    });
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw corrupt('is not JSON', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw corrupt('is not an object');
  }
  const m = value as Record<string, unknown>;
  if (m['format'] !== FORMAT) {
    throw releaseError(
      'WAGGLE_RELEASE_FORMAT',
      `release ${id}: format ${JSON.stringify(m['format'])}, this build reads ${FORMAT}`,
      { details: { release: id } },
    );
  }
  if (typeof m['lineage'] !== 'object' || m['lineage'] === null) throw corrupt('has no lineage');
  if (typeof m['createdAt'] !== 'string') throw corrupt('has no creation time');
  if (!Array.isArray(m['files']) || !m['files'].every(isReleaseFile)) {
    throw corrupt('has no valid list of files');
  }
  const manifest = value as ReleaseManifest;
  if (manifest.id !== id || contentId(manifest.lineage, manifest.files) !== id) {
    throw corrupt('does not hash to its id');
  }
  return manifest;
}

function isReleaseFile(value: unknown): value is ReleaseFile {
  if (typeof value !== 'object' || value === null) return false;
  const f = value as Record<string, unknown>;
  return (
    typeof f['section'] === 'string' &&
    NAME.test(f['section']) &&
    typeof f['file'] === 'string' &&
    NAME.test(f['file']) &&
    Number.isSafeInteger(f['bytes']) &&
    typeof f['sha256'] === 'string'
  );
}
