/**
 * What a model's raw logit still needs to become a probability. Platt's two numbers keep the order of
 * candidates (a > 0) and repair both level and spread (Platt 1999).
 */
export type Calibration =
  | { readonly kind: 'identity' }
  | { readonly kind: 'platt'; readonly a: number; readonly b: number };

/** Logistic function without overflow at either end; p of a logit. */
export function sigmoid(logit: number): number {
  if (logit >= 0) return 1 / (1 + Math.exp(-logit));
  const e = Math.exp(logit);
  return e / (1 + e);
}

/** Inverse of `sigmoid`; ±Infinity at 1 and 0. */
export function logit(p: number): number {
  return Math.log(p) - Math.log1p(-p);
}

/** The calibration as `a·logit + b`: identity is (1, 0). */
export function calibrationLine(calibration: Calibration): { a: number; b: number } {
  return calibration.kind === 'identity' ? { a: 1, b: 0 } : { a: calibration.a, b: calibration.b };
}

/** Probability of a raw logit after calibration. */
export function calibrate(calibration: Calibration, rawLogit: number): number {
  return calibration.kind === 'identity'
    ? sigmoid(rawLogit)
    : sigmoid(calibration.a * rawLogit + calibration.b);
}
