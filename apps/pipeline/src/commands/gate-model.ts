import { checkServable } from '@waggle/engine';
import { acceptFeatures, ctrFeatures } from '@waggle/features';
import { checkServed, type ForeignContract } from '@waggle/models';
import { gateImported, importedModelCard } from '@waggle/training';
import type { CommandContext } from '../context.js';
import { asOfOption } from '../data-range.js';
import { withImportedScorer } from '../imported-scorer.js';
import { type ModelName, openRegistry } from '../model-registry.js';
import { correctionOfImported } from '../selection.js';
import { dataset } from './features.js';
import { seedOption } from './simulate.js';
import { tableOf, withVerdict } from './train.js';

const SETS = { pctr: ctrFeatures, accept: acceptFeatures } as const satisfies Record<
  ModelName,
  unknown
>;

/** Which decision an imported model is for: the one whose features it reads. @throws WAGGLE_MODEL_CONTRACT_MISMATCH */
function decisionOf(contract: ForeignContract): ModelName {
  const decision = (['pctr', 'accept'] as const).find(
    (name) => SETS[name].fingerprint === contract.featureSetFingerprint,
  );
  const set = SETS[decision ?? 'pctr'];
  checkServed(contract, { names: set.names, fingerprint: set.fingerprint });
  return decision ?? 'pctr';
}

/**
 * `waggle models gate`: holds an imported model against the prior on rows later than it learned from, and keeps the verdict and a
 * card beside it as a further version of the same model; the active one of its name when it passed. A pCTR that passed is corrected
 * for selection, as those are that are trained here.
 */
export async function gateModel(
  context: CommandContext,
  version: string,
  options: Record<string, unknown>,
): Promise<undefined> {
  const seed = seedOption(options['seed'] ?? 1);
  const registry = await openRegistry(context);
  const model = await registry.imported(version);
  const { contract, manifest, bytes } = model;
  const decision = decisionOf(contract);
  checkServable(manifest.version, contract);
  const set = SETS[decision];
  const { gate, slices, correction } = await context.withStore(async (store) => {
    const range = await asOfOption(store, context.config.tenantId, options['asOf']);
    const rows = await dataset(context, store, set, range, contract.featureParams);
    const verdict = await context.steps.step(`Gating ${manifest.version}`, () =>
      withImportedScorer({ version: manifest.version, contract, bytes }, (scorer) =>
        gateImported(
          {
            name: contract.name,
            decision,
            learnedUntilMs: Date.parse(contract.dataRange.to),
            score: (x, nRows) => scorer.score(x, nRows, { signal: context.signal }),
          },
          rows,
          {
            ...{ featureSet: set, seed, asOfMs: range.asOfMs },
            ...{ logger: context.logger, signal: context.signal },
          },
        ),
      ),
    );
    // What is wrong by more than a gate allows is not for a correction to mend.
    if (decision !== 'pctr' || !verdict.gate.passed) return { ...verdict, correction: undefined };
    const candidate = { version: manifest.version, contract, bytes, gated: true };
    const correction = await context.steps.step('Correcting for selection', () =>
      correctionOfImported(context, store, candidate, { rows, range }),
    );
    return { ...verdict, correction };
  });
  const { name, producer, format, calibration, dataRange } = contract;
  const selection = correction?.calibration;
  const selectionVerdict = correction?.verdict;
  const card = importedModelCard({ gate, slices }, set, {
    ...{ name, decision, form: `${producer}, ${format}`, selection, selectionVerdict },
    calibration:
      calibration === undefined
        ? 'as its maker left it'
        : `σ(${calibration.a}·logit + ${calibration.b}), as its maker declares`,
    fromTs: dataRange.from,
    toTs: dataRange.to,
  });
  const registered = await registry.saveGated(model, { gate, selection }, card);
  const { passed, summary } = gate;
  const result = {
    ...{ version: registered, decision, gate, slices },
    ...{ selection: selection ?? null, selectionVerdict: selectionVerdict ?? null },
  };
  context.output.result(result, () =>
    tableOf([
      [decision, { version: registered, passed, summary: withVerdict(summary, selectionVerdict) }],
    ]),
  );
  return undefined;
}
