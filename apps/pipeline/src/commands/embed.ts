import { createHash } from 'node:crypto';
import { join } from 'node:path';
import {
  campaignText,
  createEmbedder,
  creativeText,
  type Embedder,
  hashedEmbedder,
  passageEmbedder,
  publicationText,
} from '@waggle/content';
import type { CampaignRow, CreativeRow, PublicationRow } from '@waggle/core/contract';
import { OnnxRunner } from '@waggle/models';
import type { Store } from '@waggle/store';
import type { CommandContext } from '../context.js';
import { count, table } from '../output.js';

export interface EmbedReport {
  readonly model: string;
  /** `hashed_embedder` when no transformer could be had. */
  readonly degraded: string | null;
  readonly embedded: Readonly<Record<string, number>>;
  readonly unchanged: number;
}

const KINDS = [
  {
    kind: 'publication',
    table: 'publications',
    id: 'publication_id',
    columns: 'name, description, tags, category, language',
  },
  {
    kind: 'campaign',
    table: 'campaigns',
    id: 'campaign_id',
    columns: 'name, description, category',
  },
  { kind: 'creative', table: 'creatives', id: 'creative_id', columns: 'headline, body' },
] as const;

function textOf(kind: (typeof KINDS)[number]['kind'], row: object): string {
  switch (kind) {
    case 'publication':
      return publicationText(row as PublicationRow);
    case 'campaign':
      return campaignText(row as CampaignRow);
    case 'creative':
      return creativeText(row as CreativeRow);
  }
}

/** The embedder of this installation: the real model when it can be had, else the hashed stand-in. */
export async function openEmbedder(
  context: Pick<CommandContext, 'config' | 'logger' | 'signal' | 'steps'>,
  hashed: boolean,
): Promise<Embedder> {
  // Publications and campaigns are about several things at once: each of their passages counts.
  if (hashed) return passageEmbedder(hashedEmbedder());
  const transformer = await context.steps.step('Finding the embedding model', (progress) =>
    createEmbedder({
      ...(context.config.modelDir === undefined ? {} : { modelDir: context.config.modelDir }),
      cacheDir: join(context.config.cacheDir, 'models'),
      dataDir: context.config.dataDir,
      offline: context.config.offline,
      runner: () => new OnnxRunner(),
      logger: context.logger,
      signal: context.signal,
      progress,
    }),
  );
  return passageEmbedder(transformer);
}

/** Embeds every text that is new or has changed since it was embedded by this model. */
export async function embed(
  context: Pick<CommandContext, 'config' | 'logger' | 'signal' | 'steps' | 'clock'>,
  store: Store,
  options: { hashed?: boolean } = {},
): Promise<EmbedReport> {
  const embedder = await openEmbedder(context, options.hashed === true);
  try {
    return await context.steps.step('Embedding texts', async (progress) => {
      const tenant = context.config.tenantId;
      const embedded: Record<string, number> = {};
      let unchanged = 0;
      for (const { kind, table: from, id, columns } of KINDS) {
        const rows = await store.query<Record<string, string>>(
          `SELECT ${id} AS id, ${columns} FROM ${from} WHERE tenant_id = {tenant:String} ORDER BY version DESC LIMIT 1 BY ${id}`,
          { params: { tenant } },
        );
        const known = await store.query<{ id: string; sha: string }>(
          `SELECT entity_id AS id, text_sha256 AS sha FROM embeddings FINAL
           WHERE tenant_id = {tenant:String} AND model = {model:String} AND entity_kind = {kind:String}`,
          { params: { tenant, model: embedder.modelId, kind } },
        );
        const shaById = new Map(known.map((row) => [row.id, row.sha]));
        const todo = rows
          .map((row) => ({ id: row['id']!, text: textOf(kind, row) }))
          .map((item) => ({ ...item, sha: createHash('sha256').update(item.text).digest('hex') }))
          .filter((item) => shaById.get(item.id) !== item.sha);
        unchanged += rows.length - todo.length;
        embedded[kind] = todo.length;
        if (todo.length === 0) continue;
        const vectors = await embedder.embed(
          todo.map((item) => item.text),
          {
            signal: context.signal,
            progress: (update) => progress({ ...update, step: `${kind}s` }),
          },
        );
        const dim = vectors.length / todo.length;
        const updatedAt = new Date(context.clock.nowMs()).toISOString();
        await store.insert(
          'embeddings',
          todo.map((item, i) => ({
            tenant_id: tenant,
            entity_kind: kind,
            entity_id: item.id,
            model: embedder.modelId,
            text_sha256: item.sha,
            vector: Array.from(vectors.subarray(i * dim, (i + 1) * dim)),
            updated_at: updatedAt,
          })),
        );
      }
      return { model: embedder.modelId, degraded: embedder.degraded ?? null, embedded, unchanged };
    });
  } finally {
    await embedder.close();
  }
}

export async function embedCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const report = await context.withStore((store) =>
    embed(context, store, { hashed: options['hashed'] === true }),
  );
  context.output.result(
    report,
    () =>
      `${table(
        ['kind', 'embedded now'],
        Object.entries(report.embedded).map(([kind, n]) => [kind, count(n)]),
      )}\nmodel ${report.model}, ${count(report.unchanged)} unchanged${report.degraded === null ? '' : `\nDEGRADED: ${report.degraded} — no transformer model could be found; cosines are rough`}`,
  );
  return undefined;
}
