import { createHash } from 'node:crypto';
import { ctrFeatures, type FeatureSet } from '@waggle/features';
import { InlineRunner, OnnxRunner, type Runner, type RunnerStats } from '@waggle/models';
import { OnnxScorer } from '@waggle/ranking';
import { networkModel } from '../../../models/test/fixtures/onnx-model.js';
import type { ImportedModel } from '../../src/index.js';

const HIDDEN = 8;

/** A network of two layers that looks at a few features, as another tool would hand it over. */
export async function networkFor(
  set: FeatureSet = ctrFeatures,
  o: {
    readonly name?: string;
    readonly logit?: boolean;
    readonly offsetFeature?: string;
    readonly products?: number;
    readonly bias?: number;
    /** A feature that the answer moves with. */
    readonly heeds?: string;
  } = {},
): Promise<ImportedModel> {
  const { names } = set;
  const offset = o.offsetFeature ?? names.find((name) => name.startsWith('prior_logit'))!;
  const weigh = (name: string, h: number): number => {
    if (name === 'position' || name === o.heeds) return 0.05 * (h + 1);
    // Without a declared offset the prior is the graph's own business.
    if (name === offset && o.logit !== true) return -0.1;
    return name.includes('cos') ? 0.3 * Math.sin(h) : 0;
  };
  const hidden = names.flatMap((name) => Array.from({ length: HIDDEN }, (_, h) => weigh(name, h)));
  const output = Array.from({ length: HIDDEN }, (_, h) => (o.bias ?? -1.2) + 0.03 * h);
  const bytes = networkModel(hidden, output, o);
  const name = o.name ?? 'pctr_network';
  const contract: ImportedModel['contract'] = {
    ...{ contractVersion: 1, name, format: 'onnx', missing: 'refuse' },
    features: names.map((feature) => ({ name: feature, dtype: 'float32' })),
    featureSetFingerprint: set.fingerprint,
    output: { meaning: 'probability' },
    tensors: { input: 'features', output: 'answer' },
    ...(o.logit === true && { offsetFeature: offset, calibration: { a: 0.9, b: -0.05 } }),
    producer: 'test',
    dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
  };
  const version = `${name}@0123456789ab`;
  return { version, bytes, contract: await withExamples(version, contract, bytes), gated: true };
}

/** The contract with what the graph says of a few rows: by them a release knows that requests may share a run. */
async function withExamples(
  version: string,
  contract: ImportedModel['contract'],
  bytes: Uint8Array,
): Promise<ImportedModel['contract']> {
  const rows = Array.from({ length: 12 }, (_, r) =>
    contract.features.map((_feature, f) => Math.fround(Math.sin(1 + r + 0.7 * f))),
  );
  const runner = new InlineRunner();
  const scorer = await OnnxScorer.openForeign(runner, {
    ...{ version, contract, bytes },
    sha256: createHash('sha256').update(bytes).digest('hex'),
  });
  const outputs = Array.from(await scorer.score(Float32Array.from(rows.flat()), rows.length));
  await runner.close();
  return { ...contract, examples: { rows, outputs, tolerance: 1e-5 } };
}

/** A real runner whose runs can be held back or made to fail, as a slow or broken machine would. */
export class HeldRunner implements Runner {
  readonly #inner: OnnxRunner;
  /** Runs wait for it. */
  gate: Promise<void> = Promise.resolve();
  failure: Error | undefined;
  runs = 0;
  closed = false;
  #open: (() => void) | undefined;

  constructor(options: ConstructorParameters<typeof OnnxRunner>[0] = {}) {
    this.#inner = new OnnxRunner({ workers: 1, threads: 1, maxBatchRows: 2_048, ...options });
  }

  hold(): void {
    if (this.#open !== undefined) return;
    this.gate = new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  open(): void {
    this.#open?.();
    this.#open = undefined;
  }

  load(source: Parameters<Runner['load']>[0]): ReturnType<Runner['load']> {
    return this.#inner.load(source);
  }

  async run(...args: Parameters<Runner['run']>): ReturnType<Runner['run']> {
    this.runs++;
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    return this.#inner.run(...args);
  }

  call<T>(...args: Parameters<Runner['call']>): Promise<T> {
    return this.#inner.call(...args);
  }

  stats(): RunnerStats {
    return this.#inner.stats();
  }

  async close(): Promise<void> {
    await this.#inner.close();
    this.closed = true;
  }
}
