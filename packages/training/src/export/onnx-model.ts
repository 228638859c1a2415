import { createHash } from 'node:crypto';
import protobuf from 'protobufjs/light.js';
import { trainingError } from '../errors.js';
import { ONNX_ATTRIBUTE, ONNX_DOUBLE, ONNX_FLOAT, ONNX_INT64, ONNX_SCHEMA } from './onnx-schema.js';

/** Read by every onnxruntime since 1.12; newer ones still do. */
const IR_VERSION = 8;
const OPSET = 17;

const ModelProto = protobuf.Root.fromJSON(
  // fromJSON wants a mutable type; it does not write to it.
  ONNX_SCHEMA as unknown as protobuf.INamespace,
).lookupType('onnx.ModelProto');

export interface OnnxExport {
  readonly bytes: Uint8Array;
  readonly sha256: string;
}

/** A graph and what the file says about itself. */
export interface OnnxModel {
  readonly name: string;
  readonly docString: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Operator sets beside the standard one. */
  readonly domains?: Readonly<Record<string, number>>;
  readonly nodes: readonly object[];
  readonly initializers: readonly object[];
  readonly inputs: readonly object[];
  readonly outputs: readonly object[];
}

/** Byte-stable for equal content, so that its hash can name it. @throws WAGGLE_TRAINING_SHAPE */
export function encodeOnnx(model: OnnxModel): OnnxExport {
  const domains = Object.entries(model.domains ?? {});
  const message = {
    irVersion: IR_VERSION,
    producerName: 'waggle',
    producerVersion: '0.1.0',
    domain: 'waggle',
    modelVersion: 1,
    docString: model.docString,
    opsetImport: [
      { domain: '', version: OPSET },
      ...domains.map(([domain, version]) => ({ domain, version })),
    ],
    metadataProps: Object.entries(model.metadata).map(([key, value]) => ({ key, value })),
    graph: {
      name: model.name,
      node: model.nodes,
      initializer: model.initializers,
      input: model.inputs,
      output: model.outputs,
    },
  };
  const problem = ModelProto.verify(message);
  if (problem !== null) throw trainingError('WAGGLE_TRAINING_SHAPE', `ONNX message: ${problem}`);
  const bytes = new Uint8Array(ModelProto.encode(message).finish());
  return { bytes, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** Reads back what an export wrote, as plain objects; for inspection and tests. */
export function decodeOnnx(bytes: Uint8Array): Record<string, unknown> {
  return ModelProto.toObject(ModelProto.decode(bytes), { longs: Number, arrays: true });
}

/** One operator with one output, which names it. */
export function node(
  opType: string,
  input: readonly string[],
  output: string,
  attribute: readonly object[] = [],
  domain = '',
): object {
  const more = { ...(attribute.length > 0 && { attribute }), ...(domain !== '' && { domain }) };
  return { opType, name: output, input, output: [output], ...more };
}

export const intAttribute = (name: string, i: number): object => ({
  name,
  i,
  type: ONNX_ATTRIBUTE.int,
});

export const intsAttribute = (name: string, ints: readonly number[]): object => ({
  name,
  ints,
  type: ONNX_ATTRIBUTE.ints,
});

const utf8 = new TextEncoder();

export const stringAttribute = (name: string, text: string): object => ({
  name,
  s: utf8.encode(text),
  type: ONNX_ATTRIBUTE.string,
});

export const stringsAttribute = (name: string, texts: readonly string[]): object => ({
  name,
  strings: texts.map((text) => utf8.encode(text)),
  type: ONNX_ATTRIBUTE.strings,
});

export const tensorAttribute = (name: string, t: object): object => ({
  name,
  t,
  type: ONNX_ATTRIBUTE.tensor,
});

export function floats(name: string, dims: readonly number[], values: ArrayLike<number>): object {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < values.length; i++) view.setFloat32(4 * i, values[i]!, true);
  return { name, dims, dataType: ONNX_FLOAT, rawData: bytes };
}

export function doubles(name: string, dims: readonly number[], values: ArrayLike<number>): object {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < values.length; i++) view.setFloat64(8 * i, values[i]!, true);
  return { name, dims, dataType: ONNX_DOUBLE, rawData: bytes };
}

export function int64s(name: string, dims: readonly number[], values: readonly number[]): object {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, v] of values.entries()) view.setBigInt64(8 * i, BigInt(v), true);
  return { name, dims, dataType: ONNX_INT64, rawData: bytes };
}

/** A float32 input or output; 'N' stands for any number of rows. */
export function value(name: string, dims: readonly (number | 'N')[]): object {
  const dim = dims.map((d) => (d === 'N' ? { dimParam: d } : { dimValue: d }));
  return { name, type: { tensorType: { elemType: ONNX_FLOAT, shape: { dim } } } };
}
