/**
 * Mean of each text's token vectors (padding left out), scaled to unit length: the pooling that
 * sentence-transformers gives all-MiniLM-L6-v2 (its `1_Pooling/config.json` and `2_Normalize`).
 *
 * @param hidden float32 [nTexts × width × dim], row-major
 * @param lengths tokens per text, [nTexts]; the first `lengths[i]` of `width` count
 * @param out float32 [nTexts × dim], overwritten; a zero mean stays zero
 * O(nTexts · width · dim)
 */
export function poolMean(
  hidden: Float32Array,
  lengths: Int32Array,
  shape: { readonly width: number; readonly dim: number },
  out: Float32Array,
): void {
  const { width, dim } = shape;
  for (let text = 0; text < lengths.length; text++) {
    const row = out.subarray(text * dim, (text + 1) * dim);
    row.fill(0);
    const nTokens = lengths[text]!;
    for (let t = 0; t < nTokens; t++) {
      const at = (text * width + t) * dim;
      for (let d = 0; d < dim; d++) row[d]! += hidden[at + d]!;
    }
    normalizeRow(row);
  }
}

/** Scales a vector to unit length in place; a zero vector stays zero. O(dim) */
export function normalizeRow(row: Float32Array): void {
  let squares = 0;
  for (let d = 0; d < row.length; d++) squares += row[d]! * row[d]!;
  if (!(squares > 0)) return;
  const scale = 1 / Math.sqrt(squares);
  for (let d = 0; d < row.length; d++) row[d]! *= scale;
}
