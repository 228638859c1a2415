import type { SerializedWaggleError } from '@waggle/core';
import type { ModelSignature, TensorValue } from '../runner/tensor.js';

/** Where a thread finds a model: a file, or bytes shared by all threads. */
export interface ModelLocation {
  readonly id: string;
  readonly path?: string;
  readonly bytes?: SharedArrayBuffer;
  /** Checked against the bytes that are loaded, in every thread. */
  readonly sha256?: string;
}

export type WorkerTask =
  | { readonly kind: 'load'; readonly model: ModelLocation }
  | {
      readonly kind: 'run';
      readonly model: ModelLocation;
      readonly inputs: Record<string, TensorValue>;
    }
  | {
      readonly kind: 'call';
      readonly module: string;
      readonly name: string;
      readonly payload: unknown;
    };

/** An Error posted between threads loses its class and code, so failures travel as data. */
export type WorkerReply<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: SerializedWaggleError };

export interface RunReply {
  readonly outputs: Record<string, TensorValue>;
  readonly signature: ModelSignature;
}
