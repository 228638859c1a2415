import type { Clock, IdKind, Logger } from '@waggle/core';
import type {
  DecisionRow,
  Degradation,
  RankRequestBody,
  RankResponseBody,
} from '@waggle/core/contract';
import { BudgetView } from './budget-view.js';
import { CandidateCache } from './candidates.js';
import { type DecisionParts, decisionRow, responseBody } from './decision.js';
import { engineError } from './errors.js';
import { LedgerMoney } from './money.js';
import type { DecisionPort, LedgerPort } from './ports.js';
import type { RankingRelease } from './ranking-release.js';
import { Deadline, type RequestContext, readContext } from './request-context.js';
import { ScoringScratch } from './scoring-scratch.js';
import { type Run, runFill, runOffers, runOffersAsking, type StagesResult } from './stages.js';

export interface EngineOptions {
  /** The release to serve a tenant from; undefined before the first. Asked once per request. */
  readonly current: (tenantId: string) => RankingRelease | undefined;
  /** A release by id, for requests that pin one. */
  readonly byId?: (releaseId: string) => RankingRelease | undefined;
  readonly ledger: LedgerPort;
  readonly decisions: DecisionPort;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ids: (kind: IdKind) => string;
}

export interface RankCall {
  /** From the caller's key, never from the body. */
  readonly tenantId: string;
  /** Used when the body names none. */
  readonly requestId: string;
  /** When the request arrived, `clock.monotonicMs()`; the deadline counts from here. */
  readonly receivedAtMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** Releases whose caches are kept, for callers that do not say which are retired. */
const KEPT_RELEASES = 4;
/** Between two steps of `prepare`; requests that are due meanwhile come first. */
const PREPARE_PAUSE_MS = 3;
const COMPLAINT_PAUSE_MS = 1_000;

interface ServedRelease {
  readonly release: RankingRelease;
  readonly cache: CandidateCache;
  readonly view: BudgetView;
  readonly money: LedgerMoney;
  readonly staleDegraded: readonly Degradation[];
}

/**
 * From a request to a decision: context → candidates → scores → prices → choice under one deadline. Reads the
 * release and the ledger's counters, never a store.
 */
export class Engine {
  readonly #options: EngineOptions;
  readonly #complainAgainMs = new Map<string, number>();
  readonly #scratch = new ScoringScratch();
  readonly #served = new Map<string, ServedRelease>();
  #last: ServedRelease | undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
  }

  /**
   * Ranks. `offers` answers at once, or with a release that has networks when these have been asked; `fill` resolves when its
   * reservations are durable.
   * @throws WAGGLE_NO_ACTIVE_RELEASE, WAGGLE_PIN_UNKNOWN, WAGGLE_UNKNOWN_PUBLICATION, WAGGLE_UNKNOWN_CANDIDATES,
   *   WAGGLE_RANK_INVALID, WAGGLE_DEADLINE_EXCEEDED, WAGGLE_DECISION_NOT_RECORDED, WAGGLE_ABORTED (synchronously or as a rejection)
   */
  rank(request: RankRequestBody, call: RankCall): RankResponseBody | Promise<RankResponseBody> {
    const { clock } = this.#options;
    const deadline = new Deadline({
      clock,
      receivedAtMs: call.receivedAtMs,
      deadlineMs: request.deadline_ms,
      signal: call.signal,
    });
    const served = this.#serve(request, call.tenantId);
    const { release } = served;
    const context = readContext(release, request, {
      requestId: request.request_id ?? call.requestId,
      nowMs: clock.nowMs(),
    });
    const run: Run = {
      release,
      cache: served.cache,
      scratch: this.#scratch,
      money: served.money,
      context,
      late: () => deadline.passed,
      waitMs: () => deadline.waitMs,
      check: () => deadline.check(),
    };
    const decisionId = this.#options.ids('decision');
    const { networks } = release;
    if (request.mode === 'fill') {
      const fill = () => this.#fill(served, run, decisionId, call);
      return networks === undefined ? fill() : networks.during(fill);
    }
    if (networks === undefined) return this.#offers(served, run, decisionId, call, runOffers(run));
    return networks.during(async () =>
      this.#offers(served, run, decisionId, call, await runOffersAsking(run, networks)),
    );
  }

  /**
   * Prepares the candidates of every publication of a release for the requests to come, as long as there is room to keep
   * them. Works for a millisecond at a time and gives the event loop back in between; stops when the release is no
   * longer served from the engine's cache, or when the signal fires. Call it when the release is current, or about to be.
   */
  async prepare(release: RankingRelease, signal?: AbortSignal): Promise<void> {
    const served = this.#served.get(release.id) ?? this.#keep(this.#admit(release));
    const { publications, networks } = release;
    for (let row = 0; row < publications.n; row++) {
      const nowMs = this.#options.clock.nowMs();
      const { budget } = served.money.draw(nowMs);
      for (const rows of served.cache.prepare(row, publications.language[row]!, nowMs, budget)) {
        if (rows !== undefined) {
          await networks?.during(() => served.cache.askCreatives(row, rows));
        }
        await new Promise((wake) => setTimeout(wake, PREPARE_PAUSE_MS));
        if (signal?.aborted === true || networks?.retired === true) return;
        if (this.#served.get(release.id) !== served) return;
      }
    }
  }

  /**
   * Forgets what is kept for a release that cannot be asked for any more. Decisions that began with it go on; another release of
   * the same id stays.
   */
  forget(release: RankingRelease): void {
    const served = this.#served.get(release.id);
    if (served?.release === release) this.#drop(served);
  }

  /** Forgets cached work and stops listening to the ledger. */
  close(): void {
    for (const served of this.#served.values()) served.view.close();
    this.#served.clear();
    this.#last = undefined;
  }

  #offers(
    served: ServedRelease,
    run: Run,
    decisionId: string,
    call: RankCall,
    stages: StagesResult,
  ): RankResponseBody {
    const { response, row, json } = this.#answer(served, run.context, decisionId, call, stages);
    try {
      this.#options.decisions.record(row, json);
    } catch (cause) {
      this.#notLogged(decisionId, cause);
    }
    return response;
  }

  async #fill(
    served: ServedRelease,
    run: Run,
    decisionId: string,
    call: RankCall,
  ): Promise<RankResponseBody> {
    const { decisions, ids } = this.#options;
    const stages = await runFill(
      run,
      { decisionId, placementId: () => ids('placement') },
      (cause) => this.#complain('a slot could not be filled', decisionId, cause),
    );
    const { response, row } = this.#answer(served, run.context, decisionId, call, stages);
    try {
      if (decisions.recordDurably === undefined) decisions.record(row);
      else await decisions.recordDurably(row);
    } catch (cause) {
      this.#notLogged(decisionId, cause);
      await this.#undo(decisionId, stages, cause);
    }
    return response;
  }

  /**
   * Money that is held for a decision without a record would be taken for a crash's leftover at the next start and given
   * back, whatever the caller was told. So the decision is not made.
   * @throws WAGGLE_DECISION_NOT_RECORDED when money was held
   */
  async #undo(decisionId: string, stages: StagesResult, cause: unknown): Promise<void> {
    const { ledger, logger } = this.#options;
    const holds = stages.items.flatMap(({ placementId }) =>
      placementId === undefined ? [] : [placementId],
    );
    if (holds.length === 0) return;
    const outcomes = await Promise.allSettled(holds.map(async (id) => ledger.release?.(id)));
    const kept = outcomes.filter(({ status }) => status === 'rejected').length;
    if (kept > 0) {
      logger.error({ decision_id: decisionId, kept }, 'holds stay until the next start');
    }
    throw engineError(
      'WAGGLE_DECISION_NOT_RECORDED',
      `decision ${decisionId} could not be recorded`,
      { cause, details: { decision_id: decisionId } },
    );
  }

  #answer(
    served: ServedRelease,
    context: RequestContext,
    decisionId: string,
    call: RankCall,
    stages: StagesResult,
  ): { response: RankResponseBody; row: DecisionRow; json: string } {
    const { release } = served;
    const stale = context.nowMs - release.asOfMs > release.policy.stale_features_ms;
    const standing = stale ? served.staleDegraded : release.degraded;
    const parts: DecisionParts = {
      decisionId,
      items: stages.items,
      draws: stages.draws,
      nEligible: stages.nEligible,
      filtered: stages.filtered,
      degraded:
        stages.degraded.length === 0 ? standing : [...new Set([...standing, ...stages.degraded])],
      latencyMs: this.#options.clock.monotonicMs() - call.receivedAtMs,
      explored: stages.explored,
      kept: stages.kept,
    };
    return {
      response: responseBody(release, context, parts),
      ...decisionRow(release, context, parts),
    };
  }

  /** An answer without its log row is worse than none for learning, but better for the caller. */
  #notLogged(decisionId: string, cause: unknown): void {
    this.#complain('a decision was not logged; check the data directory', decisionId, cause);
  }

  /** A disk that refuses does so at every request: each complaint is made at most once a second. */
  #complain(message: string, decisionId: string, cause: unknown): void {
    const { clock, logger } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs < (this.#complainAgainMs.get(message) ?? Number.NEGATIVE_INFINITY)) return;
    this.#complainAgainMs.set(message, nowMs + COMPLAINT_PAUSE_MS);
    logger.error({ decision_id: decisionId, err: cause }, message);
  }

  #serve(request: RankRequestBody, tenantId: string): ServedRelease {
    const { current, byId } = this.#options;
    const pinned = request.pin?.release;
    const active = current(tenantId);
    let release = active;
    if (pinned !== undefined && pinned !== active?.id) {
      release = byId?.(pinned);
      if (release === undefined || release.tenantId !== tenantId) {
        throw engineError('WAGGLE_PIN_UNKNOWN', `release ${pinned} is not loaded here`, {
          details: { pinned, active: active?.id ?? null },
        });
      }
    }
    if (release === undefined || release.tenantId !== tenantId) {
      throw engineError('WAGGLE_NO_ACTIVE_RELEASE', `no release is active for ${tenantId}`);
    }
    if (this.#last?.release === release) return this.#last;
    let served = this.#served.get(release.id);
    if (served?.release !== release) {
      served?.view.close();
      served = this.#admit(release);
    }
    this.#last = served;
    return this.#keep(served);
  }

  #keep(served: ServedRelease): ServedRelease {
    // Re-inserting keeps the map in order of last use.
    this.#served.delete(served.release.id);
    this.#served.set(served.release.id, served);
    if (this.#served.size > KEPT_RELEASES) {
      this.#drop(this.#served.values().next().value!);
    }
    return served;
  }

  #drop(served: ServedRelease): void {
    served.view.close();
    this.#served.delete(served.release.id);
    if (this.#last === served) this.#last = undefined;
  }

  #admit(release: RankingRelease): ServedRelease {
    const { ledger, logger } = this.#options;
    const { campaigns, eligibility } = release;
    const view = new BudgetView(
      campaigns.ids,
      (id) => eligibility.rowOf(id),
      ledger,
      (row) => campaigns.budgetMicros[row]! - campaigns.spentMicros[row]!,
    );
    const money = new LedgerMoney(view, ledger, (cause) =>
      logger.error(
        { err: cause },
        'the budget ledger does not answer; offers use its last answers',
      ),
    );
    return {
      release,
      cache: new CandidateCache(release, this.#scratch),
      view,
      money,
      staleDegraded: [...release.degraded, 'stale_features'],
    };
  }
}
