import type { DecisionRow, RankRequestBody } from '@waggle/core/contract';
import { BitSet } from '@waggle/retrieval';
import type { BudgetState } from './budget-view.js';
import { CandidateCache } from './candidates.js';
import { type DrawMoney, type LoggedItems, loggedItems } from './decision.js';
import { engineError } from './errors.js';
import type { Money } from './money.js';
import type { RankingRelease } from './ranking-release.js';
import { readContext } from './request-context.js';
import { decodeRows } from './row-list.js';
import { ScoringScratch } from './scoring-scratch.js';
import { type Run, runFill, runOffers, runOffersAsking } from './stages.js';

export interface Replay {
  /** What the release decides now. */
  readonly items: LoggedItems;
  /** What was logged. */
  readonly logged: LoggedItems;
  /** True when every id, score and propensity is the same, bit for bit. */
  readonly matches: boolean;
  /** Columns that differ. */
  readonly differences: readonly string[];
}

const COMPARED = [
  'campaign_id',
  'creative_id',
  'slot_id',
  'score',
  'propensity',
  'p_click',
  'p_accept',
  'e_spend',
  'price_micros',
  'reserved_micros',
  'explored',
] as const;

/**
 * Makes a logged decision again from the release that it names: the request, the time, the seed and what the
 * ledger said at each draw come from the row, everything else from the release. Touches no ledger or log.
 * @throws WAGGLE_REPLAY_MISMATCH when the row names another release or cannot be read
 */
export async function replay(
  row: Pick<
    DecisionRow,
    'release_id' | 'request' | 'request_id' | 'items' | 'seed' | 'ts' | 'degraded' | 'decision_id'
  >,
  release: RankingRelease,
): Promise<Replay> {
  if (row.release_id !== release.id) {
    throw engineError(
      'WAGGLE_REPLAY_MISMATCH',
      `decision ${row.decision_id} was made with ${row.release_id}, not ${release.id}`,
    );
  }
  let request: RankRequestBody;
  let logged: LoggedItems;
  try {
    request = JSON.parse(row.request) as RankRequestBody;
    logged = JSON.parse(row.items) as LoggedItems;
    if (logged.v !== 1) throw new Error(`items of version ${String(logged.v)}`);
  } catch (cause) {
    throw engineError('WAGGLE_REPLAY_MISMATCH', `decision ${row.decision_id} cannot be read`, {
      cause,
    });
  }
  const nowMs = Date.parse(row.ts.endsWith('Z') ? row.ts : `${row.ts.replace(' ', 'T')}Z`);
  const context = readContext(release, request, {
    requestId: row.request_id,
    nowMs,
    seed: row.seed,
  });
  const scratch = new ScoringScratch();
  // Rows from before draws said it each for itself.
  const allLate =
    row.degraded.includes('deadline_prior') && !logged.draws.some(({ prior }) => prior === true);
  const money = new LoggedMoney(release, logged.draws);
  const late = () => allLate || money.prior;
  const run: Run = {
    release,
    cache: new CandidateCache(release, scratch),
    scratch,
    money,
    context,
    late,
    waitMs: () => (late() ? 0 : Number.POSITIVE_INFINITY),
    check: () => {},
  };
  const placements = logged.placement_id ?? [];
  let nth = 0;
  const { networks } = release;
  const stages =
    request.mode === 'fill'
      ? await runFill(
          run,
          { decisionId: row.decision_id, placementId: () => placements[nth++] ?? '' },
          () => {},
        )
      : networks === undefined
        ? runOffers(run)
        : await networks.during(() => runOffersAsking(run, networks));
  const items = loggedItems(release, context, stages);
  const differences = COMPARED.filter(
    (name) => JSON.stringify(items[name]) !== JSON.stringify(logged[name]),
  );
  return { items, logged, matches: differences.length === 0, differences };
}

/** Answers as the ledger did, draw by draw. */
class LoggedMoney implements Money {
  readonly #release: RankingRelease;
  readonly #draws: readonly DrawMoney[];
  #nth = 0;

  constructor(release: RankingRelease, draws: readonly DrawMoney[]) {
    this.#release = release;
    this.#draws = draws;
  }

  /** Whether prior rates stood in for scores at the draw that is being made. */
  get prior(): boolean {
    return this.#draws[this.#nth]?.prior === true;
  }

  draw(_nowMs: number, nth: number): { budget: BudgetState; stale: boolean } {
    const { n } = this.#release.campaigns;
    this.#nth = nth;
    const logged = this.#draws[nth];
    const available = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
    const broke = decodeRows(logged?.broke ?? [], n);
    const pass = BitSet.full(n).andNot(broke);
    for (const row of broke.toRows()) available[row] = 0;
    // Some money, but never enough: sends set aside more than half a micro.
    for (const row of logged?.short ?? []) available[row] = 0.5;
    const version = nth + 1;
    return { budget: { available, pass, passVersion: version, version }, stale: false };
  }

  reserve(): ReturnType<Money['reserve']> {
    const outcome = this.#draws[this.#nth]?.reserve;
    if (outcome === 'failed') return Promise.reject(new Error('the ledger failed then, too'));
    return Promise.resolve(
      outcome === 'held' ? { ok: true } : { ok: false, reason: 'budget', availableMicros: 0 },
    );
  }
}
