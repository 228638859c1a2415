import { createHash } from 'node:crypto';
import { modelsError } from '../errors.js';
import type { ModelLocation } from '../worker/messages.js';
import type { ModelSource } from './runner.js';
import { checkSignature, type ModelSignature } from './tensor.js';

export interface LoadedModel {
  readonly location: ModelLocation;
  readonly signature: ModelSignature;
  readonly batch: boolean;
}

/** The models a runner knows, by id. */
export class ModelTable {
  readonly #models = new Map<string, LoadedModel>();

  /** @param open loads the model somewhere and answers what it declares */
  async load(
    source: ModelSource,
    open: (location: ModelLocation) => Promise<ModelSignature>,
  ): Promise<ModelSignature> {
    const location = locate(source);
    const known = this.#models.get(source.id);
    const same =
      known !== undefined &&
      known.location.sha256 === location.sha256 &&
      known.location.path === location.path;
    const signature = same ? known.signature : await open(location);
    if (source.expected !== undefined) checkSignature(source.id, signature, source.expected);
    if (!same) this.#models.set(source.id, { location, signature, batch: source.batch ?? true });
    return signature;
  }

  get(id: string): LoadedModel {
    const model = this.#models.get(id);
    if (model === undefined) {
      throw modelsError(
        'WAGGLE_MODEL_NOT_FOUND',
        `no model named ${id} has been loaded into this runner`,
        {
          details: { modelId: id, loaded: [...this.#models.keys()] },
          remedy: 'Call load() with the model before run().',
        },
      );
    }
    return model;
  }
}

function locate(source: ModelSource): ModelLocation {
  if (source.bytes !== undefined) {
    const shared = new SharedArrayBuffer(source.bytes.byteLength);
    new Uint8Array(shared).set(source.bytes);
    const sha256 = source.sha256 ?? createHash('sha256').update(source.bytes).digest('hex');
    return { id: source.id, bytes: shared, sha256 };
  }
  if (source.path === undefined) {
    throw modelsError(
      'WAGGLE_MODEL_NOT_FOUND',
      `model ${source.id} was given neither a path nor bytes`,
    );
  }
  return {
    id: source.id,
    path: source.path,
    ...(source.sha256 === undefined ? {} : { sha256: source.sha256 }),
  };
}
