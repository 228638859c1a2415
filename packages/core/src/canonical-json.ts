import { coreError } from './errors.js';

/**
 * JSON with sorted object keys and no spaces: equal content gives equal bytes, so a hash can name it.
 * Keys whose value is undefined are left out. O(n log n) in the number of keys.
 * @throws WAGGLE_INVALID_ARGUMENT for NaN, infinities and values JSON cannot carry
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') {
    return JSON.stringify(value);
  }
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return JSON.stringify(value);
  } else if (Array.isArray(value)) {
    return `[${value.map((item) => canonicalJson(item === undefined ? null : item)).join(',')}]`;
  } else if (typeof value === 'object') {
    const record = value as Record<string, unknown>;
    const parts: string[] = [];
    for (const key of Object.keys(record).sort()) {
      if (record[key] !== undefined) {
        parts.push(`${JSON.stringify(key)}:${canonicalJson(record[key])}`);
      }
    }
    return `{${parts.join(',')}}`;
  }
  throw coreError('WAGGLE_INVALID_ARGUMENT', `${String(value)} (${typeof value}) has no JSON form`);
}
