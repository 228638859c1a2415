/** A function of a few parameters; must answer Infinity where it is not defined. */
export type Objective = (x: Float64Array) => number;

export interface Minimum {
  readonly x: Float64Array;
  readonly value: number;
}

/**
 * Nelder–Mead with the dimension-adapted coefficients of Gao & Han (2012): no derivatives, bears kinks and walls of
 * Infinity. Deterministic. Restarted once from where it stopped, for a simplex may collapse early. O(maxEvaluations) calls
 * @param step [n] edge of the first simplex along each coordinate
 */
export function nelderMead(
  f: Objective,
  start: Float64Array,
  step: Float64Array,
  options: { readonly maxEvaluations?: number; readonly tolerance?: number } = {},
): Minimum {
  const budget = options.maxEvaluations ?? 200 * start.length;
  const first = descend(f, start, step, Math.ceil(budget / 2), options.tolerance ?? 1e-8);
  const smaller = step.map((s) => s / 4);
  return descend(f, first.x, smaller, Math.floor(budget / 2), options.tolerance ?? 1e-8);
}

function descend(
  f: Objective,
  start: Float64Array,
  step: Float64Array,
  budget: number,
  tolerance: number,
): Minimum {
  const n = start.length;
  const expand = 1 + 2 / n;
  const contract = 0.75 - 1 / (2 * n);
  const shrink = n === 1 ? 0.5 : 1 - 1 / n;
  const points: { x: Float64Array; value: number }[] = [{ x: start.slice(), value: f(start) }];
  for (let i = 0; i < n; i++) {
    const x = start.slice();
    x[i]! += step[i]!;
    points.push({ x, value: f(x) });
  }
  let evaluations = n + 1;
  const byValue = (a: { value: number }, b: { value: number }) =>
    a.value === b.value ? 0 : a.value < b.value ? -1 : 1;
  points.sort(byValue);
  const centre = new Float64Array(n);
  const along = (worst: Float64Array, factor: number) => {
    const x = new Float64Array(n);
    for (let i = 0; i < n; i++) x[i] = centre[i]! + factor * (centre[i]! - worst[i]!);
    evaluations++;
    return { x, value: f(x) };
  };
  while (evaluations < budget) {
    const best = points[0]!;
    const worst = points[n]!;
    if (worst.value - best.value <= tolerance * (Math.abs(best.value) + tolerance)) break;
    centre.fill(0);
    for (let k = 0; k < n; k++) {
      for (let i = 0; i < n; i++) centre[i]! += points[k]!.x[i]! / n;
    }
    const reflected = along(worst.x, 1);
    if (reflected.value < best.value) {
      const expanded = along(worst.x, expand);
      points[n] = expanded.value < reflected.value ? expanded : reflected;
    } else if (n > 1 && reflected.value < points[n - 1]!.value) {
      points[n] = reflected;
    } else {
      const outside = reflected.value < worst.value;
      const contracted = along(worst.x, outside ? contract : -contract);
      if (contracted.value < Math.min(reflected.value, worst.value)) {
        points[n] = contracted;
      } else {
        for (let k = 1; k <= n; k++) {
          const { x } = points[k]!;
          for (let i = 0; i < n; i++) x[i] = best.x[i]! + shrink * (x[i]! - best.x[i]!);
          points[k]!.value = f(x);
          evaluations++;
        }
      }
    }
    points.sort(byValue);
  }
  return points[0]!;
}

/** Minimum of a function of one variable in [low, high] by golden section; O(log((high − low)/tolerance)) calls. */
export function goldenSection(
  f: (x: number) => number,
  low: number,
  high: number,
  tolerance: number,
): number {
  const ratio = (Math.sqrt(5) - 1) / 2;
  let a = low;
  let b = high;
  let x1 = b - ratio * (b - a);
  let x2 = a + ratio * (b - a);
  let f1 = f(x1);
  let f2 = f(x2);
  while (b - a > tolerance) {
    if (f1 <= f2) {
      b = x2;
      x2 = x1;
      f2 = f1;
      x1 = b - ratio * (b - a);
      f1 = f(x1);
    } else {
      a = x1;
      x1 = x2;
      f1 = f2;
      x2 = a + ratio * (b - a);
      f2 = f(x2);
    }
  }
  return f1 <= f2 ? x1 : x2;
}

/**
 * BFGS with central differences and backtracking, for smooth functions of some dozens of coordinates of order one, close to
 * their minimum. Never ends above where it started. O(maxSteps · 2n) calls
 */
export function descendGradient(
  f: Objective,
  start: Float64Array,
  options: { readonly maxSteps?: number; readonly tolerance?: number } = {},
): Minimum {
  const n = start.length;
  const tolerance = options.tolerance ?? 1e-8;
  const x = start.slice();
  let value = f(x);
  if (!Number.isFinite(value)) return { x, value };
  const inverse = new Float64Array(n * n);
  const reset = () => {
    inverse.fill(0);
    for (let i = 0; i < n; i++) inverse[i * n + i] = 1;
  };
  reset();
  const gradient = new Float64Array(n);
  const differentiate = (into: Float64Array) => {
    for (let i = 0; i < n; i++) {
      const at = x[i]!;
      const step = 1e-5 * Math.max(1, Math.abs(at));
      x[i] = at + step;
      const up = f(x);
      x[i] = at - step;
      const down = f(x);
      x[i] = at;
      const slope = (up - down) / (2 * step);
      into[i] = Number.isFinite(slope) ? slope : 0;
    }
  };
  differentiate(gradient);
  const direction = new Float64Array(n);
  const next = new Float64Array(n);
  const nextGradient = new Float64Array(n);
  const change = new Float64Array(n);
  const bent = new Float64Array(n);
  let fresh = true;
  for (let step = 0; step < (options.maxSteps ?? 100); step++) {
    let slope = 0;
    let length = 0;
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < n; j++) sum -= inverse[i * n + j]! * gradient[j]!;
      direction[i] = sum;
      slope += sum * gradient[i]!;
      length += sum * sum;
    }
    if (!(slope < 0)) {
      if (fresh) break;
      reset();
      fresh = true;
      continue;
    }
    // The first step of a fresh approximation knows no scale: it starts with a length of one tenth.
    let size = fresh ? Math.min(1, 0.1 / Math.sqrt(length)) : 1;
    let found = Number.POSITIVE_INFINITY;
    for (let halving = 0; halving < 30; halving++) {
      for (let i = 0; i < n; i++) next[i] = x[i]! + size * direction[i]!;
      found = f(next);
      if (found <= value + 1e-4 * size * slope) break;
      found = Number.POSITIVE_INFINITY;
      size /= 2;
    }
    if (!Number.isFinite(found)) {
      if (fresh) break;
      reset();
      fresh = true;
      continue;
    }
    const gained = value - found;
    for (let i = 0; i < n; i++) change[i] = next[i]! - x[i]!;
    x.set(next);
    value = found;
    differentiate(nextGradient);
    let curvature = 0;
    for (let i = 0; i < n; i++) {
      nextGradient[i]! -= gradient[i]!;
      curvature += nextGradient[i]! * change[i]!;
    }
    // nextGradient holds the difference of gradients from here to the update.
    if (curvature > 1e-12) {
      let quadratic = 0;
      for (let i = 0; i < n; i++) {
        let sum = 0;
        for (let j = 0; j < n; j++) sum += inverse[i * n + j]! * nextGradient[j]!;
        bent[i] = sum;
        quadratic += sum * nextGradient[i]!;
      }
      const factor = (1 + quadratic / curvature) / curvature;
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++) {
          inverse[i * n + j]! +=
            factor * change[i]! * change[j]! -
            (bent[i]! * change[j]! + change[i]! * bent[j]!) / curvature;
        }
      }
      fresh = false;
    }
    for (let i = 0; i < n; i++) gradient[i]! += nextGradient[i]!;
    if (gained <= tolerance * (Math.abs(value) + 1)) break;
  }
  return { x, value };
}
