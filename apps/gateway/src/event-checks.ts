import { parseTimestampMs } from '@waggle/core';
import { checkTenant } from './auth.js';
import { gatewayError } from './errors.js';
import { kindOfType } from './event-contract.js';
import type { CatalogKind, PostedEvent, ServedRelease } from './ports.js';

/** An event that matches its schema; what the schema cannot say is checked here. */
export interface ShapedEvent {
  readonly type: string;
  readonly event_id: string;
  tenant_id?: string;
  readonly ts: string;
  readonly [field: string]: unknown;
}

const ENTITY_FIELDS: readonly { field: string; kind: CatalogKind }[] = [
  { field: 'publication_id', kind: 'publication' },
  { field: 'campaign_id', kind: 'campaign' },
  { field: 'creative_id', kind: 'creative' },
  { field: 'recommended_creative_id', kind: 'creative' },
];

const EARLIEST_MS = Date.UTC(2000, 0, 1);
/** `expires_at` and the like lie ahead of the event itself. */
const LATEST_OTHER_MS = Date.UTC(2200, 0, 1);

/**
 * All or nothing: the first event that is wrong refuses the request, by its index.
 * @throws WAGGLE_TENANT_FORBIDDEN, WAGGLE_EVENT_TIME_INVALID, WAGGLE_EVENT_ENTITY_UNKNOWN, WAGGLE_EVENT_CONFLICT
 */
export function checkEvents(
  events: readonly ShapedEvent[],
  o: { tenantId: string; release: ServedRelease; latestMs: number },
): PostedEvent[] {
  const rows: PostedEvent[] = [];
  /** By type and id, as the journal knows events. */
  const byId = new Map<string, ShapedEvent>();
  for (let index = 0; index < events.length; index++) {
    const event = events[index]!;
    checkTenant(event.tenant_id, o.tenantId);
    event.tenant_id = o.tenantId;
    checkTimes(event, index, o.latestMs);
    checkEntities(event, index, o.release);
    const key = `${event.type}\u0000${event.event_id}`;
    const twin = byId.get(key);
    if (twin !== undefined && !sameFields(twin, event)) {
      throw gatewayError(
        'WAGGLE_EVENT_CONFLICT',
        `events/${index} repeats the id ${event.event_id} with other content`,
        {
          details: { index, event_id: event.event_id },
        },
      );
    }
    byId.set(key, event);
    rows.push({ kind: kindOfType(event.type), row: event });
  }
  return rows;
}

function checkTimes(event: ShapedEvent, index: number, latestMs: number): void {
  checkTime(event.ts, 'ts', index, latestMs);
  const expires = event['expires_at'];
  if (typeof expires === 'string') checkTime(expires, 'expires_at', index, LATEST_OTHER_MS);
}

function checkTime(text: string, field: string, index: number, latestMs: number): void {
  const ms = parseTimestampMs(text);
  const problem =
    ms === undefined
      ? 'is not a date on the calendar'
      : ms < EARLIEST_MS
        ? 'is before the year 2000'
        : ms > latestMs
          ? 'is too far in the future'
          : undefined;
  if (problem !== undefined) {
    throw gatewayError(
      'WAGGLE_EVENT_TIME_INVALID',
      `events/${index}/${field} ${problem}: ${text}`,
      {
        details: { index, field, latest: new Date(latestMs).toISOString() },
      },
    );
  }
}

function checkEntities(event: ShapedEvent, index: number, release: ServedRelease): void {
  for (const { field, kind } of ENTITY_FIELDS) {
    const id = event[field];
    if (typeof id !== 'string' || id === '' || release.knows(kind, id)) continue;
    throw gatewayError(
      'WAGGLE_EVENT_ENTITY_UNKNOWN',
      `events/${index}/${field}: unknown ${kind} ${id}`,
      {
        details: { index, field, id, release: release.id },
      },
    );
  }
}

/** Events are flat: scalars only. */
function sameFields(a: ShapedEvent, b: ShapedEvent): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}
