import type { BenchRecord } from '../record.js';
import { type Chart, drawCharts } from './charts.js';
import { type Change, theMachine } from './compare.js';
import { costTable, type Prices } from './cost.js';
import { number, priceLine, table } from './markdown.js';
import {
  caseId,
  FORECAST_TARGETS,
  GPU_TARGETS,
  type Judged,
  judge,
  TARGETS,
  type Target,
  TRAIN_TARGETS,
} from './targets.js';

export interface PageInput {
  readonly date: string;
  readonly records: readonly BenchRecord[];
  readonly prices: Prices;
  /** Against the folder before it of the same machine. */
  readonly since?: { readonly name: string; readonly changes: readonly Change[] };
}

export interface Page {
  readonly markdown: string;
  readonly charts: readonly Chart[];
}

function shown(target: Target, record: BenchRecord, measured: number): string {
  if (target.besideLimit && record.limit !== undefined) {
    return `${number(record.value)} ${record.unit}; ${record.limit.name}: ${number(record.limit.value)}`;
  }
  if (target.field === 'fractionOfLimit') return `${number(measured * 100)} %`;
  if (target.field === 'ratio') return `${number(measured)}×`;
  return `${number(measured)} ${record.unit}`;
}

function targetRows(judged: readonly Judged[]): string[][] {
  return judged.map(({ target, record, measured, state }) => [
    `\`${target.id}\` ${target.metric}`,
    target.text,
    record === undefined || measured === undefined ? '—' : shown(target, record, measured),
    { met: '✔ met', missed: '✘ **missed**', 'not measured': 'open' }[state],
  ]);
}

const NARROWER =
  'The targets are set for two cores with AVX-512; this machine has narrower instructions.';

/** The Markdown page of one result folder, and its charts. @throws Error when records are of several machines */
export function makePage({ date, records, prices, since }: PageInput): Page {
  const machine = theMachine(records, date);
  const judged = judge(TARGETS, records);
  const onGpu = records.filter((r) => r.machine.gpu !== undefined);
  const judgedGpu = judge(GPU_TARGETS, onGpu);
  const charts = drawCharts(records, judged);
  const unique = (values: readonly (string | undefined)[]): string =>
    [...new Set(values.filter((v) => v !== undefined))].sort().join(', ');
  const gpus = unique(onGpu.map((r) => r.machine.gpu));
  const out = [
    `# ${date}: ${machine}`,
    '',
    'Drawn by `npm run bench -- report` from the JSON files beside it; how the runs are made fair is in `benchmarks/README.md`.',
    '',
    `Node ${unique(records.map((r) => r.machine.node))}; instruction sets ${unique(records.map((r) => r.machine.simd))}; commits ${unique(records.map((r) => r.commit))}; GPU: ${gpus === '' ? 'none' : gpus}.`,
    `Peers: ${unique(records.map((r) => (r.peer === undefined ? undefined : `${r.peer.name} ${r.peer.version}`))) || 'none'}.`,
    '',
    '## Targets',
    '',
    ...(records.some((r) => r.machine.simd === 'avx512') ? [] : [NARROWER, '']),
    ...table(['case', 'at least', 'measured', ''], targetRows(judged)),
  ];
  for (const [title, targets] of [
    ['Learning', TRAIN_TARGETS],
    ['Forecasts', FORECAST_TARGETS],
  ] as const) {
    const found = judge(targets, records);
    if (!found.some((one) => one.record !== undefined)) continue;
    out.push(`## ${title}`, '');
    out.push(...table(['case', 'wanted', 'measured', ''], targetRows(found)));
  }
  out.push('## On a GPU', '');
  if (gpus === '') {
    out.push('Nothing here was measured on a GPU; these are open.', '');
  }
  out.push(...table(['case', 'at least', 'measured', ''], targetRows(judgedGpu)));
  out.push('## Charts', '');
  for (const { title, file } of charts) out.push(`![${title}](${file})`, '');
  const costs = costTable(records, prices);
  if (costs.length > 0) {
    out.push('## What rankings cost', '');
    out.push(
      priceLine(prices),
      '',
      ...table(
        ['work', 'form', 'device', 'rankings per hour', 'cost per million'],
        costs.map((row) => [
          row.work,
          row.form ?? '',
          row.device,
          number(row.rankingsPerHour),
          row.costPerMillion === undefined ? '—' : number(row.costPerMillion),
        ]),
      ),
    );
    if (!costs.some((row) => row.device === 'GPU')) {
      out.push(
        'No figure of a GPU is in this folder; `npm run bench -- report` with the folders of two machines lays them side by side.',
        '',
      );
    }
  }
  if (since !== undefined && since.changes.length > 0) {
    out.push(
      `## Since ${since.name}`,
      '',
      ...table(
        ['case', 'before', 'now', 'better by'],
        since.changes.map((c) => [
          `\`${c.id}\` ${c.metric}`,
          `${number(c.before)} ${c.unit}`,
          `${number(c.after)} ${c.unit}`,
          `${number(c.ratio)}×`,
        ]),
      ),
    );
  }
  out.push(
    '## Every figure',
    '',
    'Medians, with the interquartile range over the runs. A ratio above 1 means that Waggle is ahead.',
    '',
    ...table(
      ['case', 'metric', 'value', 'IQR', 'runs', 'peer', 'ratio', 'of limit'],
      records.map((r) => [
        `\`${caseId(r)}\``,
        r.metric,
        `${number(r.value)} ${r.unit}`,
        number(r.iqr),
        String(r.runs),
        r.peer === undefined ? '' : `${r.peer.name}: ${number(r.peer.value)}`,
        r.ratio === undefined ? '' : `${number(r.ratio)}×`,
        r.limit === undefined || r.fractionOfLimit === undefined
          ? ''
          : `${number(r.fractionOfLimit * 100)} % of ${r.limit.name}`,
      ]),
    ),
  );
  return { markdown: `${out.join('\n').trimEnd()}\n`, charts };
}
