import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type ModelManifest,
  ModelRegistry,
  modelsError,
  openForeign,
  parseContract,
  registerForeign,
} from '@waggle/models';
import type { CommandContext } from '../context.js';
import { pipelineError } from '../errors.js';
import { withImportedScorer } from '../imported-scorer.js';
import { CARD_FILE } from '../model-registry.js';
import { table } from '../output.js';
import { gateModel } from './gate-model.js';

/** `waggle models`: the versions in the registry; `import` brings one that another tool trained, `gate` judges it. */
export async function modelsCommand(
  context: CommandContext,
  options: Record<string, unknown>,
  [verb = 'list', target]: readonly string[],
): Promise<undefined> {
  const registry = await ModelRegistry.open({
    dir: join(context.dir, 'models'),
    clock: context.clock,
    logger: context.logger,
  });
  const need = (what: string): string => {
    if (target !== undefined) return target;
    throw pipelineError('WAGGLE_USAGE', `waggle models ${verb} needs ${what}`);
  };
  switch (verb) {
    case 'import': {
      const file = need('a model file');
      const path = options['contract'];
      if (typeof path !== 'string') {
        throw pipelineError('WAGGLE_USAGE', 'waggle models import needs --contract <file>');
      }
      const bytes = await read(file);
      const contract = parseContract(parseJson(await read(path), path), path);
      // Before the registry hears of it.
      await withImportedScorer({ version: contract.name, contract, bytes }, async () => {});
      const manifest = await registerForeign(registry, bytes, contract);
      context.output.result(summaryOf(manifest), () => `Registered ${manifest.version}`);
      return undefined;
    }
    case 'gate':
      return gateModel(context, need('a version'), options);
    case 'list': {
      const rows: ReturnType<typeof summaryOf>[] = [];
      for (const name of await registry.names()) {
        for (const manifest of await registry.versions(name)) rows.push(summaryOf(manifest));
      }
      context.output.result(rows, () =>
        table(
          ['version', 'registered', 'made by', 'feature set', 'gate', 'KiB'],
          rows.map((r) => [
            r.version,
            r.created_at,
            r.made_by,
            r.feature_set,
            r.gate ?? '–',
            Math.round(r.bytes / 1024),
          ]),
        ),
      );
      return undefined;
    }
    case 'show': {
      const { manifest, artifact } = await registry.get(need('a version'));
      const isForeign = Object.hasOwn(manifest.artifacts, 'contract.json');
      const { contract } = isForeign
        ? await openForeign(registry, manifest.version)
        : { contract: undefined };
      const card = Object.hasOwn(manifest.artifacts, CARD_FILE)
        ? new TextDecoder('utf-8', { fatal: true }).decode(await artifact(CARD_FILE))
        : undefined;
      const shown = {
        ...manifest,
        ...(contract !== undefined && { contract }),
        ...(card !== undefined && { card }),
      };
      context.output.result(shown, () => {
        const { card: _, ...plain } = shown;
        return `${JSON.stringify(plain, null, 2)}${card === undefined ? '' : `\n\n${card}`}`;
      });
      return undefined;
    }
    default:
      throw pipelineError(
        'WAGGLE_USAGE',
        `waggle models has no "${verb}": say import, gate, list or show`,
      );
  }
}

/** What `gatePassed` among a version's numbers says; those without one were not gated. */
const GATES: ReadonlyMap<number, string> = new Map([
  [1, 'passed'],
  [0, 'FAILED'],
]);

function summaryOf(m: ModelManifest) {
  return {
    version: m.version,
    created_at: m.createdAt,
    made_by: m.lineage.codeVersion,
    feature_set: m.lineage.featureSetFingerprint,
    gate: GATES.get(m.lineage.metrics['gatePassed'] ?? Number.NaN) ?? null,
    bytes: Object.values(m.artifacts).reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

async function read(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw modelsError('WAGGLE_MODEL_NOT_FOUND', `cannot read ${path}`, {
      cause,
      details: { path },
      remedy: 'Name a file that exists and can be read.',
    });
  }
}

function parseJson(bytes: Uint8Array, path: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw pipelineError('WAGGLE_USAGE', `${path} is not JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
}
