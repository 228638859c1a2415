import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-node';
import { modelsError } from '../errors.js';
import {
  checkInputs,
  type ModelSignature,
  type TensorArrays,
  type TensorDtype,
  type TensorMap,
  type TensorSpec,
  type TensorValue,
} from '../runner/tensor.js';
import type { ModelLocation } from './messages.js';

export interface SessionOptions {
  /** Threads of ONE session; a pool divides its threads by its workers. */
  readonly intraOpNumThreads: number;
}

export interface ModelSession {
  readonly signature: ModelSignature;
  /** @param inputs borrowed until settled @returns outputs that own their memory */
  run(inputs: TensorMap): Promise<Record<string, TensorValue>>;
}

function readSpecs(metadata: readonly ort.InferenceSession.ValueMetadata[]): TensorSpec[] {
  return metadata.map((value) =>
    value.isTensor
      ? { name: value.name, dtype: value.type, dims: value.shape }
      : { name: value.name, dtype: 'not-a-tensor', dims: [] },
  );
}

async function readModel(model: ModelLocation): Promise<Uint8Array> {
  let bytes: Uint8Array;
  if (model.bytes !== undefined) {
    bytes = new Uint8Array(model.bytes.byteLength);
    bytes.set(new Uint8Array(model.bytes));
  } else if (model.path !== undefined) {
    try {
      bytes = await readFile(model.path);
    } catch (cause) {
      throw modelsError('WAGGLE_MODEL_NOT_FOUND', `model ${model.id}: cannot read ${model.path}`, {
        cause,
        details: { modelId: model.id, path: model.path },
      });
    }
  } else {
    throw modelsError('WAGGLE_MODEL_NOT_FOUND', `model ${model.id} has neither a path nor bytes`);
  }
  if (model.sha256 !== undefined) {
    const found = createHash('sha256').update(bytes).digest('hex');
    if (found !== model.sha256) {
      throw modelsError(
        'WAGGLE_MODEL_CORRUPT',
        `model ${model.id}: SHA-256 is ${found}, expected ${model.sha256}`,
        {
          details: { modelId: model.id, path: model.path, expected: model.sha256, found },
        },
      );
    }
  }
  return bytes;
}

/**
 * The sessions of one thread: one per model, made when first used and kept. ONNX sessions never cross
 * threads, and `run()` of onnxruntime-node 1.30 is synchronous, so each worker owns its own.
 */
export class SessionCache {
  readonly #sessions = new Map<string, Promise<ModelSession>>();
  readonly #options: SessionOptions;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** @throws WAGGLE_MODEL_NOT_FOUND, WAGGLE_MODEL_CORRUPT, WAGGLE_MODEL_INVALID */
  open(model: ModelLocation): Promise<ModelSession> {
    // Content is the key: the same id registered again with other content is another session, another id with the same is none.
    const key = model.sha256 ?? `${model.id}\0${model.path ?? ''}`;
    let session = this.#sessions.get(key);
    if (session === undefined) {
      session = this.#create(model);
      this.#sessions.set(key, session);
      // A failed load is forgotten, so that a repaired file can be loaded by the next request.
      session.catch(() => this.#sessions.delete(key));
    }
    return session;
  }

  async #create(model: ModelLocation): Promise<ModelSession> {
    const bytes = await readModel(model);
    let session: ort.InferenceSession;
    try {
      session = await ort.InferenceSession.create(bytes, {
        executionProviders: ['cpu'],
        intraOpNumThreads: this.#options.intraOpNumThreads,
        interOpNumThreads: 1,
        executionMode: 'sequential',
        graphOptimizationLevel: 'all',
        logSeverityLevel: 3,
      });
    } catch (cause) {
      throw modelsError(
        'WAGGLE_MODEL_INVALID',
        `model ${model.id} cannot be loaded: ${messageOf(cause)}`,
        {
          cause,
          details: { modelId: model.id, path: model.path, bytes: bytes.byteLength },
        },
      );
    }
    const signature: ModelSignature = {
      inputs: readSpecs(session.inputMetadata),
      outputs: readSpecs(session.outputMetadata),
    };
    return {
      signature,
      async run(inputs) {
        checkInputs(model.id, signature, inputs);
        const feeds: Record<string, ort.Tensor> = {};
        for (const [name, value] of Object.entries(inputs)) {
          feeds[name] = new ort.Tensor(
            value.dtype as 'float32',
            value.data as Float32Array,
            value.dims,
          );
        }
        let results: ort.InferenceSession.OnnxValueMapType;
        try {
          results = await session.run(feeds);
        } catch (cause) {
          throw modelsError(
            'WAGGLE_MODEL_RUN_FAILED',
            `model ${model.id} failed: ${messageOf(cause)}`,
            {
              cause,
              details: { modelId: model.id },
            },
          );
        }
        const outputs: Record<string, TensorValue> = {};
        for (const [name, value] of Object.entries(results)) {
          const out = value as ort.Tensor;
          outputs[name] = {
            dtype: out.type as TensorDtype,
            dims: [...out.dims],
            data: out.data as TensorArrays[TensorDtype],
          };
        }
        return outputs;
      },
    };
  }
}

export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
