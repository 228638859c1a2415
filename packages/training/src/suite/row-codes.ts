/** Codes of several levels as `solveEffects` takes them: int32 [nRows × levels], row-major. */
export function rowCodes(levels: readonly ArrayLike<number>[], nRows: number): Int32Array {
  const codes = new Int32Array(nRows * levels.length);
  levels.forEach((level, l) => {
    for (let i = 0; i < nRows; i++) codes[i * levels.length + l] = level[i]!;
  });
  return codes;
}
