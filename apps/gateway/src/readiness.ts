import type { WaggleError } from '@waggle/core';
import { type Static, Type } from 'typebox';
import { gatewayError } from './errors.js';
import type { RejectedRelease, ReleasesPort } from './ports.js';
import type { RouteContext } from './routes/route-context.js';

const Check = Type.Object({
  ok: Type.Boolean(),
  /** A check that is not required is reported without taking the gateway out of service. */
  required: Type.Boolean(),
  detail: Type.Optional(Type.String()),
});

export const ReadyResponse = Type.Object({
  status: Type.Union([Type.Literal('ready'), Type.Literal('not_ready')]),
  release: Type.Optional(Type.String()),
  clock: Type.Union([Type.Literal('system'), Type.Literal('data')]),
  checks: Type.Record(Type.String(), Check),
});
type ReadyResponseBody = Static<typeof ReadyResponse>;

const refusal = ({ release, code, message }: RejectedRelease): string =>
  `${release ?? 'the active release'} was refused (${code}: ${message})`;

/** Why nothing is served, and what to do about it, where nothing is. */
export function notReady(releases: ReleasesPort): WaggleError {
  const { rejected } = releases.status();
  if (rejected === undefined) return gatewayError('WAGGLE_NOT_READY', 'no release is active');
  return gatewayError('WAGGLE_NOT_READY', refusal(rejected), { remedy: rejected.remedy });
}

/**
 * Ready means: rankings are answered correctly and events are taken. A store that is behind does not stop them (events are
 * durable here), so it is reported and does not take every replica out of service at once.
 */
export function readiness(
  o: Pick<RouteContext, 'releases' | 'journal' | 'clockSource' | 'isDraining'>,
): ReadyResponseBody {
  const { rejected, release } = o.releases.status();
  const forwarder = o.journal.forwarder();
  const missing = release === undefined ? notReady(o.releases) : undefined;
  const checks: ReadyResponseBody['checks'] = {
    release: {
      ok: missing === undefined,
      required: true,
      detail: release ?? `${missing?.message}; ${missing?.remedy}`,
    },
    forwarder: {
      ok: forwarder.ok,
      required: false,
      detail:
        forwarder.detail ??
        `${forwarder.backlog} waiting, oldest ${Math.round(forwarder.lagMs)} ms`,
    },
    running: { ok: !o.isDraining(), required: true },
  };
  for (const [name, log] of Object.entries(o.journal.logs())) {
    checks[name] = { ...log, required: true };
  }
  if (rejected !== undefined && release !== undefined) {
    checks['candidate'] = {
      ok: false,
      required: false,
      detail: `${refusal(rejected)}; the previous release stays in service`,
    };
  }
  const ready = Object.values(checks).every((check) => check.ok || !check.required);
  return {
    status: ready ? 'ready' : 'not_ready',
    ...(release === undefined ? {} : { release }),
    clock: o.clockSource,
    checks,
  };
}

/** What a probe without a key may know: no release, no reasons. */
export function withoutDetails({ status, clock, checks }: ReadyResponseBody): ReadyResponseBody {
  const bare = Object.entries(checks).map(([name, { ok, required }]) => [name, { ok, required }]);
  return { status, clock, checks: Object.fromEntries(bare) as ReadyResponseBody['checks'] };
}
