/** The charts of a report: lines and bars in the style of all of Waggle's charts. */
import {
  CHART_WIDTH,
  drawFrame,
  escapeXml,
  type Frame,
  legendLine,
  makeScale,
  N_CHART_COLOURS,
  openChart,
  pixels,
  shortNumber,
} from '@waggle/measurement';

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

const HEIGHT = 420;
const LEFT = 78;
const TOP = 44;
const BOTTOM = 56;
/** Of a character, at the charts' font and a little more: no font is measured here. */
const CHARACTER = 6.6;

/** Room for the longest of these texts. */
const widthOf = (texts: readonly string[]): number =>
  Math.ceil(texts.reduce((most, text) => Math.max(most, text.length), 0) * CHARACTER);

export function lineChart(chart: LineChart): string {
  const points = chart.series.flatMap((s) => s.points);
  const frame: Frame = {
    left: LEFT,
    // Beside it the legend: a stroke and the name.
    right: CHART_WIDTH - 56 - widthOf(chart.series.map((s) => s.name)),
    top: TOP,
    bottom: HEIGHT - BOTTOM,
  };
  const x = makeScale(
    points.map((p) => p.x),
    chart.x.log,
    frame.left,
    frame.right,
  );
  const y = makeScale(
    points.map((p) => p.y),
    chart.y.log,
    frame.bottom,
    frame.top,
  );
  const out = [
    ...openChart({
      title: chart.title,
      height: HEIGHT,
      nColours: chart.series.length,
      left: LEFT,
    }),
    ...drawFrame(frame, { scale: x, label: chart.x.label }, { scale: y, label: chart.y.label }),
  ];
  for (const [i, { name, points: own, dashed }] of chart.series.entries()) {
    const colour = i % N_CHART_COLOURS;
    const sorted = [...own].sort((a, b) => a.x - b.x);
    const path = sorted.map(
      (p, n) => `${n === 0 ? 'M' : 'L'}${pixels(x.at(p.x))} ${pixels(y.at(p.y))}`,
    );
    const dash = dashed === true ? ' stroke-dasharray="6 4"' : '';
    out.push(`<path class="line s${colour}"${dash} d="${path.join('')}"/>`);
    for (const p of sorted) {
      out.push(
        `<circle class="f${colour}" cx="${pixels(x.at(p.x))}" cy="${pixels(y.at(p.y))}" r="3.5"><title>${escapeXml(`${name}: ${shortNumber(p.x)}, ${shortNumber(p.y)}`)}</title></circle>`,
      );
    }
    out.push(
      ...legendLine(frame, i, { name, colour, ...(dashed === undefined ? {} : { dashed }) }),
    );
  }
  out.push('</svg>', '');
  return out.join('\n');
}

const BAR = 18;
const BAR_STEP = 28;

/** Horizontal bars, in the order given; the value stands at a bar's end. */
export function barChart(chart: BarChart): string {
  const left = 16 + widthOf(chart.bars.map((bar) => bar.label));
  const right = CHART_WIDTH - 70;
  const bottom = TOP + chart.bars.length * BAR_STEP;
  const height = bottom + BOTTOM;
  const x = makeScale(
    chart.bars.flatMap((bar) => (bar.target === undefined ? [bar.value] : [bar.value, bar.target])),
    chart.x.log,
    left,
    right,
  );
  const out = openChart({ title: chart.title, height, nColours: 1, left: LEFT });
  for (const tick of x.ticks) {
    const at = pixels(x.at(tick));
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
      `<rect class="f0" x="${left}" y="${at}" width="${pixels(Math.max(1, end - left))}" height="${BAR}"/>`,
      `<text x="${pixels(end + 6)}" y="${at + 13}">${shortNumber(bar.value)}</text>`,
    );
    if (bar.target !== undefined) {
      const mark = pixels(x.at(bar.target));
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
