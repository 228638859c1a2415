import { measurementError } from '../errors.js';

/**
 * The common part of charts as SVG text: no script, no fonts or files from elsewhere, legible on light and on dark
 * pages, equal text for equal data.
 */

export const CHART_WIDTH = 760;

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
/** Series beyond these share colours. */
export const N_CHART_COLOURS = LIGHT.length;

export const escapeXml = (text: string): string =>
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

/** A coordinate to a hundredth of a pixel. */
export const pixels = (x: number): string => String(Math.round(x * 100) / 100);

export interface Scale {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
}

/** A step of 1, 2 or 5 times a power of ten, at most `nSteps` of which cover the range. */
function niceStep(range: number, nSteps: number): number {
  const rough = range / nSteps;
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5, 10].find((m) => m * power >= rough * (1 - 1e-9)) ?? 10) * power;
}

/** Maps [min, max], widened to whole ticks, to [from, to]. @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE unless min < max */
export function linearScale(min: number, max: number, from: number, to: number): Scale {
  if (!(min < max) || !Number.isFinite(max - min)) throw unscalable([min, max]);
  const step = niceStep(max - min, 5);
  const first = Math.floor(min / step + 1e-9);
  const last = Math.ceil(max / step - 1e-9);
  // Multiplying keeps 0.1, 0.2, 0.3 what they are; adding steps up does not. Digits beyond the 12th are rounding.
  const ticks = Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
  const low = first * step;
  const high = last * step;
  return { at: (v) => from + ((to - from) * (v - low)) / (high - low), ticks };
}

/**
 * Maps [min, max] to [from, to] by logarithm. `whole` axes end at powers of ten; others end where the values do, with ticks at
 * 1, 2 and 5 times powers of ten between. @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE unless 0 < min ≤ max
 */
export function logScale(min: number, max: number, from: number, to: number, whole = true): Scale {
  if (!(min > 0 && min <= max) || !Number.isFinite(max)) throw unscalable([min, max]);
  const low = whole ? Math.floor(Math.log10(min) + 1e-9) : Math.log10(min);
  const high = whole
    ? Math.max(low + 1, Math.ceil(Math.log10(max) - 1e-9))
    : Math.max(low + 1e-3, Math.log10(max));
  const ticks: number[] = [];
  const fine = high - low <= 2.5;
  for (let p = Math.floor(low); p <= Math.ceil(high); p++) {
    for (const m of fine ? [1, 2, 5] : [1]) {
      const tick = Number((m * 10 ** p).toPrecision(12));
      const log = Math.log10(tick);
      if (log >= low - 1e-9 && log <= high + 1e-9) ticks.push(tick);
    }
  }
  return { at: (v) => from + ((to - from) * (Math.log10(v) - low)) / (high - low), ticks };
}

/**
 * Maps values to [from, to]: a logarithmic axis ends at whole powers of ten, a linear one starts at 0.
 * @throws WAGGLE_MEASUREMENT_OUT_OF_RANGE on a value that a logarithmic axis cannot show, or without values
 */
export function makeScale(
  values: readonly number[],
  log: boolean,
  from: number,
  to: number,
): Scale {
  if (values.length === 0 || values.some((v) => !Number.isFinite(v) || (log && v <= 0))) {
    throw unscalable(values);
  }
  const max = values.reduce((most, v) => Math.max(most, v), Number.NEGATIVE_INFINITY);
  if (!log) return linearScale(0, max <= 0 ? 1 : max, from, to);
  const min = values.reduce((least, v) => Math.min(least, v), Number.POSITIVE_INFINITY);
  return logScale(min, max, from, to);
}

const unscalable = (values: readonly number[]): Error =>
  measurementError(
    'WAGGLE_MEASUREMENT_OUT_OF_RANGE',
    `cannot scale an axis over ${JSON.stringify(values.slice(0, 5))}`,
  );

function style(nColours: number): string {
  const rules = (colours: readonly string[]): string =>
    Array.from(
      { length: Math.min(nColours, colours.length) },
      (_, i) => `.s${i}{stroke:${colours[i]};color:${colours[i]}}.f${i}{fill:${colours[i]}}`,
    ).join('');
  return `<style>text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.axis{stroke:#59636e}.grid{stroke:#d1d9e0}.target{stroke:#1f2328}.page{fill:#ffffff}.line{fill:none;stroke-width:2}.soft{fill-opacity:.3}${rules(LIGHT)}@media (prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#9198a1}.grid{stroke:#3d444d}.target{stroke:#e6edf3}.page{fill:#0d1117}${rules(DARK)}}</style>`;
}

/** First lines of a chart: size, title for people and for screen readers, colours `s0 … / f0 …` of its series. */
export function openChart(o: {
  readonly title: string;
  readonly height: number;
  readonly nColours: number;
  /** Left edge of the title. */
  readonly left: number;
}): string[] {
  const { title, height, left } = o;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${CHART_WIDTH} ${height}" width="${CHART_WIDTH}" height="${height}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    style(o.nColours),
    `<rect class="page" width="${CHART_WIDTH}" height="${height}"/>`,
    `<text class="title" x="${left}" y="24">${escapeXml(title)}</text>`,
  ];
}

export interface Frame {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

export interface FrameAxis {
  readonly scale: Scale;
  /** With its unit. */
  readonly label: string;
  readonly format?: (value: number) => string;
}

/** Grid, numbers, axes and their labels; the x label stands 42 below the frame. */
export function drawFrame(frame: Frame, x: FrameAxis, y: FrameAxis): string[] {
  const { left, right, top, bottom } = frame;
  const out: string[] = [];
  for (const tick of x.scale.ticks) {
    const at = pixels(x.scale.at(tick));
    out.push(
      `<line class="grid" x1="${at}" y1="${top}" x2="${at}" y2="${bottom}"/>`,
      `<text x="${at}" y="${bottom + 18}" text-anchor="middle">${escapeXml((x.format ?? shortNumber)(tick))}</text>`,
    );
  }
  for (const tick of y.scale.ticks) {
    const at = pixels(y.scale.at(tick));
    out.push(
      `<line class="grid" x1="${left}" y1="${at}" x2="${right}" y2="${at}"/>`,
      `<text x="${left - 8}" y="${Number(at) + 4}" text-anchor="end">${escapeXml((y.format ?? shortNumber)(tick))}</text>`,
    );
  }
  out.push(
    `<path class="axis line" d="M${left} ${top}V${bottom}H${right}"/>`,
    `<text x="${(left + right) / 2}" y="${bottom + 42}" text-anchor="middle">${escapeXml(x.label)}</text>`,
    `<text transform="translate(18 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle">${escapeXml(y.label)}</text>`,
  );
  return out;
}

/** One line of a legend: a stroke of series `colour` and its name, `row` rows below the frame's top. */
export function legendLine(
  frame: Frame,
  row: number,
  entry: { readonly name: string; readonly colour: number; readonly dashed?: boolean },
): string[] {
  const at = frame.top + 8 + row * 20;
  const dash = entry.dashed === true ? ' stroke-dasharray="6 4"' : '';
  return [
    `<path class="line s${entry.colour % N_CHART_COLOURS}"${dash} d="M${frame.right + 14} ${at}h24"/>`,
    `<text x="${frame.right + 44}" y="${at + 4}">${escapeXml(entry.name)}</text>`,
  ];
}

/**
 * Path through points, in the order given. Points closer than 0.4 pixels to the last one drawn are skipped, ends never:
 * a curve of a million thresholds stays a small file and looks the same.
 */
export function linePath(points: readonly { readonly x: number; readonly y: number }[]): string {
  let path = '';
  let lastX = Number.NaN;
  let lastY = Number.NaN;
  points.forEach(({ x, y }, i) => {
    const near = Math.abs(x - lastX) < 0.4 && Math.abs(y - lastY) < 0.4;
    if (near && i < points.length - 1) return;
    path += `${i === 0 ? 'M' : 'L'}${pixels(x)} ${pixels(y)}`;
    lastX = x;
    lastY = y;
  });
  return path;
}
