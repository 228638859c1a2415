/** Charts as SVG text: no script, no fonts or files from elsewhere, legible on light and on dark pages. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** Limits and peers are dashed, ours are not. */
  readonly dashed?: boolean;
}

export interface Axis {
  /** With its unit. */
  readonly label: string;
  readonly log: boolean;
}

export interface LineChart {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
}

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** Drawn as a mark across the bar. */
  readonly target?: number;
}

export interface BarChart {
  readonly title: string;
  readonly x: Axis;
  readonly bars: readonly Bar[];
}

const WIDTH = 760;
const HEIGHT = 420;
const LEFT = 78;
const TOP = 44;
const BOTTOM = 56;
const LEGEND = 190;

/** Okabe and Ito's colours, which most people tell apart; the second list is lighter, for dark pages. */
const LIGHT = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#a3569d',
  '#8a6d00',
  '#3b3b3b',
  '#2a8fbd',
  '#b02a2a',
];
const DARK = [
  '#56b4e9',
  '#ff9a52',
  '#3ddcab',
  '#e5a3cf',
  '#f0e442',
  '#d8d8d8',
  '#8fd3ff',
  '#ff8f8f',
];

const escapeXml = (text: string): string =>
  text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');

/** Short and unambiguous: 0.05, 12, 3.5k, 1M. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  const digits = (x: number): string => String(Number(x.toPrecision(3)));
  if (size >= 1e9) return `${digits(value / 1e9)}G`;
  if (size >= 1e6) return `${digits(value / 1e6)}M`;
  if (size >= 1e3) return `${digits(value / 1e3)}k`;
  return digits(value);
}

export interface Scale {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
}

/**
 * Maps values to [from, to]. A logarithmic axis ends at whole powers of ten (or at 2 and 5 times one where it would
 * otherwise show a single tick); a linear one starts at 0.
 * @throws RangeError on a value that a logarithmic axis cannot show, or without values
 */
export function makeScale(
  values: readonly number[],
  log: boolean,
  from: number,
  to: number,
): Scale {
  if (values.length === 0 || values.some((v) => !Number.isFinite(v) || (log && v <= 0))) {
    throw new RangeError(`cannot scale ${JSON.stringify(values)}`);
  }
  const max = Math.max(...values);
  if (!log) {
    const step = niceStep(max <= 0 ? 1 : max);
    const end = Math.max(step, Math.ceil(max / step - 1e-9) * step);
    const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, i) => i * step);
    return { at: (v) => from + ((to - from) * v) / end, ticks };
  }
  const min = Math.min(...values);
  const low = Math.floor(Math.log10(min) + 1e-9);
  const high = Math.max(low + 1, Math.ceil(Math.log10(max) - 1e-9));
  const at = (v: number): number => from + ((to - from) * (Math.log10(v) - low)) / (high - low);
  const ticks: number[] = [];
  for (let p = low; p <= high; p++) {
    for (const m of high - low <= 2 ? [1, 2, 5] : [1]) {
      if (p < high || m === 1) ticks.push(m * 10 ** p);
    }
  }
  return { at, ticks };
}

function niceStep(max: number): number {
  const rough = max / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5, 10].find((m) => m * power >= rough * (1 - 1e-9)) ?? 10) * power;
}

function style(nColours: number): string {
  const rules = (colours: readonly string[]): string =>
    Array.from(
      { length: Math.min(nColours, colours.length) },
      (_, i) => `.s${i}{stroke:${colours[i]};color:${colours[i]}}.f${i}{fill:${colours[i]}}`,
    ).join('');
  return `<style>text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.axis{stroke:#59636e}.grid{stroke:#d1d9e0}.target{stroke:#1f2328}.page{fill:#ffffff}.line{fill:none;stroke-width:2}${rules(LIGHT)}@media (prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#9198a1}.grid{stroke:#3d444d}.target{stroke:#e6edf3}.page{fill:#0d1117}${rules(DARK)}}</style>`;
}

function open(title: string, height: number, nColours: number): string[] {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    style(nColours),
    `<rect class="page" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="${LEFT}" y="24">${escapeXml(title)}</text>`,
  ];
}

const round = (x: number): string => String(Math.round(x * 100) / 100);

export function lineChart(chart: LineChart): string {
  const points = chart.series.flatMap((s) => s.points);
  const right = WIDTH - LEGEND;
  const bottom = HEIGHT - BOTTOM;
  const x = makeScale(
    points.map((p) => p.x),
    chart.x.log,
    LEFT,
    right,
  );
  const y = makeScale(
    points.map((p) => p.y),
    chart.y.log,
    bottom,
    TOP,
  );
  const out = open(chart.title, HEIGHT, chart.series.length);
  for (const tick of x.ticks) {
    const at = round(x.at(tick));
    out.push(
      `<line class="grid" x1="${at}" y1="${TOP}" x2="${at}" y2="${bottom}"/>`,
      `<text x="${at}" y="${bottom + 18}" text-anchor="middle">${shortNumber(tick)}</text>`,
    );
  }
  for (const tick of y.ticks) {
    const at = round(y.at(tick));
    out.push(
      `<line class="grid" x1="${LEFT}" y1="${at}" x2="${right}" y2="${at}"/>`,
      `<text x="${LEFT - 8}" y="${Number(at) + 4}" text-anchor="end">${shortNumber(tick)}</text>`,
    );
  }
  out.push(
    `<path class="axis line" d="M${LEFT} ${TOP}V${bottom}H${right}"/>`,
    `<text x="${(LEFT + right) / 2}" y="${HEIGHT - 14}" text-anchor="middle">${escapeXml(chart.x.label)}</text>`,
    `<text transform="translate(18 ${(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">${escapeXml(chart.y.label)}</text>`,
  );
  for (const [i, { name, points: own, dashed }] of chart.series.entries()) {
    const colour = i % LIGHT.length;
    const sorted = [...own].sort((a, b) => a.x - b.x);
    const path = sorted.map(
      (p, n) => `${n === 0 ? 'M' : 'L'}${round(x.at(p.x))} ${round(y.at(p.y))}`,
    );
    const dash = dashed === true ? ' stroke-dasharray="6 4"' : '';
    out.push(`<path class="line s${colour}"${dash} d="${path.join('')}"/>`);
    for (const p of sorted) {
      out.push(
        `<circle class="f${colour}" cx="${round(x.at(p.x))}" cy="${round(y.at(p.y))}" r="3.5"><title>${escapeXml(`${name}: ${shortNumber(p.x)}, ${shortNumber(p.y)}`)}</title></circle>`,
      );
    }
    const at = TOP + 8 + i * 20;
    out.push(
      `<path class="line s${colour}"${dash} d="M${right + 14} ${at}h24"/>`,
      `<text x="${right + 44}" y="${at + 4}">${escapeXml(name)}</text>`,
    );
  }
  out.push('</svg>', '');
  return out.join('\n');
}

const BAR = 18;
const BAR_STEP = 28;
const LABEL = 230;

/** Horizontal bars, in the order given; the value stands at a bar's end. */
export function barChart(chart: BarChart): string {
  const left = LABEL;
  const right = WIDTH - 70;
  const bottom = TOP + chart.bars.length * BAR_STEP;
  const height = bottom + BOTTOM;
  const x = makeScale(
    chart.bars.flatMap((bar) => (bar.target === undefined ? [bar.value] : [bar.value, bar.target])),
    chart.x.log,
    left,
    right,
  );
  const out = open(chart.title, height, 1);
  for (const tick of x.ticks) {
    const at = round(x.at(tick));
    out.push(
      `<line class="grid" x1="${at}" y1="${TOP}" x2="${at}" y2="${bottom}"/>`,
      `<text x="${at}" y="${bottom + 18}" text-anchor="middle">${shortNumber(tick)}</text>`,
    );
  }
  for (const [i, bar] of chart.bars.entries()) {
    const at = TOP + 5 + i * BAR_STEP;
    const end = x.at(bar.value);
    out.push(
      `<text x="${left - 8}" y="${at + 13}" text-anchor="end">${escapeXml(bar.label)}</text>`,
      `<rect class="f0" x="${left}" y="${at}" width="${round(Math.max(1, end - left))}" height="${BAR}"/>`,
      `<text x="${round(end + 6)}" y="${at + 13}">${shortNumber(bar.value)}</text>`,
    );
    if (bar.target !== undefined) {
      const mark = round(x.at(bar.target));
      out.push(
        `<line class="target" x1="${mark}" y1="${at - 3}" x2="${mark}" y2="${at + BAR + 3}" stroke-width="3"><title>target ${shortNumber(bar.target)}</title></line>`,
      );
    }
  }
  const note = chart.bars.some((bar) => bar.target !== undefined)
    ? ' (the mark is the target)'
    : '';
  out.push(
    `<path class="axis line" d="M${left} ${TOP}V${bottom}H${right}"/>`,
    `<text x="${(left + right) / 2}" y="${height - 14}" text-anchor="middle">${escapeXml(chart.x.label + note)}</text>`,
    '</svg>',
    '',
  );
  return out.join('\n');
}
