import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeScale, shortNumber } from '@waggle/measurement';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BenchRecord, parseRecords } from '../src/record.js';
import { drawCharts, parseSearchCase } from '../src/report/charts.js';
import { compare, theMachine } from '../src/report/compare.js';
import { costTable } from '../src/report/cost.js';
import { makePage } from '../src/report/page.js';
import { barChart, lineChart } from '../src/report/svg.js';
import { judge, TARGETS } from '../src/report/targets.js';
import { writeReports } from '../src/report/write.js';
import { parseSize, sizeName } from '../src/suites/size-name.js';

const machine = { cpu: 'Test CPU', simd: 'avx512', cores: 2, memGiB: 24, node: '22.0.0' };

function record(over: Partial<BenchRecord> = {}): BenchRecord {
  return {
    suite: 'topk',
    case: 'f32/q1',
    metric: 'time_ms',
    unit: 'ms',
    value: 50,
    better: 'lower',
    runs: 5,
    iqr: 1,
    peer: { name: 'FAISS flat', version: '1.15.1', value: 200 },
    ratio: 4,
    limit: { name: 'read bandwidth', value: 42 },
    fractionOfLimit: 0.84,
    machine,
    commit: 'abc',
    seed: 1,
    ...over,
  };
}

describe('the record format', () => {
  it('reads what was written', () => {
    const records = [record()];
    expect(parseRecords(JSON.parse(JSON.stringify(records)), 'x.json')).toEqual(records);
  });

  it.each([
    [{}, 'not an array'],
    [[3], 'record 0 is not an object'],
    [[{ ...record(), suite: undefined }], 'suite is not a string'],
    [[{ ...record(), value: null }], 'value is not a number'],
    [[{ ...record(), better: 'more' }], 'better'],
    [[{ ...record(), machine: undefined }], 'machine'],
    [[{ ...record(), machine: { ...machine, cores: 'two' } }], 'cores'],
    [[{ ...record(), ratio: undefined }], 'ratio'],
    [[{ ...record(), fractionOfLimit: undefined }], 'fractionOfLimit'],
  ])('refuses %#', (value, why) => {
    expect(() => parseRecords(value, 'x.json')).toThrow(why);
    expect(() => parseRecords(value, 'x.json')).toThrow('x.json');
  });
});

describe('targets', () => {
  it('are met, missed or open', () => {
    const states = (records: BenchRecord[]) =>
      judge(TARGETS, records)
        .filter((j) => j.target.id === 'topk/f32/q1')
        .map((j) => j.state);
    expect(states([record()])).toEqual(['met', 'met']);
    expect(states([record({ fractionOfLimit: 0.79, ratio: 2.9 })])).toEqual(['missed', 'missed']);
    expect(states([])).toEqual(['not measured', 'not measured']);
    const other = { name: 'numpy', version: '2', value: 900 };
    expect(states([record({ peer: other, ratio: 18 })])).toEqual(['met', 'not measured']);
  });

  it('read the newest figure', () => {
    const [judged] = judge(TARGETS, [record({ fractionOfLimit: 0.1 }), record()]);
    expect(judged?.measured).toBe(0.84);
  });

  it('name every case of the issue once per demand', () => {
    const keys = TARGETS.map((t) => `${t.id} ${t.metric} ${t.field}`);
    expect(new Set(keys).size).toBe(keys.length);
    for (const target of TARGETS) expect(target.atLeast ?? target.atMost).toBeGreaterThan(0);
  });
});

describe('comparison', () => {
  it('refuses figures of different machines', () => {
    const elsewhere = record({ machine: { ...machine, cores: 64 } });
    expect(() => compare([record()], [elsewhere])).toThrow('different machines');
    expect(() => theMachine([record(), elsewhere], 'x')).toThrow('64 cores');
    expect(() => theMachine([], 'x')).toThrow('no records');
    expect(() => makePage({ date: 'x', records: [record(), elsewhere], prices: {} })).toThrow(
      'different machines',
    );
  });

  it('takes instruction sets of one machine for one machine', () => {
    const narrow = record({ machine: { ...machine, simd: 'avx2' } });
    expect(theMachine([record(), narrow], 'x')).toBe('Test CPU, 2 cores, 24 GiB');
  });

  it('says so where targets are set for wider instructions than the machine has', () => {
    const narrow = record({ machine: { ...machine, simd: 'avx2' } });
    const page = (records: BenchRecord[]) => makePage({ date: 'x', records, prices: {} }).markdown;
    expect(page([narrow])).toContain('narrower instructions');
    expect(page([record(), narrow])).not.toContain('narrower instructions');
  });

  it('is above 1 where things got better', () => {
    const rate = { metric: 'rows_per_s', unit: 'rows/s', better: 'higher' } as const;
    const changes = compare(
      [record({ value: 100 }), record({ ...rate, value: 10 }), record({ case: 'gone' })],
      [record({ value: 50 }), record({ ...rate, value: 5 }), record({ case: 'new' })],
    );
    expect(changes.map((c) => c.ratio)).toEqual([2, 0.5]);
  });
});

describe('case ids', () => {
  it('tell what was measured', () => {
    expect(parseSearchCase('f32/q64')).toEqual({ kind: 'f32', nQueries: 64, rows: 1_000_000 });
    expect(parseSearchCase('int8/q1/n10m/cuda')).toMatchObject({ rows: 1e7, level: 'cuda' });
    expect(parseSearchCase('f32/q1/vs-numpy')).toMatchObject({ peer: 'numpy' });
    expect(parseSearchCase('event-loop')).toBeUndefined();
  });

  it('write sizes so that they can be read', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2_000_000_000 }), (rows) => {
        expect(parseSize(sizeName(rows))).toBe(rows);
      }),
    );
    expect(sizeName(200_000)).toBe('200k');
    expect(parseSize('many')).toBeUndefined();
  });
});

describe('charts', () => {
  it('have scales that hold every value', () => {
    const positive = fc.double({ min: 1e-6, max: 1e9, noNaN: true });
    fc.assert(
      fc.property(fc.array(positive, { minLength: 1 }), fc.boolean(), (values, log) => {
        const { at, ticks } = makeScale(values, log, 100, 500);
        for (const value of values) {
          expect(at(value)).toBeGreaterThan(100 - 1e-3);
          expect(at(value)).toBeLessThan(500 + 1e-3);
        }
        expect(ticks.length).toBeGreaterThan(1);
        expect(ticks.length).toBeLessThan(20);
        expect([...ticks].sort((a, b) => a - b)).toEqual(ticks);
        expect(at(ticks.at(-1)!)).toBeLessThan(500 + 1e-3);
      }),
    );
    const refused = expect.objectContaining({ code: 'WAGGLE_MEASUREMENT_OUT_OF_RANGE' });
    expect(() => makeScale([0], true, 0, 1)).toThrowError(refused);
    expect(() => makeScale([], false, 0, 1)).toThrowError(refused);
    expect(makeScale([1, 100], true, 0, 200).at(10)).toBeCloseTo(100);
  });

  it('shorten numbers without changing their size', () => {
    expect([0, 0.05, 12, 3_500, 1_000_000, 2.5e9].map(shortNumber)).toEqual([
      '0',
      '0.05',
      '12',
      '3.5k',
      '1M',
      '2.5G',
    ]);
  });

  it('escape text, name both axes, and know a dark page', () => {
    const axis = { label: 'rows', log: true };
    const svg = lineChart({
      title: 'a < b & c',
      x: axis,
      y: { label: 'ms per query', log: true },
      series: [
        { name: 'ours', points: [{ x: 1, y: 2 }] },
        { name: 'peer', points: [{ x: 10, y: 20 }], dashed: true },
      ],
    });
    expect(svg).toContain('a &lt; b &amp; c');
    for (const text of ['>rows<', '>ms per query<', '>ours<', 'prefers-color-scheme:dark']) {
      expect(svg).toContain(text);
    }
    expect(svg.match(/stroke-dasharray/g)).toHaveLength(2);
    const bars = barChart({ title: 't', x: axis, bars: [{ label: 'one', value: 3, target: 2 }] });
    expect(bars).toContain('class="target"');
    expect(bars).toContain('the mark is the target');
  });

  it('leave room for the longest name', () => {
    const axis = { label: 'rows', log: true };
    const name = 'ivf/word2vec-vs-hnsw/one-by-one queries_per_s ÷ hnswlib-node';
    // No character of the font is on average wider than this, and few are as wide.
    const width = name.length * 6.4;
    const bars = barChart({ title: 't', x: axis, bars: [{ label: name, value: 3 }] });
    const labelEnd = Number(/<text x="(\d+)"[^>]*text-anchor="end">ivf/.exec(bars)?.[1]);
    expect(labelEnd).toBeGreaterThan(width);
    expect(labelEnd).toBeLessThan(760 - 200);
    const points = [{ x: 1, y: 2 }];
    const lines = lineChart({ title: 't', x: axis, y: axis, series: [{ name, points }] });
    const nameStart = Number(/<text x="(\d+)" y="\d+">ivf/.exec(lines)?.[1]);
    expect(nameStart + width).toBeLessThan(760);
  });

  it('draw one line per limit: those of low precision are other lines', () => {
    const codes = record({
      case: 'int8/q1',
      value: 20,
      limit: { name: 'read bandwidth', value: 11 },
    });
    const [chart] = drawCharts([record(), codes], []);
    expect(chart?.file).toBe('topk-q1.svg');
    expect(chart?.svg).toContain('limit: read bandwidth: 1M, 42<');
    expect(chart?.svg).not.toContain('1M, 11<');
  });

  it('say which of a case’s figures a bar is', () => {
    const ivf = { suite: 'ivf', case: '200k-vs-hnsw', metric: 'build_s' } as const;
    const [chart] = drawCharts([record(ivf), record({ ...ivf, metric: 'queries_per_s' })], []);
    expect(chart?.svg).toContain('>ivf/200k-vs-hnsw build_s ÷ FAISS flat<');
    expect(chart?.svg).toContain('>ivf/200k-vs-hnsw queries_per_s ÷ FAISS flat<');
  });
});

describe('costs', () => {
  it('come from times and prices', () => {
    const [row] = costTable([record({ value: 36 })], { costCpuHour: 0.5 });
    expect(row).toMatchObject({ device: 'CPU', rankingsPerHour: 100_000, costPerMillion: 5 });
    expect(costTable([record()], {})[0]).not.toHaveProperty('costPerMillion');
    const gpu = record({ case: 'f32/q64/cuda', value: 64 });
    expect(costTable([gpu], { costGpuHour: 3.6 })[0]).toMatchObject({
      device: 'GPU',
      costPerMillion: 1,
    });
    expect(costTable([record({ case: 'f32/q1/avx2' }), record({ metric: 'other' })], {})).toEqual(
      [],
    );
  });

  it('of a case that was run again come from its last run', () => {
    const rows = costTable([record({ value: 72 }), record({ value: 36 })], {});
    expect(rows.map((row) => row.rankingsPerHour)).toEqual([100_000]);
  });

  it('know what the gateway serves', () => {
    const served = { suite: 'rank', metric: 'req_per_s', value: 1_000 } as const;
    const rows = costTable([record({ ...served, case: 'unique' })], { costCpuHour: 3.6 });
    expect(rows).toMatchObject([{ rankingsPerHour: 3_600_000, costPerMillion: 1 }]);
    expect(costTable([record({ ...served, case: 'toString' })], {})).toEqual([]);
  });
});

describe('the report', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'waggle-report-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  function folder(name: string, records: readonly BenchRecord[]): string {
    mkdirSync(join(root, name));
    writeFileSync(join(root, name, 'topk.json'), JSON.stringify(records));
    return join(root, name);
  }

  it('shows times and rates against peers, not losses', () => {
    const peers = (...records: BenchRecord[]) =>
      drawCharts(records, []).find((chart) => chart.file === 'peers.svg')?.svg;
    const loss = record({ suite: 'train', case: 'quality/demo', metric: 'logloss' });
    expect(peers(loss)).toBeUndefined();
    const rate = record({ suite: 'rank', case: 'c32', metric: 'req_per_s' });
    expect(peers(loss, record(), rate)).toMatch(/topk\/f32\/q1 ÷[\s\S]*rank\/c32 req_per_s ÷/);
    expect(peers(loss, record())).not.toContain('quality');
  });

  it('draws a page with targets, charts, costs and every figure', () => {
    const at = folder('2026-01-02-box', [
      record(),
      record({ case: 'f32/q1/n10k', value: 0.4 }),
      record({
        suite: 'trees',
        case: '200x6',
        metric: 'rows_per_s',
        unit: 'rows/s',
        better: 'higher',
      }),
      record({
        suite: 'train',
        case: 'pctr',
        metric: 'calibration',
        unit: '|ln expected/observed|',
        value: 0.005,
        limit: { name: 'at most', value: 0.05 },
        fractionOfLimit: 10,
      }),
    ]);
    const { files } = writeReports(root, { folders: [], costCpuHour: 0.1 });
    const page = readFileSync(join(at, 'README.md'), 'utf8');
    const headings = page.split('\n').filter((line) => line.startsWith('#'));
    expect(headings).toEqual([
      '# 2026-01-02: Test CPU, 2 cores, 24 GiB',
      '## Targets',
      '## Learning',
      '## On a GPU',
      '## Charts',
      '## What rankings cost',
      '## Every figure',
    ]);
    expect(page).toContain('| `topk/f32/q1` time_ms | ≥ 3× FAISS flat | 4× | ✔ met |');
    expect(page).toContain('| 0.005 \\|ln expected/observed\\|; at most: 0.05 | ✔ met |');
    expect(page).toContain('Nothing here was measured on a GPU');
    for (const file of files.filter((name) => name.endsWith('.svg'))) {
      expect(page).toContain(file.slice(at.length + 1));
      expect(readFileSync(file, 'utf8')).toMatch(/^<svg [^>]+>[\s\S]+<\/svg>\n$/);
    }
    expect(files.length).toBeGreaterThan(3);
    // Every row of a table has as many cells as its head.
    for (const block of page.split('\n\n').filter((text) => text.startsWith('|'))) {
      const widths = block
        .trimEnd()
        .split('\n')
        .map((line) => line.split(/(?<!\\)\|/).length);
      expect(new Set(widths).size).toBe(1);
    }
  });

  it('says what changed since the folder before it of the same machine', () => {
    folder('2026-01-01-box', [record({ value: 100 })]);
    folder('2026-01-01-other', [record({ machine: { ...machine, cores: 8 } })]);
    const at = folder('2026-01-02-box', [record()]);
    writeReports(root, { folders: ['2026-01-02-box'] });
    const page = readFileSync(join(at, 'README.md'), 'utf8');
    expect(page).toContain('## Since 2026-01-01');
    expect(page).toContain('| `topk/f32/q1` time_ms | 100 ms | 50 ms | 2× |');
  });

  it('lays several machines side by side, in the form that is fastest on each', () => {
    folder('2026-01-02-box', [record({ value: 36 }), record({ case: 'int8/q1', value: 18 })]);
    folder('2026-01-01-other', [record({ value: 72, machine: { ...machine, cores: 8 } })]);
    const native = folder('h200-2026-01-03', []);
    const when = { unit: 'ms', device: 'H200', when: '16:17' };
    writeFileSync(
      join(native, 'native-bench.json'),
      JSON.stringify([
        { suite: 'topk', case: 'f16/q1/cuda', metric: 'time_ms', value: 0.36, ...when },
        { case: 'trees-fit/1000000x50', deviceS: 2 },
      ]),
    );
    writeFileSync(join(native, 'torch.json'), '{"read_gb_s": 4212}');
    const { files, beside } = writeReports(root, {
      folders: ['2026-01-02-box', '2026-01-01-other', 'h200-2026-01-03'],
      costCpuHour: 0.2,
      costGpuHour: 4,
    });
    expect(files.filter((name) => name.startsWith(native))).toEqual([]);
    expect(
      beside,
    ).toBe(`At an hourly price of 0.2 for the machine without its GPU and 4 for it with one, kept busy.

| rankings per hour | 2026-01-02-box, CPU | 2026-01-01-other, CPU | h200-2026-01-03, GPU |
| --- | --- | --- | --- |
| exact top-100 of 1,000,000 × 384, one query at a time | 200,000 (int8); 1 a million | 50,000 (f32); 4 a million | 10,000,000 (f16); 0.4 a million |
`);
    expect(writeReports(root, { folders: ['2026-01-02-box'] }).beside).toBe('');
  });

  it('finds result folders wherever they lie', () => {
    const dated = join(root, '2025-05-05-work');
    mkdirSync(join(dated, 'scratch'), { recursive: true });
    expect(writeReports(dated, { folders: [] }).files).toEqual([]);
    expect(() => writeReports(dated, { folders: ['nowhere'] })).toThrow(
      'no folder of results is called nowhere',
    );
  });

  it('is drawn, as it stands, in every folder of results', () => {
    const results = fileURLToPath(new URL('../results', import.meta.url));
    const copy = join(root, 'results');
    cpSync(results, copy, { recursive: true });
    for (const file of writeReports(copy, { folders: [] }).files) {
      const kept = join(results, file.slice(copy.length + 1));
      expect(readFileSync(kept, 'utf8') === readFileSync(file, 'utf8'), kept).toBe(true);
    }
  });

  it('refuses folders and files that are not results', () => {
    folder('2026-01-02-box', [record()]);
    writeFileSync(join(root, '2026-01-02-box', 'bad.json'), '{');
    expect(() => writeReports(root, { folders: [] })).toThrow('bad.json is not JSON');
    mkdirSync(join(root, 'scratch'));
    expect(() => writeReports(root, { folders: ['scratch'] })).toThrow('<date>-<machine>');
  });
});
