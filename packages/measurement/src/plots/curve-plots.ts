import type { GainPoint, LiftPoint, PrecisionRecallPoint, RocPoint } from '../metrics/curves.js';
import {
  drawFrame,
  type Frame,
  legendLine,
  linearScale,
  linePath,
  logScale,
  N_CHART_COLOURS,
  openChart,
  pixels,
  type Scale,
} from './svg.js';

export interface CurveSeries<P> {
  /** With whatever figure belongs to it: "model, AUC 0.71". */
  readonly name: string;
  readonly points: readonly P[];
}

export interface CurvePlot<P> {
  readonly title: string;
  readonly series: readonly CurveSeries<P>[];
}

const FRAME: Frame = { left: 78, right: 520, top: 44, bottom: 404 };
const HEIGHT = 460;

interface Drawn {
  readonly title: string;
  readonly x: { readonly scale: Scale; readonly label: string };
  readonly y: { readonly scale: Scale; readonly label: string };
  readonly series: readonly {
    readonly name: string;
    readonly points: readonly { readonly x: number; readonly y: number }[];
  }[];
  /** What a model that knows nothing would draw. */
  readonly reference: {
    readonly name: string;
    readonly from: readonly [number, number];
    readonly to: readonly [number, number];
  };
}

function draw(o: Drawn): string {
  const { x, y, reference } = o;
  const out = openChart({
    title: o.title,
    height: HEIGHT,
    nColours: Math.max(1, o.series.length),
    left: FRAME.left,
  });
  const place = ([px, py]: readonly [number, number]): string =>
    `${pixels(x.scale.at(px))} ${pixels(y.scale.at(py))}`;
  out.push(
    ...drawFrame(FRAME, x, y),
    `<path class="axis line" stroke-dasharray="2 4" d="M${place(reference.from)}L${place(reference.to)}"/>`,
  );
  o.series.forEach(({ name, points }, i) => {
    const path = linePath(points.map((p) => ({ x: x.scale.at(p.x), y: y.scale.at(p.y) })));
    out.push(
      `<path class="line s${i % N_CHART_COLOURS}" d="${path}"/>`,
      ...legendLine(FRAME, i, { name, colour: i }),
    );
  });
  const at = FRAME.top + 8 + o.series.length * 20;
  out.push(
    `<path class="axis line" stroke-dasharray="2 4" d="M${FRAME.right + 14} ${at}h24"/>`,
    `<text x="${FRAME.right + 44}" y="${at + 4}">${reference.name}</text>`,
    '</svg>',
    '',
  );
  return out.join('\n');
}

const unitX = (): Scale => linearScale(0, 1, FRAME.left, FRAME.right);
const unitY = (): Scale => linearScale(0, 1, FRAME.bottom, FRAME.top);

/** ROC curves of `rocCurve`. Pure; O(points). */
export function rocPlot(plot: CurvePlot<RocPoint>): string {
  return draw({
    title: plot.title,
    x: { scale: unitX(), label: 'false positive rate' },
    y: { scale: unitY(), label: 'true positive rate' },
    series: plot.series.map(({ name, points }) => ({
      name,
      points: points.map((p) => ({ x: p.falsePositiveRate, y: p.truePositiveRate })),
    })),
    reference: { name: 'chance', from: [0, 0], to: [1, 1] },
  });
}

/**
 * Precision–recall curves of `precisionRecallCurve`, drawn as the steps that average precision sums. Where the base rate
 * is below 2 % the precision axis is logarithmic. Pure; O(points).
 */
export function precisionRecallPlot(plot: CurvePlot<PrecisionRecallPoint>): string {
  // At recall 1 everything is called a success: that precision is the base rate.
  const base = plot.series[0]?.points.at(-1)?.precision ?? 0.5;
  const all = plot.series.flatMap((s) => s.points.map((p) => p.precision)).filter((p) => p > 0);
  const least = all.reduce((low, p) => Math.min(low, p), base);
  const most = all.reduce((high, p) => Math.max(high, p), base);
  const log = base < 0.02;
  const scale = log
    ? logScale(least / 1.2, Math.min(1, most * 1.2), FRAME.bottom, FRAME.top, false)
    : unitY();
  return draw({
    title: plot.title,
    x: { scale: unitX(), label: 'recall' },
    y: { scale, label: `precision${log ? ' (logarithmic)' : ''}` },
    series: plot.series.map(({ name, points }) => {
      const seen = points.filter((p) => p.recall > 0 && p.precision > 0);
      return {
        name,
        points: seen.flatMap((p, i) => [
          { x: i === 0 ? 0 : seen[i - 1]!.recall, y: p.precision },
          { x: p.recall, y: p.precision },
        ]),
      };
    }),
    reference: { name: 'base rate', from: [0, base], to: [1, base] },
  });
}

/** Cumulative gains of `gainCurve`. Pure; O(points). */
export function gainPlot(plot: CurvePlot<GainPoint>): string {
  return draw({
    title: plot.title,
    x: { scale: unitX(), label: 'share of the trials, best predictions first' },
    y: { scale: unitY(), label: 'share of the successes' },
    series: plot.series.map(({ name, points }) => ({
      name,
      points: points.map((p) => ({ x: p.share, y: p.gain })),
    })),
    reference: { name: 'chance', from: [0, 0], to: [1, 1] },
  });
}

/** The first so many trials say hardly anything about lift: the curve starts here. */
const FIRST_SHARE = 0.005;

/** Lift of `liftCurve`, from the best half percent of the trials on. Pure; O(points). */
export function liftPlot(plot: CurvePlot<LiftPoint>): string {
  const series = plot.series.map(({ name, points }) => {
    const shown = points.filter((p) => p.share >= FIRST_SHARE);
    return {
      name,
      points: (shown.length > 0 ? shown : points).map((p) => ({ x: p.share, y: p.lift })),
    };
  });
  const most = series.flatMap((s) => s.points).reduce((high, p) => Math.max(high, p.y), 1);
  return draw({
    title: plot.title,
    x: { scale: unitX(), label: 'share of the trials, best predictions first' },
    y: {
      scale: linearScale(0, most, FRAME.bottom, FRAME.top),
      label: 'lift (times the average rate)',
    },
    series,
    reference: { name: 'average', from: [0, 1], to: [1, 1] },
  });
}
