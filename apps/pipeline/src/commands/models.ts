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
      return gateModel(context, need('a version or a name'), options);
    case 'list': {
      const rows: (ReturnType<typeof summaryOf> & { active: boolean; served_as: string | null })[] =
        [];
      for (const name of await registry.names()) {
        const active = await registry.active(name);
        for (const manifest of await registry.versions(name)) {
          rows.push({
            ...summaryOf(manifest),
            active: manifest.version === active,
            served_as: await servedAs(registry, manifest),
          });
        }
      }
      context.output.result(rows, () =>
        table(
          ['', 'version', 'served as', 'registered', 'made by', 'feature set', 'gate', 'KiB'],
          rows.map((r) => [
            r.active ? '●' : '',
            r.version,
            r.served_as ?? '–',
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
      const { manifest, artifact } = await registry.get(
        await registeredAs(registry, need('a version or a name')),
      );
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

/**
 * The name that releases and answers give a model trained here: of what it computes, where the registry's is of all files kept with it.
 * null for one that is imported or for reports, and where its file is damaged.
 */
async function servedAs(registry: ModelRegistry, manifest: ModelManifest): Promise<string | null> {
  if (!Object.hasOwn(manifest.artifacts, 'model.json')) return null;
  try {
    const { artifact } = await registry.get(manifest.version);
    const bytes = await artifact('model.json');
    const { version } = JSON.parse(new TextDecoder().decode(bytes)) as { version?: unknown };
    return typeof version === 'string' ? version : null;
  } catch {
    return null;
  }
}

/** The version that is meant by its own name, by the one that it is served as (the latest of these), or by a model’s (its last). */
async function registeredAs(registry: ModelRegistry, named: string): Promise<string> {
  const [name = ''] = named.split('@');
  if (!(await registry.names()).includes(name)) return named;
  if (name === named) return (await registry.versions(name)).at(-1)?.version ?? named;
  const versions = await registry.versions(name);
  if (versions.some(({ version }) => version === named)) return named;
  for (const manifest of versions.toReversed()) {
    if ((await servedAs(registry, manifest)) === named) return manifest.version;
  }
  return named;
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
