import { modelsError } from '../errors.js';
import {
  checkServed,
  FOREIGN_FILES,
  type ForeignContract,
  type ForeignFormat,
  parseContract,
  type ServedFeatures,
} from './contract.js';
import { canonicalJson, type ModelLineage, type ModelManifest } from './manifest.js';
import type { ModelRegistry } from './model-registry.js';

const CONTRACT_FILE = 'contract.json';

/** A model of another tool as the registry keeps it: bytes and contract, both checked against their hashes. */
export interface ForeignModel {
  readonly manifest: ModelManifest;
  readonly contract: ForeignContract;
  readonly bytes: Uint8Array;
  readonly sha256: string;
}

/**
 * Which of the known files some bytes are, by how they begin; undefined when none.
 * (LightGBM's text, XGBoost's JSON and UBJSON, an ONNX protobuf, our own container.)
 */
export function detectFormat(bytes: Uint8Array): ForeignFormat | undefined {
  const text = String.fromCharCode(...bytes.subarray(0, 64));
  if (text.startsWith('\x89WGL\r\n')) return 'waggle';
  if (/^tree\r?\n/.test(text)) return 'lightgbm';
  if (/^\{\s*["}]/.test(text)) return 'xgboost-json';
  if (text.startsWith('{')) return 'xgboost-ubj';
  if (bytes.length > 1 && bytes[0] === 0x08) return 'onnx';
  return undefined;
}

/**
 * Keeps a model trained elsewhere with its contract. Equal content is the same version.
 * @param judged further files, such as a verdict and a card, and the numbers that go with them: the same model, judged, is a version
 *   of its own
 * @throws WAGGLE_MODEL_FORMAT when the bytes are not what the contract says, or nothing known; WAGGLE_CONFIG_INVALID,
 *   WAGGLE_MODEL_CONTRACT_MISMATCH, WAGGLE_MODEL_STORAGE
 */
export async function registerForeign(
  registry: ModelRegistry,
  bytes: Uint8Array,
  contract: ForeignContract,
  judged: {
    readonly artifacts?: Readonly<Record<string, Uint8Array>>;
    readonly metrics?: ModelLineage['metrics'];
  } = {},
): Promise<ModelManifest> {
  const checked = parseContract(contract, `contract of ${contract.name}`);
  checkFormat(checked, bytes);
  return registry.register({
    name: checked.name,
    artifacts: {
      ...judged.artifacts,
      [FOREIGN_FILES[checked.format]]: bytes,
      [CONTRACT_FILE]: Buffer.from(`${canonicalJson(checked)}\n`),
    },
    lineage: {
      dataRange: checked.dataRange,
      featureSetFingerprint: checked.featureSetFingerprint,
      codeVersion: checked.producer,
      metrics: { ...checked.metrics, ...judged.metrics },
    },
  });
}

/**
 * Opens a version that `registerForeign` made.
 * @param served the feature set that will feed it; refused when the model was not made for it
 * @throws WAGGLE_MODEL_NOT_FOUND (also for a model trained here, which has no contract), WAGGLE_MODEL_CORRUPT (a file
 *   was altered), WAGGLE_MODEL_CONTRACT_MISMATCH, WAGGLE_MODEL_FORMAT
 */
export async function openForeign(
  registry: ModelRegistry,
  version: string,
  served?: ServedFeatures,
): Promise<ForeignModel> {
  const model = await registry.get(version);
  if (!Object.hasOwn(model.manifest.artifacts, CONTRACT_FILE)) {
    throw modelsError('WAGGLE_MODEL_NOT_FOUND', `${version} was not imported: it has no contract`, {
      details: { version },
      remedy:
        'Name an imported model. Models trained here are gated by `waggle train` and released without being named.',
    });
  }
  const text = new TextDecoder('utf-8', { fatal: true }).decode(
    await model.artifact(CONTRACT_FILE),
  );
  const contract = parseContract(JSON.parse(text), `contract of ${version}`);
  if (served !== undefined) checkServed(contract, served);
  const file = FOREIGN_FILES[contract.format];
  const bytes = await model.artifact(file);
  checkFormat(contract, bytes);
  const { sha256 } = model.manifest.artifacts[file]!;
  return { manifest: model.manifest, contract, bytes, sha256 };
}

/** @throws WAGGLE_MODEL_FORMAT when the bytes are not of the declared format, or of none that is known */
export function checkFormat(contract: ForeignContract, bytes: Uint8Array): void {
  const found = detectFormat(bytes);
  if (found === contract.format) return;
  throw modelsError(
    'WAGGLE_MODEL_FORMAT',
    `${contract.name}: the contract says ${contract.format}; the file is ${found ?? 'nothing known'}`,
    { details: { declared: contract.format, found: found ?? null, bytes: bytes.length } },
  );
}
