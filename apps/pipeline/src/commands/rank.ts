import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ColumnTable, decodeColumns, reviveError, stringAt, stringData } from '@waggle/core';
import type { ErrorResponseBody, RankRequestBody, RankResponseBody } from '@waggle/core/contract';
import type { CommandContext } from '../context.js';
import { pipelineError } from '../errors.js';
import { micros, percent, table } from '../output.js';
import { releaseStore } from '../release-store.js';

/** Whoever asks by hand waits for the model's answer, however busy the machine; a platform allows far less. */
const DEADLINE_MS = 10_000;

/** Sends one ranking request, with time to answer it unless the body says how much. @throws WAGGLE_SERVER_UNREACHABLE, or the gateway's own error */
export async function requestRank(
  url: string,
  body: RankRequestBody,
  apiKey?: string,
): Promise<RankResponseBody> {
  let response: Response;
  try {
    response = await fetch(new URL('/v1/rank', url), {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
      },
      body: JSON.stringify({ deadline_ms: DEADLINE_MS, ...body }),
      signal: AbortSignal.timeout(15_000),
    });
  } catch (cause) {
    throw pipelineError('WAGGLE_SERVER_UNREACHABLE', `${url} does not answer`, { cause });
  }
  const answer = (await response.json()) as RankResponseBody | ErrorResponseBody;
  if ('error' in answer) {
    throw reviveError({
      code: answer.error.code as `WAGGLE_${string}`,
      message: answer.error.message,
      details: {},
      ...(answer.error.remedy === undefined ? {} : { remedy: answer.error.remedy }),
    });
  }
  return answer;
}

/** The largest active publication of the active release: a sensible one to ask about. */
export async function examplePublication(
  context: Pick<CommandContext, 'dir' | 'clock' | 'logger'>,
): Promise<string> {
  const releases = releaseStore(context);
  const id = await releases.active();
  if (id === undefined) {
    throw pipelineError(
      'WAGGLE_USAGE',
      'there is no active release here: name a publication with --publication',
    );
  }
  const publications: ColumnTable = decodeColumns(
    await readFile(join(context.dir, 'releases', id, 'catalog', 'publications.col')),
  );
  const ids = stringData(publications, 'publication_id');
  const status = stringData(publications, 'status');
  const column = publications.columns['active_subscribers'];
  let best = 0;
  let bestSize = -1;
  for (let row = 0; row < publications.nRows; row++) {
    const size = column?.kind === 'numeric' ? Number(column.data[row]) : 0;
    if (size > bestSize && ['eligible', 'active'].includes(stringAt(status, row))) {
      best = row;
      bestSize = size;
    }
  }
  return stringAt(ids, best);
}

export function rankTable(response: RankResponseBody): string {
  const rows = response.items.map((item) => [
    item.rank,
    item.campaign_id,
    item.creative_id,
    `${item.pricing} ${micros(item.price_micros)}`,
    item.explain === undefined ? '' : percent(item.explain.p_click, 3),
    item.explain === undefined ? '' : percent(item.explain.p_accept, 1),
    micros(item.est_payout.p50_micros),
    micros(item.score),
  ]);
  const notes = [
    `decision ${response.decision_id}, release ${response.versions.release}, ${response.n_eligible} eligible, ${response.latency_ms.toFixed(2)} ms`,
    Object.keys(response.filtered).length === 0
      ? ''
      : `filtered: ${Object.entries(response.filtered)
          .map(([k, v]) => `${k} ${v}`)
          .join(', ')}`,
    response.degraded.length === 0 ? '' : `degraded: ${response.degraded.join(', ')}`,
  ].filter((line) => line !== '');
  return `${table(['#', 'campaign', 'creative', 'price', 'p(click)', 'p(accept)', 'payout p50', 'score'], rows)}\n${notes.join('\n')}`;
}

export async function rankCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const mode = options['mode'];
  if (mode !== 'offers' && mode !== 'fill') {
    throw pipelineError('WAGGLE_USAGE', `--mode must be offers or fill, got "${String(mode)}"`);
  }
  const publicationId =
    (options['publication'] as string | undefined) ?? (await examplePublication(context));
  const response = await requestRank(
    String(options['url']),
    {
      mode,
      publication_id: publicationId,
      ...(mode === 'fill'
        ? { slots: [{ id: context.newId('slot'), position: 1 }] }
        : { k: Number(options['k']) }),
      explain: options['explain'] as 'none' | 'summary' | 'full',
    },
    context.config.apiKey,
  );
  context.output.result(response, () => rankTable(response));
  return undefined;
}
