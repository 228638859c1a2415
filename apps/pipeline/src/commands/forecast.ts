import { DAY_MS, HOUR_MS, type HourlyOutcomes, stringAt } from '@waggle/core';
import { buildSendHistory, type NamedSendHistory } from '@waggle/features';
import {
  boostedLearner,
  INVENTORY_LEVELS,
  INVENTORY_TARGETS,
  InventoryModel,
  type InventoryTarget,
  inventoryBase,
} from '@waggle/forecasting';
import { treesFit } from '@waggle/native';
import type { CommandContext } from '../context.js';
import { asOfOption } from '../data-range.js';
import { pipelineError } from '../errors.js';
import { halfBy, hourlyCurve } from '../hourly-forecast.js';
import { count, table } from '../output.js';

/** Quantiles are those of sends forecast this long before: what offers are made with. */
const LEAD_MS = 24 * HOUR_MS;
/** Rows of the table for people; `--json` prints all. */
const SHOWN = 20;

interface PlannedSend {
  readonly postId: string;
  readonly publicationId: string;
  readonly plannedAt: string;
  readonly nSlots: number;
  /** P10, P20, P50, P80, P90 by what is counted; null where nothing is known of the publication. */
  readonly quantiles: Readonly<Record<InventoryTarget, readonly (number | null)[]>>;
  /** The P50 by hours since sending; null where there is none, or no event to take a curve from. */
  readonly hourly: Readonly<Record<HourlyKind, readonly number[] | null>>;
}

type HourlyKind = keyof HourlyOutcomes;

/** Deliveries, opens and clicks of the sends planned for the coming days, in quantiles and by hour. */
export async function forecastCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const days = Number(options['days']);
  if (!(days > 0 && days <= 60)) {
    throw pipelineError(
      'WAGGLE_USAGE',
      `--days must lie in (0, 60], got "${String(options['days'])}"`,
    );
  }
  const { history, asOfMs, fromMs } = await context.withStore(async (store) => {
    const range = await asOfOption(store, context.config.tenantId, options['asOf']);
    const found = await context.steps.step('Reading sends', () =>
      buildSendHistory(store, {
        tenantId: context.config.tenantId,
        fromMs: range.fromMs,
        toMs: range.asOfMs + days * DAY_MS,
        asOfMs: range.asOfMs,
        leadMs: LEAD_MS,
        signal: context.signal,
      }),
    );
    return { history: found, ...range };
  });
  const rows: number[] = [];
  for (let i = 0; i < history.nSends; i++) {
    if (history.plannedMs[i]! >= asOfMs && Number.isNaN(history.sentMs[i]!)) rows.push(i);
  }
  if (rows.length === 0) {
    throw pipelineError('WAGGLE_NO_DATA', `no send is planned within ${days} days`);
  }
  const quantiles = {} as Record<InventoryTarget, Float64Array>;
  for (const target of INVENTORY_TARGETS) {
    quantiles[target] = await context.steps.step(`Forecasting ${target}`, () =>
      forecastTarget(history, target, { rows, fromMs, asOfMs }),
    );
  }
  const curves = {
    opens: hourlyCurve(history, history.hourly.opens),
    clicks: hourlyCurve(history, history.hourly.clicks),
  };
  const nLevels = INVENTORY_LEVELS.length;
  const median = INVENTORY_LEVELS.indexOf(0.5);
  const byHour = (kind: HourlyKind, i: number, r: number): readonly number[] | null => {
    const expected = quantiles[kind][r * nLevels + median]!;
    const shares = curves[kind]?.shares(history.localHour[i]!, history.publication[i]!);
    return shares === undefined || Number.isNaN(expected)
      ? null
      : Array.from(shares, (share) => share * expected);
  };
  const of = (target: InventoryTarget, r: number) =>
    Array.from(quantiles[target].subarray(r * nLevels, (r + 1) * nLevels), (q) =>
      Number.isNaN(q) ? null : q,
    );
  const sends = rows.map(
    (i, r): PlannedSend => ({
      postId: stringAt(history.posts, i),
      publicationId: history.publicationIds[history.publication[i]!]!,
      plannedAt: new Date(history.plannedMs[i]!).toISOString(),
      nSlots: history.nSlots[i]!,
      quantiles: {
        delivered: of('delivered', r),
        opens: of('opens', r),
        clicks: of('clicks', r),
      },
      hourly: { opens: byHour('opens', i, r), clicks: byHour('clicks', i, r) },
    }),
  );
  const range = (q: readonly (number | null)[]) =>
    q[2] == null ? '–' : `${whole(q[2])} (${whole(q[0]!)}–${whole(q[4]!)})`;
  context.output.result(
    { asOf: new Date(asOfMs).toISOString(), levels: INVENTORY_LEVELS, sends },
    () =>
      `${table(
        ['planned', 'publication', 'slots', 'delivered', 'opens', 'half by', 'clicks', 'half by'],
        sends
          .slice(0, SHOWN)
          .map((s) => [
            s.plannedAt.slice(0, 16),
            s.publicationId,
            s.nSlots,
            range(s.quantiles.delivered),
            range(s.quantiles.opens),
            hoursToHalf(s.hourly.opens),
            range(s.quantiles.clicks),
            hoursToHalf(s.hourly.clicks),
          ]),
      )}\n${count(sends.length)} planned sends${sends.length > SHOWN ? `, the next ${SHOWN} shown` : ''}; P50 (P10–P90), opens and clicks within 72 h, half of them by so many hours; every hour with --json`,
  );
  return undefined;
}

const whole = (value: number): string => count(Math.round(value));

function hoursToHalf(hours: readonly number[] | null): string {
  const hour = hours === null ? undefined : halfBy(hours);
  return hour === undefined ? '–' : `${hour} h`;
}

async function forecastTarget(
  history: NamedSendHistory,
  target: InventoryTarget,
  o: { readonly rows: readonly number[]; readonly fromMs: number; readonly asOfMs: number },
): Promise<Float64Array> {
  const base = inventoryBase(history, target, LEAD_MS);
  const model = await InventoryModel.fit({
    base,
    actual: history[target],
    asOfMs: history.plannedMs.map((ms) => ms - LEAD_MS),
    // The later half of the past calibrates.
    fitUntilMs: o.fromMs + (o.asOfMs - history.outcomeMs - o.fromMs) / 2,
    calibrateUntilMs: o.asOfMs,
    learner: boostedLearner(treesFit),
  });
  return model.predict(base, o.rows);
}
