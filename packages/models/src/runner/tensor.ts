import { modelsError } from '../errors.js';

/**
 * Plain tensors: what crosses between threads and what callers build, free of any runtime's classes.
 * `bool` is carried by bytes 0 and 1.
 */
export interface TensorArrays {
  float32: Float32Array;
  float64: Float64Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  int32: Int32Array;
  uint32: Uint32Array;
  int64: BigInt64Array;
  uint64: BigUint64Array;
  bool: Uint8Array;
}

export type TensorDtype = keyof TensorArrays;

/** Row-major values of shape `dims`. */
export interface TensorValue<D extends TensorDtype = TensorDtype> {
  readonly dtype: D;
  readonly dims: readonly number[];
  readonly data: TensorArrays[D];
}

export type TensorMap = Readonly<Record<string, TensorValue>>;

/** One input or output as a model declares it: a number is fixed, a name or null is free. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: string;
  readonly dims: readonly (number | string | null)[];
}

export interface ModelSignature {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

const CONSTRUCTORS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const;

/**
 * @param data values of `dims` in row-major order; kept, not copied
 * @throws WAGGLE_MODEL_INPUT_MISMATCH when the length or type of `data` does not fit
 */
export function tensor<D extends TensorDtype>(
  dtype: D,
  data: TensorArrays[D],
  dims: readonly number[],
): TensorValue<D> {
  const value = { dtype, data, dims };
  const problem = tensorProblem(value);
  if (problem !== undefined) throw modelsError('WAGGLE_MODEL_INPUT_MISMATCH', problem);
  return value;
}

/** Why a tensor is malformed, or undefined. */
export function tensorProblem(value: TensorValue): string | undefined {
  const Constructor = CONSTRUCTORS[value.dtype];
  if (Constructor === undefined) return `dtype ${String(value.dtype)} is not supported`;
  if (!(value.data instanceof Constructor))
    return `values of dtype ${value.dtype} must be in a ${Constructor.name}`;
  let size = 1;
  for (const dim of value.dims) {
    if (!Number.isSafeInteger(dim) || dim < 0) return `dimension ${dim} is not a whole number`;
    size *= dim;
  }
  if (size !== value.data.length) {
    return `${value.data.length} values do not fill the shape [${value.dims.join(', ')}]`;
  }
  return undefined;
}

function describe(spec: TensorSpec): string {
  return `${spec.name}: ${spec.dtype}[${spec.dims.map((d) => (d === null || d === '' ? '?' : d)).join(', ')}]`;
}

/**
 * Checks a request against a model's signature: every input present and no other, same dtype, same rank,
 * fixed dimensions equal, dimensions of one name equal throughout.
 * @throws WAGGLE_MODEL_INPUT_MISMATCH
 */
export function checkInputs(modelId: string, signature: ModelSignature, inputs: TensorMap): void {
  const fail = (why: string) =>
    modelsError('WAGGLE_MODEL_INPUT_MISMATCH', `model ${modelId}: ${why}`, {
      details: { modelId, expected: signature.inputs.map(describe), given: Object.keys(inputs) },
    });
  for (const name of Object.keys(inputs)) {
    if (!signature.inputs.some((spec) => spec.name === name))
      throw fail(`it has no input named ${name}`);
  }
  const bound = new Map<string, number>();
  for (const spec of signature.inputs) {
    const value = inputs[spec.name];
    if (value === undefined) throw fail(`input ${spec.name} is missing`);
    const problem = tensorProblem(value);
    if (problem !== undefined) throw fail(`input ${spec.name}: ${problem}`);
    if (value.dtype !== spec.dtype) throw fail(`input ${describe(spec)} was given ${value.dtype}`);
    if (value.dims.length !== spec.dims.length) {
      throw fail(`input ${describe(spec)} was given shape [${value.dims.join(', ')}]`);
    }
    for (let i = 0; i < spec.dims.length; i++) {
      const declared = spec.dims[i];
      const given = value.dims[i]!;
      if (typeof declared === 'string' && declared !== '') {
        const earlier = bound.get(declared);
        if (earlier !== undefined && earlier !== given) {
          throw fail(
            `dimension ${declared} is ${earlier} in one input and ${given} in ${spec.name}`,
          );
        }
        bound.set(declared, given);
      } else if (typeof declared === 'number' && declared !== given) {
        throw fail(`input ${describe(spec)} was given shape [${value.dims.join(', ')}]`);
      }
    }
  }
}

/**
 * Checks that a model file is the one its caller was written for. Free dimensions of `expected` (names, null)
 * accept anything; a free dimension of the model accepts any expected size.
 * @throws WAGGLE_MODEL_INPUT_MISMATCH
 */
export function checkSignature(
  modelId: string,
  found: ModelSignature,
  expected: Partial<ModelSignature>,
): void {
  for (const side of ['inputs', 'outputs'] as const) {
    const wanted = expected[side];
    if (wanted === undefined) continue;
    const got = found[side];
    const same =
      (side === 'outputs' || wanted.length === got.length) &&
      wanted.every((want) => {
        const have = got.find((spec) => spec.name === want.name);
        return (
          have !== undefined &&
          have.dtype === want.dtype &&
          have.dims.length === want.dims.length &&
          want.dims.every((dim, i) => {
            const other = have.dims[i];
            return typeof dim !== 'number' || typeof other !== 'number' || dim === other;
          })
        );
      });
    if (!same) {
      throw modelsError(
        'WAGGLE_MODEL_INPUT_MISMATCH',
        `model ${modelId} has the ${side} (${got.map(describe).join('; ')}), not (${wanted.map(describe).join('; ')})`,
        { details: { modelId, side, found: got.map(describe), expected: wanted.map(describe) } },
      );
    }
  }
}

/** Number of rows of a request whose tensors share their first dimension, else undefined. */
export function commonRows(inputs: TensorMap): number | undefined {
  let rows: number | undefined;
  for (const value of Object.values(inputs)) {
    const first = value.dims[0];
    if (first === undefined || (rows !== undefined && rows !== first)) return undefined;
    rows = first;
  }
  return rows;
}

/** Two requests may share a run when this key is equal: same names, dtypes and shapes below the rows. */
export function shapeKey(inputs: TensorMap): string {
  return Object.keys(inputs)
    .sort()
    .map((name) => `${name}:${inputs[name]!.dtype}:${inputs[name]!.dims.slice(1).join('x')}`)
    .join('|');
}

/** Concatenates along the first dimension; the result owns its memory. O(values). */
export function concatRows(parts: readonly TensorMap[]): TensorMap {
  const out: Record<string, TensorValue> = {};
  for (const name of Object.keys(parts[0]!)) {
    const first = parts[0]![name]!;
    const length = parts.reduce((sum, part) => sum + part[name]!.data.length, 0);
    const rows = parts.reduce((sum, part) => sum + part[name]!.dims[0]!, 0);
    const data = new CONSTRUCTORS[first.dtype](length) as Float32Array;
    let at = 0;
    for (const part of parts) {
      const source = part[name]!.data as Float32Array;
      data.set(source, at);
      at += source.length;
    }
    out[name] = { dtype: first.dtype, dims: [rows, ...first.dims.slice(1)], data };
  }
  return out;
}

/** Rows [from, to) of every tensor; the result owns its memory. */
export function sliceRows(whole: TensorMap, from: number, to: number): Record<string, TensorValue> {
  const out: Record<string, TensorValue> = {};
  for (const [name, value] of Object.entries(whole)) {
    const width = value.dims.slice(1).reduce((product, dim) => product * dim, 1);
    out[name] = {
      dtype: value.dtype,
      dims: [to - from, ...value.dims.slice(1)],
      data: value.data.slice(from * width, to * width) as Float32Array,
    };
  }
  return out;
}

/** The buffers behind a map of tensors, once each, for a transfer list. */
export function buffersOf(map: TensorMap): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  for (const value of Object.values(map)) {
    if (value.data.buffer instanceof ArrayBuffer) buffers.add(value.data.buffer);
  }
  return [...buffers];
}

/** A copy that owns its memory alone, so that it can be transferred. */
export function copyTensors(map: TensorMap): Record<string, TensorValue> {
  return Object.fromEntries(
    Object.entries(map).map(([name, value]) => [
      name,
      { ...value, data: value.data.slice() as Float32Array },
    ]),
  );
}
