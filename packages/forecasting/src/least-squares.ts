/**
 * Solves (A + ridge·I) x = b for a symmetric positive semidefinite A by Cholesky; a pivot that vanishes drops its
 * variable. `a` and `b` are overwritten; the answer is in `b`. O(n³/6)
 * @param a float64 [n × n], row-major, lower triangle read
 */
export function solveSymmetric(a: Float64Array, b: Float64Array, n: number, ridge = 0): void {
  let scale = 0;
  for (let i = 0; i < n; i++) scale = Math.max(scale, a[i * n + i]!);
  const floor = scale * 1e-13;
  for (let j = 0; j < n; j++) {
    let pivot = a[j * n + j]! + ridge;
    for (let k = 0; k < j; k++) pivot -= a[j * n + k]! ** 2;
    const dropped = !(pivot > floor);
    const root = dropped ? 0 : Math.sqrt(pivot);
    a[j * n + j] = root;
    for (let i = j + 1; i < n; i++) {
      if (dropped) {
        a[i * n + j] = 0;
        continue;
      }
      let sum = a[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= a[i * n + k]! * a[j * n + k]!;
      a[i * n + j] = sum / root;
    }
  }
  for (let i = 0; i < n; i++) {
    let sum = b[i]!;
    for (let k = 0; k < i; k++) sum -= a[i * n + k]! * b[k]!;
    const root = a[i * n + i]!;
    b[i] = root === 0 ? 0 : sum / root;
  }
  for (let i = n - 1; i >= 0; i--) {
    let sum = b[i]!;
    for (let k = i + 1; k < n; k++) sum -= a[k * n + i]! * b[k]!;
    const root = a[i * n + i]!;
    b[i] = root === 0 ? 0 : sum / root;
  }
}
