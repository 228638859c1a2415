import { HOUR_MS } from '@waggle/core';

/**
 * What counts as a click, and how much of a placement's clicks has arrived by a given age: declared here,
 * once, for labels, historical rates and billing alike.
 */

/** Unique verified clicks count within this time of sending (`unique_verified_clicks`, 72 h). */
export const CLICK_WINDOW_MS = 72 * HOUR_MS;

/** Clocks of those who send and of those who see clicks differ: a click may come this much before its email. */
export const CLICK_EARLY_MS = HOUR_MS;

/** Whether a click counts for an ad sent then, as SQL over two columns in ms. A click dated long before its email does not. */
export function inClickWindowSql(clickMs: string, sentMs: string): string {
  return `(${clickMs} BETWEEN ${sentMs} - ${CLICK_EARLY_MS} AND ${sentMs} + ${CLICK_WINDOW_MS})`;
}

/**
 * Log-normal click delay in ln hours: fits GetResponse's published 33.6 % at 1 h, 51.4 % at 3 h and 81 % at 24 h
 * within 0.4 points.
 */
export const CLICK_DELAY_MU = 1.03;
export const CLICK_DELAY_SIGMA = 2.45;

/**
 * A click a person made, as a ClickHouse condition over columns of `clicks`. Scanners follow every link of an
 * email within seconds of delivery, touch the link that people cannot see, and often say what they are;
 * people rarely follow two ad links within ten seconds and almost never in the first seconds after delivery.
 */
export const VERIFIED_CLICK_SQL =
  "(NOT honeypot AND ua_class NOT IN ('bot', 'scanner', 'security') AND links_within_10s < 3 AND ms_since_delivery >= 5000 AND NOT (ms_since_delivery < 60000 AND links_within_10s > 1))";

/** The same rule for a row in memory. */
export function isVerifiedClick(click: {
  readonly honeypot: boolean;
  readonly ua_class: string;
  readonly links_within_10s: number;
  readonly ms_since_delivery: number;
}): boolean {
  return (
    !click.honeypot &&
    !['bot', 'scanner', 'security'].includes(click.ua_class) &&
    click.links_within_10s < 3 &&
    click.ms_since_delivery >= 5000 &&
    !(click.ms_since_delivery < 60000 && click.links_within_10s > 1)
  );
}

/**
 * Share of the clicks of the first 72 h that has arrived `ageMs` after sending: Φ((ln h − μ)/σ) / Φ((ln 72 − μ)/σ),
 * 1 from 72 h on, never below 1e-3 so that its logarithm can be an offset.
 */
export function clickMaturity(ageMs: number): number {
  if (ageMs >= CLICK_WINDOW_MS) return 1;
  if (!(ageMs > 0)) return 1e-3;
  const share = delayCdf(ageMs / HOUR_MS) / delayCdf(CLICK_WINDOW_MS / HOUR_MS);
  return Math.max(1e-3, Math.min(1, share));
}

function delayCdf(hours: number): number {
  return normalCdf((Math.log(hours) - CLICK_DELAY_MU) / CLICK_DELAY_SIGMA);
}

/** Φ(z) by W. J. Cody's rational erfc as given in Numerical Recipes (erfccheb's short form), |error| < 1.2e-7. */
export function normalCdf(z: number): number {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.5 * x);
  const erfc =
    t *
    Math.exp(
      -x * x -
        1.26551223 +
        t *
          (1.00002368 +
            t *
              (0.37409196 +
                t *
                  (0.09678418 +
                    t *
                      (-0.18628806 +
                        t *
                          (0.27886807 +
                            t *
                              (-1.13520398 +
                                t * (1.48851587 + t * (-0.82215223 + t * 0.17087277)))))))),
    );
  return z >= 0 ? 1 - erfc / 2 : erfc / 2;
}
