import { ctrFeatures } from '@waggle/features';
import type { ForeignContract } from '@waggle/models';
import { treesFit } from '@waggle/native';
import type { ImportedModel } from '../../src/index.js';

const { names } = ctrFeatures;

/** Trees that raise the odds with the place in the email, fitted around the prior and stored as another tool's file. */
export async function treesFor(contract: Partial<ForeignContract> = {}): Promise<ImportedModel> {
  const nRows = 2_000;
  const x = new Float32Array(nRows * names.length);
  const y = new Float64Array(nRows);
  const position = names.indexOf('position');
  for (let i = 0; i < nRows; i++) {
    x[i * names.length + position] = 1 + (i % 5);
    y[i] = i % 5 === 0 && i % 3 !== 0 ? 1 : 0;
  }
  const { trees } = await treesFit({
    ...{ x, nRows, nFeatures: names.length, y, objective: 'logistic' },
    ...{ nTrees: 20, maxLeaves: 4 },
  });
  const bytes = trees.toBytes();
  await trees.close();
  return {
    version: 'pctr_trees@0123456789ab',
    bytes,
    gated: true,
    contract: {
      ...{ contractVersion: 1, name: 'pctr_trees', format: 'waggle', missing: 'nan' },
      features: names.map((name) => ({ name, dtype: 'float32' })),
      featureSetFingerprint: ctrFeatures.fingerprint,
      output: { meaning: 'probability' },
      offsetFeature: 'prior_logit_ctr',
      producer: 'test',
      dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
      ...contract,
    },
  };
}
