import { isReleaseId } from './manifest.js';

/** One line of `promotions.ndjson`: which release became active, when, and how. */
export interface Promotion {
  /** RFC 3339 by the store's clock. */
  readonly at: string;
  readonly action: 'activate' | 'rollback';
  readonly id: string;
  /** The release that was active before; null for the first. */
  readonly from: string | null;
}

/** Reads the history; a line that a crash tore is passed to `onTorn` and skipped. */
export function parseHistory(text: string, onTorn: (line: string) => void): Promotion[] {
  const out: Promotion[] = [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const entry = parseLine(line);
    if (entry === undefined) onTorn(line);
    else out.push(entry);
  }
  return out;
}

function parseLine(line: string): Promotion | undefined {
  try {
    const value = JSON.parse(line) as Partial<Promotion> | null;
    const known = value?.action === 'activate' || value?.action === 'rollback';
    return known && isReleaseId(value.id) ? (value as Promotion) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The releases below the active one, nearest first: where a rollback may go. An activation pushes, a
 * rollback pops, so rolling back twice goes back two releases instead of to and fro.
 */
export function rollbackTargets(history: readonly Promotion[], active: string): string[] {
  const stack: string[] = [];
  for (const { action, id } of history) {
    const at = stack.lastIndexOf(id);
    if (action === 'rollback' && at >= 0) stack.length = at + 1;
    else if (stack.at(-1) !== id) stack.push(id);
  }
  // The pointer is the truth: an entry above it was written by a promotion that did not finish.
  const top = stack.lastIndexOf(active);
  if (top >= 0) stack.length = top;
  return [...new Set(stack.reverse())].filter((id) => id !== active);
}
