import type { BenchRecord } from '../record.js';
import { parseSize } from '../suites/size-name.js';
import { type Bar, barChart, lineChart, type Series } from './svg.js';
import { caseId, type Judged } from './targets.js';

export interface Chart {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

interface CaseParts {
  readonly kind: string;
  readonly nQueries: number;
  readonly rows: number;
  readonly level?: string;
  readonly peer?: string;
}

const LEVEL = '(?:/(scalar|avx2|avx512|neon|cuda))?';
const SEARCH_CASE = new RegExp(`^([a-z0-9]+)/q(\\d+)(?:/n([\\d.]+[km]?))?${LEVEL}(?:/vs-(.+))?$`);

/** `f32/q64/n100k/avx2` → its parts; a case without a size is of a million rows. */
export function parseSearchCase(id: string): CaseParts | undefined {
  const match = SEARCH_CASE.exec(id);
  if (match === null) return undefined;
  const [, kind, nQueries, size, level, peer] = match;
  return {
    kind: kind!,
    nQueries: Number(nQueries),
    rows: parseSize(size ?? '1m')!,
    ...(level === undefined ? {} : { level }),
    ...(peer === undefined ? {} : { peer }),
  };
}

function group(
  series: Map<string, { x: number; y: number }[]>,
  name: string,
  x: number,
  y: number,
) {
  const points = series.get(name) ?? [];
  if (points.length === 0) series.set(name, points);
  points.push({ x, y });
}

const drawn = (
  series: ReadonlyMap<string, { x: number; y: number }[]>,
  isDashed: (name: string) => boolean,
): Series[] =>
  [...series].map(([name, points]) => ({
    name,
    points,
    ...(isDashed(name) ? { dashed: true } : {}),
  }));

function searchChart(records: readonly BenchRecord[], nQueries: number): Chart | undefined {
  const series = new Map<string, { x: number; y: number }[]>();
  for (const record of records) {
    if (record.suite !== 'topk' || record.metric !== 'time_ms') continue;
    const parts = parseSearchCase(record.case);
    if (parts === undefined || parts.nQueries !== nQueries || parts.peer !== undefined) continue;
    const where = parts.level === undefined ? '' : ` ${parts.level}`;
    group(series, `${parts.kind}${where}`, parts.rows, record.value / nQueries);
    if (record.peer !== undefined && parts.kind === 'f32') {
      group(series, record.peer.name, parts.rows, record.peer.value / nQueries);
    }
    // On a CPU the codes of fewer bits have limits of their own, each measured at one size: no line.
    if (record.limit !== undefined && (parts.kind === 'f32' || parts.level === 'cuda')) {
      group(series, `limit: ${record.limit.name}`, parts.rows, record.limit.value / nQueries);
    }
  }
  if (series.size === 0) return undefined;
  const title = `Exact top-100 of n × 384, ${nQueries} ${nQueries === 1 ? 'query' : 'queries'} at once`;
  const ours = (name: string): boolean => /^(f32|int8|bf16|f16)/.test(name);
  return {
    file: `topk-q${nQueries}.svg`,
    title,
    svg: lineChart({
      title,
      x: { label: 'rows', log: true },
      y: { label: 'milliseconds per query', log: true },
      series: drawn(series, (name) => !ours(name)),
    }),
  };
}

function filterChart(records: readonly BenchRecord[]): Chart | undefined {
  const series = new Map<string, { x: number; y: number }[]>();
  for (const record of records) {
    if (record.suite !== 'filter' || record.metric !== 'speedup_vs_unfiltered') continue;
    const match = /^(shared\/q64|per-query\/q64|q1)(?:\/p([\d.]+))?$/.exec(record.case);
    if (match !== null) group(series, match[1]!, Number(match[2] ?? 0.01) * 100, record.value);
  }
  if (series.size === 0) return undefined;
  const title = 'What a filter saves: 1M × 384, top-100';
  return {
    file: 'filter.svg',
    title,
    svg: lineChart({
      title,
      x: { label: 'share of rows allowed, %', log: true },
      y: { label: 'times as fast as without a filter', log: true },
      series: drawn(series, () => false),
    }),
  };
}

function treesChart(records: readonly BenchRecord[]): Chart | undefined {
  const series = new Map<string, { x: number; y: number }[]>();
  for (const record of records) {
    if (record.suite !== 'trees' || record.metric !== 'rows_per_s') continue;
    const match = /^(\d+x\d+)(?:\/n([\d.]+[km]?))?(?:\/vs-(.+))?$/.exec(record.case);
    if (match === null) continue;
    const [, shape, size, vs] = match;
    const rows = parseSize(size ?? '1k')!;
    if (vs === undefined) group(series, `waggle ${shape}`, rows, record.value);
    if (record.peer !== undefined) {
      group(series, `${record.peer.name} ${shape}`, rows, record.peer.value);
    }
  }
  if (series.size === 0) return undefined;
  const title = 'Tree ensembles, 50 features, one thread';
  return {
    file: 'trees.svg',
    title,
    svg: lineChart({
      title,
      x: { label: 'rows per call', log: true },
      y: { label: 'rows per second', log: true },
      series: drawn(series, (name) => !name.startsWith('waggle')),
    }),
  };
}

function ivfChart(records: readonly BenchRecord[]): Chart | undefined {
  const at = new Map<string, { recall?: number; rate?: number; name: string }>();
  for (const record of records) {
    const match = /^(.+)\/curve\/([^/]+)\/(\d+)$/.exec(record.case);
    if (record.suite !== 'ivf' || match === null) continue;
    const point = at.get(record.case) ?? { name: `${match[2]} ${match[1]}` };
    at.set(record.case, point);
    if (record.metric === 'recall_at_10') point.recall = record.value;
    if (record.metric === 'queries_per_s') point.rate = record.value;
  }
  const series = new Map<string, { x: number; y: number }[]>();
  for (const { name, recall, rate } of at.values()) {
    // What was missed, so that a logarithmic axis shows the last percent.
    if (recall !== undefined && rate !== undefined && recall < 1) {
      group(series, name, 1 - recall, rate);
    }
  }
  if (series.size === 0) return undefined;
  const title = 'Approximate search: speed against what is missed';
  return {
    file: 'ivf.svg',
    title,
    svg: lineChart({
      title,
      x: { label: '1 − recall@10 (left is better)', log: true },
      y: { label: 'queries per second', log: true },
      series: drawn(series, (name) => !name.startsWith('waggle')),
    }),
  };
}

function limitChart(records: readonly BenchRecord[]): Chart | undefined {
  const bars: Bar[] = records
    .filter((r) => ['topk', 'filter', 'trees'].includes(r.suite) && r.metric === 'time_ms')
    .flatMap((r) =>
      r.fractionOfLimit === undefined || r.limit === undefined
        ? []
        : [{ label: `${r.case}: ${r.limit.name}`, value: r.fractionOfLimit * 100 }],
    );
  if (bars.length === 0) return undefined;
  const title = 'How much of the machine is used';
  return {
    file: 'fraction-of-limit.svg',
    title,
    svg: barChart({
      title,
      x: { label: '% of the limit measured in the same run', log: false },
      bars,
    }),
  };
}

/** Times and rates; bytes, losses and errors have peers too, and no speed. */
const SPEED = /_(?:ms|s)$|_per_s/;

function peersChart(records: readonly BenchRecord[], judged: readonly Judged[]): Chart | undefined {
  const bars: Bar[] = records.flatMap((r) => {
    if (r.peer === undefined || !(r.ratio !== undefined && r.ratio > 0)) return [];
    if (r.case.includes('/curve/') || !SPEED.test(r.metric)) return [];
    const target = judged.find(
      (j) => j.target.field === 'ratio' && j.record === r && j.target.atLeast !== undefined,
    )?.target.atLeast;
    return [
      {
        // Some cases have several: a rate and the time to build.
        label: `${caseId(r)}${r.metric === 'time_ms' ? '' : ` ${r.metric}`} ÷ ${r.peer.name}`,
        value: r.ratio,
        ...(target === undefined ? {} : { target }),
      },
    ];
  });
  if (bars.length === 0) return undefined;
  const title = 'Against peers, same run, data and threads';
  return {
    file: 'peers.svg',
    title,
    svg: barChart({ title, x: { label: 'times as fast as the peer', log: true }, bars }),
  };
}

/** Every chart that the records have figures for. */
export function drawCharts(records: readonly BenchRecord[], judged: readonly Judged[]): Chart[] {
  return [
    searchChart(records, 1),
    searchChart(records, 64),
    searchChart(records, 1_024),
    limitChart(records),
    filterChart(records),
    ivfChart(records),
    treesChart(records),
    peersChart(records, judged),
  ].filter((chart) => chart !== undefined);
}
