import { parseConfig } from '@waggle/core';
import { type Static, Type } from 'typebox';
import { modelsError } from '../errors.js';

const strict = { additionalProperties: false } as const;
export const NAME_PATTERN = '^[a-z][a-z0-9_-]{0,63}$';
const FILE_PATTERN = '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$';
const Time = Type.String({ pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$' });

/** Where a model came from: enough to make it again and to know what it may be compared with. */
export const Lineage = Type.Object(
  {
    /** First and last event it learnt from. */
    dataRange: Type.Object({ from: Time, to: Time }, strict),
    featureSetFingerprint: Type.String({ minLength: 1, maxLength: 256 }),
    codeVersion: Type.String({ minLength: 1, maxLength: 256 }),
    metrics: Type.Record(Type.String(), Type.Union([Type.Number(), Type.Null()])),
    parameters: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  strict,
);

const Artifact = Type.Object(
  { sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }), bytes: Type.Integer({ minimum: 0 }) },
  strict,
);

export const Manifest = Type.Object(
  {
    manifestVersion: Type.Literal(1),
    name: Type.String({ pattern: NAME_PATTERN }),
    /** `name@` and 12 hex digits of the hash of artifacts and lineage. */
    version: Type.String({ pattern: '^[a-z][a-z0-9_-]{0,63}@[0-9a-f]{12}$' }),
    createdAt: Time,
    lineage: Lineage,
    artifacts: Type.Record(Type.String({ pattern: FILE_PATTERN }), Artifact),
  },
  strict,
);

export const Promotion = Type.Object(
  {
    sequence: Type.Integer({ minimum: 1 }),
    name: Type.String({ pattern: NAME_PATTERN }),
    version: Type.String(),
    /** Version that was active before, '' at first. */
    previous: Type.String(),
    at: Time,
    /** Who or what decided, and on what ground. */
    by: Type.String({ maxLength: 256 }),
    reason: Type.String({ maxLength: 4096 }),
  },
  strict,
);

export type ModelLineage = Static<typeof Lineage>;
export type ArtifactRef = Static<typeof Artifact>;
export type ModelManifest = Static<typeof Manifest>;
export type PromotionRecord = Static<typeof Promotion>;

/** @throws WAGGLE_MODEL_CORRUPT naming the file */
export function parseStored<T extends typeof Manifest | typeof Promotion>(
  schema: T,
  bytes: Uint8Array,
  path: string,
): Readonly<Static<T>> {
  try {
    return parseConfig(
      schema,
      JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)),
      path,
    );
  } catch (cause) {
    throw modelsError('WAGGLE_MODEL_CORRUPT', `${path}: ${(cause as Error).message}`, {
      cause,
      details: { path },
    });
  }
}

/** JSON with sorted keys: equal content has equal bytes. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).filter(([, each]) => each !== undefined);
    entries.sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, each]) => `${JSON.stringify(key)}:${canonicalJson(each)}`).join(',')}}`;
  }
  return JSON.stringify(value) ?? 'null';
}
