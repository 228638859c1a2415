import type { BenchRecord } from '../record.js';
import { parseSearchCase } from './charts.js';

export interface Prices {
  /** Of an hour of the machine without its GPU, and of the whole GPU machine; any currency. */
  readonly costCpuHour?: number;
  readonly costGpuHour?: number;
}

/** What a figure says about rankings; results of `native_bench` say it too. */
export type RankingFigure = Pick<BenchRecord, 'suite' | 'case' | 'metric' | 'value'>;

export interface CostRow {
  readonly work: string;
  /** In which form, where there are several with the same answer. */
  readonly form?: string;
  readonly device: 'CPU' | 'GPU';
  /** One query, or one request of a batch. */
  readonly rankingsPerHour: number;
  readonly costPerMillion?: number;
}

const SERVED: Readonly<Record<string, string>> = {
  c32: '`POST /v1/rank`, where questions repeat within a minute',
  unique: '`POST /v1/rank`, where none does',
};

const atOnce = (n: number, one: string, several: string): string =>
  n === 1 ? `one ${one} at a time` : `${n.toLocaleString('en')} ${several} at once`;

/** Rankings a second and what they are, of a record that measures some; nothing for the others. */
function rankingsOf(
  figure: RankingFigure,
): { work: string; form?: string; perSecond: number; onGpu: boolean } | undefined {
  const { suite, metric, value } = figure;
  if (suite === 'rank' && metric === 'req_per_s') {
    const work = Object.hasOwn(SERVED, figure.case) ? SERVED[figure.case] : undefined;
    return work === undefined ? undefined : { work, perSecond: value, onGpu: false };
  }
  if (metric !== 'time_ms') return undefined;
  if (suite === 'topk') {
    const parts = parseSearchCase(figure.case);
    if (parts === undefined || parts.peer !== undefined) return undefined;
    if (parts.level !== undefined && parts.level !== 'cuda') return undefined;
    return {
      work: `exact top-100 of ${parts.rows.toLocaleString('en')} × 384, ${atOnce(parts.nQueries, 'query', 'queries')}`,
      form: parts.kind,
      perSecond: (parts.nQueries * 1e3) / value,
      onGpu: parts.level === 'cuda',
    };
  }
  if (suite === 'rank-batch') {
    const match = /^(\d+)x(\d+)(\/cuda)?$/.exec(figure.case);
    if (match === null) return undefined;
    const requests = Number(match[1]);
    return {
      work: `whole decision over ${Number(match[2]).toLocaleString('en')} candidates, ${atOnce(requests, 'request', 'requests')}`,
      perSecond: (requests * 1e3) / value,
      onGpu: match[3] !== undefined,
    };
  }
  return undefined;
}

/** What a million rankings cost where the machine is kept busy, by work, form and device; of a case that was run again, the last. */
export function costTable(figures: readonly RankingFigure[], prices: Prices): CostRow[] {
  const rows = new Map<string, CostRow>();
  for (const figure of figures) {
    const known = rankingsOf(figure);
    if (known === undefined) continue;
    const { work, form, perSecond, onGpu } = known;
    const rankingsPerHour = perSecond * 3_600;
    const price = onGpu ? prices.costGpuHour : prices.costCpuHour;
    rows.set(`${figure.suite}/${figure.case}`, {
      work,
      ...(form === undefined ? {} : { form }),
      device: onGpu ? 'GPU' : 'CPU',
      rankingsPerHour,
      ...(price === undefined ? {} : { costPerMillion: (price * 1e6) / rankingsPerHour }),
    });
  }
  return [...rows.values()];
}
