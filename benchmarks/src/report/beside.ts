import { type CostRow, costTable, type Prices, type RankingFigure } from './cost.js';
import { number, priceLine, table } from './markdown.js';

export interface MachineFigures {
  /** What the machine's folder is called. */
  readonly name: string;
  readonly figures: readonly RankingFigure[];
}

/**
 * The same work on several machines: a column for each of them and its GPU, in each the form that is fastest there, for all
 * forms give the same answer. Nothing where no machine has figures of rankings.
 */
export function besideTable(machines: readonly MachineFigures[], prices: Prices): string {
  const columns = machines.flatMap(({ name, figures }) => {
    const rows = costTable(figures, prices);
    return (['CPU', 'GPU'] as const)
      .map((device) => ({ head: `${name}, ${device}`, best: fastest(rows, device) }))
      .filter(({ best }) => best.size > 0);
  });
  const works = [...new Set(columns.flatMap(({ best }) => [...best.keys()]))];
  if (works.length === 0) return '';
  const rows = works.map((work) => [work, ...columns.map(({ best }) => cellOf(best.get(work)))]);
  return [
    priceLine(prices),
    '',
    ...table(['rankings per hour', ...columns.map(({ head }) => head)], rows),
  ].join('\n');
}

function fastest(rows: readonly CostRow[], device: CostRow['device']): Map<string, CostRow> {
  const best = new Map<string, CostRow>();
  for (const row of rows) {
    const known = best.get(row.work);
    if (row.device !== device || row.rankingsPerHour <= (known?.rankingsPerHour ?? 0)) continue;
    best.set(row.work, row);
  }
  return best;
}

function cellOf(row: CostRow | undefined): string {
  if (row === undefined) return '—';
  const form = row.form === undefined ? '' : ` (${row.form})`;
  const cost = row.costPerMillion === undefined ? '' : `; ${number(row.costPerMillion)} a million`;
  return `${number(row.rankingsPerHour)}${form}${cost}`;
}
