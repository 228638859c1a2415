/**
 * Writes the few ONNX messages that the peers' models need (onnx/onnx: onnx.proto, field numbers of IR version 8),
 * in the protocol buffers' wire format: https://protobuf.dev/programming-guides/encoding/.
 */

/** TensorProto.DataType */
export const FLOAT = 1;
export const INT64 = 7;

const IR_VERSION = 8;

const LENGTH_DELIMITED = 2;
const FIXED_32 = 5;

export class ProtoWriter {
  readonly #chunks: Uint8Array[] = [];
  #length = 0;

  #push(bytes: Uint8Array): void {
    this.#chunks.push(bytes);
    this.#length += bytes.length;
  }

  #varint(value: number | bigint): void {
    // Negative numbers take ten bytes, as the two's complement of 64 bits.
    let rest = BigInt.asUintN(64, BigInt(value));
    const bytes: number[] = [];
    do {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      bytes.push(rest === 0n ? low : low | 0x80);
    } while (rest !== 0n);
    this.#push(Uint8Array.from(bytes));
  }

  int(field: number, value: number): this {
    this.#varint(field << 3);
    this.#varint(value);
    return this;
  }

  float(field: number, value: number): this {
    this.#varint((field << 3) | FIXED_32);
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.#push(bytes);
    return this;
  }

  bytes(field: number, value: Uint8Array): this {
    this.#varint((field << 3) | LENGTH_DELIMITED);
    this.#varint(value.length);
    this.#push(value);
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  message(field: number, value: ProtoWriter): this {
    return this.bytes(field, value.finish());
  }

  finish(): Uint8Array {
    const out = new Uint8Array(this.#length);
    let at = 0;
    for (const chunk of this.#chunks) {
      out.set(chunk, at);
      at += chunk.length;
    }
    return out;
  }
}

export type AttributeValue =
  | { readonly int: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] }
  | { readonly floats: readonly number[] }
  | { readonly strings: readonly string[] };

/** AttributeProto, with the type field that IR version 2 and later ask for. */
function attribute(name: string, value: AttributeValue): ProtoWriter {
  const out = new ProtoWriter().string(1, name);
  if ('int' in value) return out.int(3, value.int).int(20, 2);
  if ('string' in value) return out.string(4, value.string).int(20, 3);
  if ('floats' in value) {
    for (const one of value.floats) out.float(7, one);
    return out.int(20, 6);
  }
  if ('ints' in value) {
    for (const one of value.ints) out.int(8, one);
    return out.int(20, 7);
  }
  for (const one of value.strings) out.string(9, one);
  return out.int(20, 8);
}

export interface OnnxNode {
  readonly op: string;
  readonly domain?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
}

export interface OnnxValue {
  readonly name: string;
  readonly type: typeof FLOAT | typeof INT64;
  /** A string names a dimension that the caller chooses. */
  readonly shape: readonly (number | string)[];
}

export interface OnnxConstant {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | BigInt64Array;
}

export interface OnnxGraph {
  readonly name: string;
  readonly nodes: readonly OnnxNode[];
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
  readonly constants?: readonly OnnxConstant[];
  readonly opsets: Readonly<Record<string, number>>;
}

function valueInfo({ name, type, shape }: OnnxValue): ProtoWriter {
  const dims = new ProtoWriter();
  for (const dim of shape) {
    const one = new ProtoWriter();
    if (typeof dim === 'number') one.int(1, dim);
    else one.string(2, dim);
    dims.message(1, one);
  }
  const tensor = new ProtoWriter().int(1, type).message(2, dims);
  return new ProtoWriter().string(1, name).message(2, new ProtoWriter().message(1, tensor));
}

/** ModelProto of one graph. */
export function writeOnnx(graph: OnnxGraph): Uint8Array {
  const out = new ProtoWriter();
  for (const { op, domain, inputs, outputs, attributes } of graph.nodes) {
    const node = new ProtoWriter();
    for (const input of inputs) node.string(1, input);
    for (const output of outputs) node.string(2, output);
    node.string(3, outputs[0] ?? op).string(4, op);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      node.message(5, attribute(name, value));
    }
    if (domain !== undefined) node.string(7, domain);
    out.message(1, node);
  }
  out.string(2, graph.name);
  for (const { name, shape, data } of graph.constants ?? []) {
    const tensor = new ProtoWriter();
    for (const dim of shape) tensor.int(1, dim);
    tensor
      .int(2, data instanceof Float32Array ? FLOAT : INT64)
      .string(8, name)
      .bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    out.message(5, tensor);
  }
  for (const input of graph.inputs) out.message(11, valueInfo(input));
  for (const output of graph.outputs) out.message(12, valueInfo(output));
  const model = new ProtoWriter().int(1, IR_VERSION).string(2, 'waggle-benchmarks').message(7, out);
  for (const [domain, version] of Object.entries(graph.opsets)) {
    model.message(8, new ProtoWriter().string(1, domain).int(2, version));
  }
  return model.finish();
}
