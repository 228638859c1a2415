import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RankResponseBody } from '@waggle/core/contract';
import type { CommandContext } from '../context.js';
import { portOption } from '../port-option.js';
import { releaseStore } from '../release-store.js';
import { embed } from './embed.js';
import { ingest } from './ingest.js';
import { examplePublication, rankTable, requestRank } from './rank.js';
import { buildRelease, releaseTimes } from './release.js';
import { serve, untilAborted } from './serve.js';
import { scaleOption, seedOption, simulate } from './simulate.js';
import { gateTable, train } from './train.js';

/** What the last complete start left behind. */
interface StartState {
  readonly scale: string;
  readonly seed: number;
  readonly release: string;
}

/** Everything of a sample network except model downloads, which live in the cache. */
const OWNED = ['start.json', 'store', 'worlds', 'releases', 'models', 'gateway'];

async function readState(file: string): Promise<StartState | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as StartState;
  } catch {
    return undefined;
  }
}

async function writeState(file: string, state: StartState): Promise<void> {
  await writeFile(`${file}.new`, JSON.stringify(state));
  await rename(`${file}.new`, file);
}

/** Simulates, loads, learns and releases; returns the release's id. */
async function createNetwork(
  context: CommandContext,
  scale: ReturnType<typeof scaleOption>,
  seed: number,
): Promise<string> {
  const world = await simulate(context, { scale, seed });
  return context.withStore(async (store) => {
    await ingest(context, store, [world.dir]);
    const embedded = await embed(context, store);
    if (embedded.degraded !== null) {
      context.steps.note(
        'No embedding model could be fetched: hashed n-grams stand in, and answers say "hashed_embedder".',
      );
    }
    const times = await releaseTimes(context, store);
    const models = await train(context, store, { range: times.range, seed: 1 });
    context.steps.note(gateTable(models));
    const release = await buildRelease(context, store, { ...times, models, activate: true });
    return release.id;
  });
}

/** `npm start`: a sample network from nothing to a served ranking; a second time it reuses what is there. */
export async function startCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const scale = scaleOption(options['scale']);
  const seed = seedOption(options['seed']);
  const once = options['once'] === true;
  const port = portOption(options['port']) ?? (once ? 0 : undefined);
  const stateFile = join(context.dir, 'start.json');
  if (options['fresh'] === true) {
    for (const name of OWNED) await rm(join(context.dir, name), { recursive: true, force: true });
  }
  await mkdir(context.dir, { recursive: true });
  const state = await readState(stateFile);
  const active = await releaseStore(context).active();
  if (state?.scale === scale && state.seed === seed && active !== undefined) {
    context.steps.note(
      `Reusing the ${scale} network (seed ${seed}) and release ${active}; --fresh begins anew.`,
    );
  } else {
    if (state !== undefined) {
      // Another network was here: its events would mix with the new one's.
      for (const name of OWNED) await rm(join(context.dir, name), { recursive: true, force: true });
    }
    const release = await createNetwork(context, scale, seed);
    await writeState(stateFile, { scale, seed, release });
  }

  const gateway = await context.steps.step('Starting the gateway', () =>
    serve(context, port === undefined ? {} : { port }),
  );
  let rank: RankResponseBody;
  try {
    if (gateway.unserved !== undefined) throw gateway.unserved;
    const publicationId = await examplePublication(context);
    rank = await context.steps.step('First ranking', () =>
      requestRank(
        gateway.url,
        { mode: 'offers', publication_id: publicationId, k: 5, explain: 'summary' },
        context.config.apiKey,
      ),
    );
    if (!once) {
      context.output.result({ url: gateway.url, release: gateway.releaseId, rank }, () =>
        [
          rankTable(rank),
          '',
          `Serving ${gateway.releaseId} on ${gateway.url} (Ctrl-C stops it). Try:`,
          '',
          `  curl -s ${gateway.url}/v1/rank -H 'content-type: application/json' \\`,
          `    -d '{"mode":"offers","publication_id":"${publicationId}","k":3}'`,
          '',
          `  npx waggle rank --mode fill     ${gateway.url}/openapi.json     ${gateway.url}/metrics`,
        ].join('\n'),
      );
      await untilAborted(context.signal);
    }
  } finally {
    await gateway.close();
  }
  if (once) {
    const setupMs = Number(process.env['WAGGLE_SETUP_MS'] ?? Number.NaN);
    const timings = {
      ...(Number.isFinite(setupMs) ? { setup: setupMs } : {}),
      ...Object.fromEntries(
        Object.entries(context.steps.timings).map(([name, ms]) => [
          name
            .toLowerCase()
            .replaceAll(/[^a-z0-9]+/g, '_')
            .replaceAll(/^_|_$/g, ''),
          ms,
        ]),
      ),
    };
    // The gateway is closed and serves none any more: the release is the one that answered.
    context.output.result({ release: rank.versions.release, rank, timings }, () => rankTable(rank));
  }
  return undefined;
}
