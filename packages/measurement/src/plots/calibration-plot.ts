import type { PredictionBucket, ReliabilityBin } from '../metrics/reliability.js';
import {
  drawFrame,
  escapeXml,
  type Frame,
  legendLine,
  linearScale,
  logScale,
  N_CHART_COLOURS,
  openChart,
  pixels,
  type Scale,
  shortNumber,
} from './svg.js';

export interface CalibrationSeries {
  readonly name: string;
  /** From `reliabilityCurve`. */
  readonly bins: readonly ReliabilityBin[];
  /** From `predictionHistogram`; drawn under the curve of the first series that has one. */
  readonly histogram?: readonly PredictionBucket[];
}

export interface CalibrationPlot {
  readonly title: string;
  readonly series: readonly CalibrationSeries[];
}

const FRAME: Frame = { left: 78, right: 570, top: 44, bottom: 404 };
const STRIP = { top: 462, bottom: 532 };
const HEIGHT = 574;
/** Probabilities that span more than this are drawn on logarithmic axes: clicks crowd near 0. */
const LOG_SPAN = 15;

/**
 * Reliability: observed rate against prediction, one point with its interval per bin, the diagonal of a perfect model, and
 * below it where the predictions lie. Pure; O(bins).
 */
export function calibrationPlot(plot: CalibrationPlot): string {
  const bins = plot.series.flatMap((s) => s.bins);
  const positive = bins.flatMap((b) => [b.meanProbability, b.observedRate]).filter((p) => p > 0);
  const lowest = Math.min(...positive, 1);
  const highest = Math.max(...bins.flatMap((b) => [b.meanProbability, b.observedRate]), 1e-12);
  const log = positive.length > 0 && highest / lowest > LOG_SPAN;
  // Both axes show the same range, so that the diagonal runs from corner to corner.
  const domain: [number, number] = log ? [lowest / 1.3, highest * 1.3] : [0, highest * 1.05];
  const scaleOf = (from: number, to: number): Scale =>
    log ? logScale(...domain, from, to, false) : linearScale(...domain, from, to);
  const x = scaleOf(FRAME.left, FRAME.right);
  const y = scaleOf(FRAME.bottom, FRAME.top);
  const clampX = (v: number): number => Math.min(Math.max(x.at(v), FRAME.left), FRAME.right);
  const clampY = (v: number): number =>
    log && v <= 0 ? FRAME.bottom : Math.min(Math.max(y.at(v), FRAME.top), FRAME.bottom);
  const out = openChart({
    title: plot.title,
    height: HEIGHT,
    nColours: Math.max(plot.series.length, 1),
    left: FRAME.left,
  });
  out.push(
    ...drawFrame(
      FRAME,
      { scale: x, label: `predicted probability${log ? ' (logarithmic)' : ''}` },
      { scale: y, label: 'observed rate' },
    ),
    `<path class="axis line" stroke-dasharray="2 4" d="M${FRAME.left} ${FRAME.bottom}L${FRAME.right} ${FRAME.top}"><title>perfectly calibrated</title></path>`,
  );
  plot.series.forEach(({ name, bins: own }, i) => {
    const colour = i % N_CHART_COLOURS;
    for (const bin of own) {
      if (bin.lowerRate === null || bin.upperRate === null) continue;
      const at = pixels(clampX(bin.meanProbability));
      const [low, high] = [pixels(clampY(bin.lowerRate)), pixels(clampY(bin.upperRate))];
      out.push(
        `<path class="line s${colour}" stroke-opacity=".55" d="M${at} ${low}V${high}M${Number(at) - 4} ${low}h8M${Number(at) - 4} ${high}h8"/>`,
      );
    }
    const path = own
      .map(
        (bin, n) =>
          `${n === 0 ? 'M' : 'L'}${pixels(clampX(bin.meanProbability))} ${pixels(clampY(bin.observedRate))}`,
      )
      .join('');
    out.push(`<path class="line s${colour}" d="${path}"/>`);
    for (const bin of own) {
      const text = `${name}: predicted ${shortNumber(bin.meanProbability)}, observed ${shortNumber(bin.observedRate)}${limitsOf(bin)}`;
      out.push(
        `<circle class="f${colour}" cx="${pixels(clampX(bin.meanProbability))}" cy="${pixels(clampY(bin.observedRate))}" r="3.5"><title>${escapeXml(text)}</title></circle>`,
      );
    }
    out.push(...legendLine(FRAME, i, { name, colour }));
  });
  out.push(
    `<path class="axis line" stroke-dasharray="2 4" d="M${FRAME.right + 14} ${FRAME.top + 8 + plot.series.length * 20}h24"/>`,
    `<text x="${FRAME.right + 44}" y="${FRAME.top + 12 + plot.series.length * 20}">perfect</text>`,
  );
  const shown = plot.series.findIndex((s) => (s.histogram?.length ?? 0) > 0);
  const histogram = plot.series[shown]?.histogram ?? [];
  const most = histogram.reduce((top, b) => Math.max(top, b.mass), 0);
  for (const bucket of histogram) {
    const left = clampX(log ? Math.max(bucket.lower, domain[0]) : bucket.lower);
    const right = clampX(log ? Math.max(bucket.upper, domain[0]) : bucket.upper);
    const height = most > 0 ? ((STRIP.bottom - STRIP.top) * bucket.mass) / most : 0;
    if (right - left <= 0 || height <= 0) continue;
    out.push(
      `<rect class="f${shown % N_CHART_COLOURS}" x="${pixels(left)}" y="${pixels(STRIP.bottom - height)}" width="${pixels(Math.max(0.5, right - left - 1))}" height="${pixels(height)}"><title>${escapeXml(`${shortNumber(bucket.lower)} … ${shortNumber(bucket.upper)}: ${shortNumber(bucket.mass)} trials`)}</title></rect>`,
    );
  }
  if (shown >= 0) {
    out.push(
      `<path class="axis line" d="M${FRAME.left} ${STRIP.bottom}H${FRAME.right}"/>`,
      `<text x="${(FRAME.left + FRAME.right) / 2}" y="${STRIP.bottom + 22}" text-anchor="middle">${escapeXml(`where the predictions lie (trials${plot.series.length > 1 ? `, ${plot.series[shown]!.name}` : ''})`)}</text>`,
    );
  }
  out.push('</svg>', '');
  return out.join('\n');
}

function limitsOf({ lowerRate, upperRate }: ReliabilityBin): string {
  return lowerRate === null || upperRate === null
    ? ', of one cluster'
    : ` (${shortNumber(lowerRate)} … ${shortNumber(upperRate)})`;
}
