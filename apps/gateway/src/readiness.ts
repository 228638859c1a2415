import { type Static, Type } from 'typebox';
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
  checks: Type.Record(Type.String(), Check),
});
type ReadyResponseBody = Static<typeof ReadyResponse>;

/**
 * Ready means: rankings are answered correctly. A store that is behind does not stop them (events are
 * durable here), so it is reported and does not take every replica out of service at once.
 */
export function readiness(
  o: Pick<RouteContext, 'releases' | 'ledger' | 'journal' | 'isDraining'>,
): ReadyResponseBody {
  const status = o.releases.status();
  const ledger = o.ledger.status();
  const forwarder = o.journal.forwarder();
  const { rejected } = status;
  const checks: ReadyResponseBody['checks'] = {
    release: {
      ok: status.release !== undefined,
      required: true,
      detail: status.release ?? 'no release is active; run `waggle run` or `waggle release`',
    },
    ledger: {
      ok: ledger.ok,
      required: true,
      ...(ledger.detail === undefined ? {} : { detail: ledger.detail }),
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
  if (rejected !== undefined) {
    checks['candidate'] = {
      ok: false,
      required: false,
      detail: `${rejected.release} was refused (${rejected.code}: ${rejected.message}); the previous release stays in service`,
    };
  }
  const ready = Object.values(checks).every((check) => check.ok || !check.required);
  return {
    status: ready ? 'ready' : 'not_ready',
    ...(status.release === undefined ? {} : { release: status.release }),
    checks,
  };
}
