import type { BenchRecord } from '../record.js';
import { parseSearchCase } from './charts.js';

export interface Prices {
  /** Of an hour of the machine without its GPU, and of the whole GPU machine; any currency. */
  readonly costCpuHour?: number;
  readonly costGpuHour?: number;
}

export interface CostRow {
  readonly work: string;
  readonly device: 'CPU' | 'GPU';
  /** One query, or one request of a batch. */
  readonly rankingsPerHour: number;
  readonly costPerMillion?: number;
}

/** Rankings per call of a record that measures one; nothing for the others. */
function rankingsOf(
  record: BenchRecord,
): { work: string; rankings: number; onGpu: boolean } | undefined {
  if (record.metric !== 'time_ms') return undefined;
  if (record.suite === 'topk') {
    const parts = parseSearchCase(record.case);
    if (parts === undefined || parts.peer !== undefined) return undefined;
    if (parts.level !== undefined && parts.level !== 'cuda') return undefined;
    const rows = parts.rows.toLocaleString('en');
    return {
      work: `exact top-100 of ${rows} × 384, ${parts.kind}, ${parts.nQueries} at once`,
      rankings: parts.nQueries,
      onGpu: parts.level === 'cuda',
    };
  }
  if (record.suite === 'rank-batch') {
    const match = /^(\d+)x(\d+)(\/cuda)?$/.exec(record.case);
    if (match === null) return undefined;
    const candidates = Number(match[2]).toLocaleString('en');
    return {
      work: `whole decision over ${candidates} candidates, ${match[1]} requests at once`,
      rankings: Number(match[1]),
      onGpu: match[3] !== undefined,
    };
  }
  return undefined;
}

/** What a million rankings cost where the machine is kept busy, by work and device. */
export function costTable(records: readonly BenchRecord[], prices: Prices): CostRow[] {
  return records.flatMap((record) => {
    const known = rankingsOf(record);
    if (known === undefined) return [];
    const rankingsPerHour = (known.rankings * 3_600_000) / record.value;
    const price = known.onGpu ? prices.costGpuHour : prices.costCpuHour;
    return [
      {
        work: known.work,
        device: known.onGpu ? ('GPU' as const) : ('CPU' as const),
        rankingsPerHour,
        ...(price === undefined ? {} : { costPerMillion: (price * 1e6) / rankingsPerHour }),
      },
    ];
  });
}
