import {
  EVENT_TABLES,
  EVENT_TYPE_TO_KIND,
  EVENTS_LIMITS,
  type EventKind,
  POSTABLE_EVENT_KINDS,
} from '@waggle/core/contract';
import { type TSchema, Type } from 'typebox';

/** Types that `POST /v1/events` takes, in the contract's order. */
export const POSTABLE_TYPES: readonly string[] = Object.entries(EVENT_TYPE_TO_KIND)
  .filter(([, kind]) => POSTABLE_EVENT_KINDS.includes(kind))
  .map(([type]) => type);

export function kindOfType(type: string): EventKind {
  return EVENT_TYPE_TO_KIND[type]!;
}

/**
 * The body of `POST /v1/events`. The contract has one schema per table; here each type gets a branch of its
 * own under a discriminator, so that validation looks at one branch and an error names one field instead of
 * every branch that did not fit. The tenant may be left out: it is the key's.
 */
export function eventsRequestSchema(): TSchema {
  const branches = POSTABLE_TYPES.map((type) => {
    const { schema } = EVENT_TABLES[kindOfType(type) as keyof typeof EVENT_TABLES];
    const { tenant_id, type: _union, ...rest } = schema.properties as Record<string, TSchema>;
    return Type.Object(
      { type: Type.Literal(type), tenant_id: Type.Optional(tenant_id!), ...optional(rest) },
      { additionalProperties: false },
    );
  });
  const event = Type.Unsafe({
    type: 'object',
    required: ['type'],
    discriminator: { propertyName: 'type' },
    oneOf: branches,
  });
  return Type.Object(
    { events: Type.Array(event, { minItems: 1, maxItems: EVENTS_LIMITS.maxEvents }) },
    { additionalProperties: false },
  );
}

/** What has a default may be left out. */
function optional(properties: Readonly<Record<string, TSchema>>): Record<string, TSchema> {
  return Object.fromEntries(
    Object.entries(properties).map(([name, schema]) => [
      name,
      'default' in schema ? Type.Optional(schema) : schema,
    ]),
  );
}
