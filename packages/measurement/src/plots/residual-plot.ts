import type { ResidualBucket } from '../metrics/reliability.js';
import {
  drawFrame,
  escapeXml,
  type Frame,
  legendLine,
  linearScale,
  N_CHART_COLOURS,
  openChart,
  pixels,
  type Scale,
} from './svg.js';

export interface ResidualSeries {
  readonly name: string;
  /** From `residualsOverTime`. */
  readonly buckets: readonly ResidualBucket[];
}

export interface ResidualPlot {
  readonly title: string;
  readonly series: readonly ResidualSeries[];
}

const FRAME: Frame = { left: 78, right: 590, top: 44, bottom: 344 };
const HEIGHT = 400;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Steps of a time axis. */
const STEPS_MS = [
  HOUR_MS,
  3 * HOUR_MS,
  6 * HOUR_MS,
  12 * HOUR_MS,
  DAY_MS,
  2 * DAY_MS,
  7 * DAY_MS,
  14 * DAY_MS,
  28 * DAY_MS,
  91 * DAY_MS,
  364 * DAY_MS,
];

function timeScale(fromMs: number, toMs: number): Scale {
  const step =
    STEPS_MS.find((ms) => (toMs - fromMs) / ms <= 7) ??
    Math.ceil((toMs - fromMs) / 7 / DAY_MS) * DAY_MS;
  const ticks: number[] = [];
  for (let t = Math.ceil(fromMs / step) * step; t <= toMs; t += step) ticks.push(t);
  return {
    at: (ms) => FRAME.left + ((FRAME.right - FRAME.left) * (ms - fromMs)) / (toMs - fromMs),
    ticks,
  };
}

/** Relative residuals over time with a band of 95 % limits around them; 0 is what was promised. Pure; O(buckets). */
export function residualPlot(plot: ResidualPlot): string {
  const buckets = plot.series.flatMap((s) => s.buckets);
  const fromMs = buckets.reduce((low, b) => Math.min(low, b.fromMs), Number.POSITIVE_INFINITY);
  const toMs = buckets.reduce((high, b) => Math.max(high, b.toMs), Number.NEGATIVE_INFINITY);
  const empty = buckets.length === 0;
  const x = timeScale(empty ? 0 : fromMs, empty ? DAY_MS : toMs);
  // Where limits are unknown the band has no width.
  const reach = (b: ResidualBucket, sign: number): number => b.residual + sign * (b.margin ?? 0);
  // A bucket without clicks may have a huge error; the axis follows the points and shows at most twice their span.
  const span = buckets.reduce((most, b) => Math.max(most, Math.abs(b.residual)), 0.02);
  const low = Math.max(
    -1,
    -2 * span,
    buckets.reduce((m, b) => Math.min(m, reach(b, -1)), -0.02),
  );
  const high = Math.min(
    2 * span,
    buckets.reduce((m, b) => Math.max(m, reach(b, 1)), 0.02),
  );
  const y = linearScale(low, high, FRAME.bottom, FRAME.top);
  const clamp = (v: number): number => Math.min(Math.max(y.at(v), FRAME.top), FRAME.bottom);
  const days = x.ticks.every((t) => t % DAY_MS === 0);
  const out = openChart({
    title: plot.title,
    height: HEIGHT,
    nColours: Math.max(1, plot.series.length),
    left: FRAME.left,
  });
  const percent = (v: number): string =>
    `${v > 0 ? '+' : v < 0 ? '−' : ''}${Number(Math.abs(100 * v).toPrecision(3))} %`;
  out.push(
    ...drawFrame(
      FRAME,
      {
        scale: x,
        label: 'time (UTC)',
        format: (ms) =>
          new Date(ms)
            .toISOString()
            .slice(5, days ? 10 : 16)
            .replace('T', ' '),
      },
      { scale: y, label: 'observed over expected − 1', format: percent },
    ),
    `<path class="axis line" d="M${FRAME.left} ${pixels(clamp(0))}H${FRAME.right}"/>`,
  );
  plot.series.forEach(({ name, buckets: own }, i) => {
    const colour = i % N_CHART_COLOURS;
    const middle = (b: ResidualBucket): number => x.at((b.fromMs + b.toMs) / 2);
    // The band breaks where time has no buckets: nothing is said about what was not seen.
    for (const run of runsOf(own)) {
      const upper = run.map((b) => `${pixels(middle(b))} ${pixels(clamp(reach(b, 1)))}`);
      const lower = run.map((b) => `${pixels(middle(b))} ${pixels(clamp(reach(b, -1)))}`).reverse();
      out.push(
        `<path class="f${colour} soft" d="M${[...upper, ...lower].join('L')}Z"/>`,
        `<path class="line s${colour}" d="M${run.map((b) => `${pixels(middle(b))} ${pixels(clamp(b.residual))}`).join('L')}"/>`,
      );
    }
    for (const b of own) {
      const text = `${name}, ${new Date(b.fromMs).toISOString().slice(0, 16)}: ${percent(b.residual)}${b.margin === null ? '' : ` ± ${percent(b.margin).slice(1)}`}`;
      out.push(
        `<circle class="f${colour}" cx="${pixels(middle(b))}" cy="${pixels(clamp(b.residual))}" r="3.5"><title>${escapeXml(text)}</title></circle>`,
      );
    }
    out.push(...legendLine(FRAME, i, { name, colour }));
  });
  out.push(
    `<text x="${FRAME.right + 14}" y="${FRAME.top + 12 + plot.series.length * 20}">band: 95 % limits</text>`,
    '</svg>',
    '',
  );
  return out.join('\n');
}

function runsOf(buckets: readonly ResidualBucket[]): ResidualBucket[][] {
  const runs: ResidualBucket[][] = [];
  buckets.forEach((bucket, i) => {
    if (i > 0 && buckets[i - 1]!.toMs === bucket.fromMs) runs.at(-1)!.push(bucket);
    else runs.push([bucket]);
  });
  return runs;
}
