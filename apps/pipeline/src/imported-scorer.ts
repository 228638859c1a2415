import { createHash } from 'node:crypto';
import { checkFormat, type ForeignContract, InlineRunner } from '@waggle/models';
import { checkExamples, OnnxScorer, type Scorer, TreesScorer } from '@waggle/ranking';

/**
 * Opens a model of another tool as serving would, holds the examples of its contract against it, and has it do some work.
 * @throws WAGGLE_MODEL_FORMAT, what `TreesScorer.open`, `OnnxScorer.openForeign` and `checkExamples` throw, what `work` throws
 */
export async function withImportedScorer<T>(
  model: {
    readonly version: string;
    readonly contract: ForeignContract;
    readonly bytes: Uint8Array;
  },
  work: (scorer: Scorer) => Promise<T>,
): Promise<T> {
  const { contract, bytes } = model;
  checkFormat(contract, bytes);
  if (contract.tensors === undefined) {
    const trees = await TreesScorer.open(model);
    try {
      return await work(trees);
    } finally {
      await trees.close();
    }
  }
  const runner = new InlineRunner();
  try {
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const network = await OnnxScorer.openForeign(runner, { ...model, sha256 });
    await checkExamples(network, contract);
    return await work(network);
  } finally {
    await runner.close();
  }
}
