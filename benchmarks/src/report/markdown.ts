import type { Prices } from './cost.js';

export function number(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return value.toExponential(2);
  if (size >= 1000) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(3)));
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  return [
    `| ${head.join(' | ')} |`,
    `| ${head.map(() => '---').join(' | ')} |`,
    ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
    '',
  ];
}

/** What the costs below are counted with. */
export function priceLine({ costCpuHour, costGpuHour }: Prices): string {
  const prices = [
    costCpuHour === undefined ? [] : `${costCpuHour} for the machine without its GPU`,
    costGpuHour === undefined ? [] : `${costGpuHour} for it with one`,
  ].flat();
  return prices.length > 0
    ? `At an hourly price of ${prices.join(' and ')}, kept busy.`
    : 'Without prices: name a folder and give `--cost-cpu-hour`, `--cost-gpu-hour` for the cost of a million rankings on machines kept busy.';
}
