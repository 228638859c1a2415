import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HOUR_MS, type Logger, silentLogger } from '@waggle/core';
import { gatewayConfig, type RunningGateway, startGateway } from '@waggle/gateway';
import { writeWorld } from '@waggle/simulator';
import { migrate, openEmbeddedStore, type Store } from '@waggle/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ingest } from '../src/commands/ingest.js';
import { buildRelease, priorModels } from '../src/commands/release.js';
import { commandContext } from '../src/context.js';
import { dataRange } from '../src/data-range.js';
import { releaseStore } from '../src/release-store.js';

const home = mkdtempSync(join(tmpdir(), 'waggle-sample-'));
const world = join(home, 'world');
/** The same tables without the manifest, up to the present: somebody's own network. */
const own = join(home, 'own');
const nowMs = Math.floor(Date.now() / HOUR_MS) * HOUR_MS;
let open: Store | undefined;

beforeAll(() => {
  writeWorld({ scale: 'tiny', seed: 1 }, world);
  const recent = join(home, 'recent');
  const { manifest } = writeWorld({ scale: 'tiny', seed: 2, endMs: nowMs }, recent);
  mkdirSync(own);
  for (const { path } of Object.values(manifest.tables)) {
    cpSync(join(recent, path), join(own, path));
  }
});
afterAll(async () => {
  await open?.close();
  rmSync(home, { recursive: true, force: true });
});

async function network(name: string) {
  const dir = join(home, name);
  // A process has one at a time.
  await open?.close();
  const store = await openEmbeddedStore({ path: join(dir, 'store') });
  open = store;
  await migrate(store);
  const context = commandContext({
    json: false,
    signal: new AbortController().signal,
    env: { WAGGLE_DIR: dir, WAGGLE_OFFLINE: 'true' },
  });
  return { dir, store, context };
}

async function release({ store, context }: Awaited<ReturnType<typeof network>>) {
  const range = await dataRange(store, context.config.tenantId);
  const models = priorModels();
  const { id } = await buildRelease(context, store, { range, models, activate: true });
  return (await releaseStore(context).open(id)).manifest.lineage;
}

async function serve(dir: string, store: Store) {
  const warnings: string[] = [];
  const logger: Logger = {
    ...silentLogger,
    warn: (_fields: unknown, message?: string) => void warnings.push(message ?? ''),
  } as Logger;
  const config = gatewayConfig({ dir, port: 0 });
  return { warnings, gateway: await startGateway({ config, logger, store }) };
}

const get = async (gateway: RunningGateway, path: string) =>
  (await (await fetch(`${gateway.url}${path}`)).json()) as {
    clock: unknown;
    manifest: { lineage: { sample: boolean } };
  };

/** Posts a click of this moment. */
async function postNow(gateway: RunningGateway, store: Store): Promise<[number, string]> {
  const [ids] = await store.query(
    `SELECT (SELECT min(publication_id) FROM publications) AS publication_id,
       (SELECT min(campaign_id) FROM campaigns) AS campaign_id,
       (SELECT min(creative_id) FROM creatives) AS creative_id`,
  );
  const response = await fetch(`${gateway.url}/v1/events`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      events: [
        {
          ...{ type: 'click', event_id: 'evt_now', ts: new Date().toISOString() },
          ...ids,
          ...{ placement_id: 'plc_1', post_id: 'pst_1', subscriber_key: 'sub_1', device: 'mobile' },
          ...{ ua_class: 'browser', ip_prefix: '10.0.0.0/24', ms_since_delivery: 1_000 },
          ...{ links_within_10s: 1, honeypot: false },
        },
      ],
    }),
  });
  return [response.status, await response.text()];
}

describe('the mark of a sample network', () => {
  it('comes from the simulator: the gateway starts the clock at its data, and says so', async () => {
    const subject = await network('sample');
    await ingest(subject.context, subject.store, [world]);
    expect(await release(subject)).toMatchObject({ sample: true, tenant_id: 'ten_sample' });
    const { gateway, warnings } = await serve(subject.dir, subject.store);
    expect(await get(gateway, '/v1/release')).toMatchObject({ clock: { source: 'data' } });
    expect(await get(gateway, '/readyz')).toMatchObject({ clock: 'data' });
    expect(warnings).toContainEqual(expect.stringContaining('--clock system'));
    expect(await postNow(gateway, subject.store)).toEqual([
      422,
      expect.stringContaining('WAGGLE_EVENT_TIME_INVALID'),
    ]);
    await gateway.close();
  });

  it('is not a name: own data of the default tenant are served by the system’s time', async () => {
    const subject = await network('own-data');
    await ingest(subject.context, subject.store, [own]);
    expect(await release(subject)).toMatchObject({ sample: false, tenant_id: 'ten_sample' });
    const { gateway, warnings } = await serve(subject.dir, subject.store);
    expect(await get(gateway, '/v1/release')).toMatchObject({ clock: { source: 'system' } });
    expect(warnings).toEqual([]);
    const [status, text] = await postNow(gateway, subject.store);
    expect(status, text).toBe(202);
    await gateway.close();
  });

  it('is lost when own publications join, or a file in the world’s folder is not the world’s', async () => {
    const both = await network('both');
    await ingest(both.context, both.store, [world, own]);
    expect(await release(both)).toMatchObject({ sample: false });
    const replaced = join(home, 'replaced');
    cpSync(world, replaced, { recursive: true });
    cpSync(join(own, 'publications.parquet'), join(replaced, 'publications.parquet'));
    const subject = await network('replaced-store');
    await ingest(subject.context, subject.store, [join(replaced, 'publications.parquet')]);
    expect(await subject.store.query('SELECT * FROM simulated_publications')).toEqual([]);
  });

  it('is found again in a store that was filled before stores kept it', async () => {
    const subject = await network('older');
    await ingest(subject.context, subject.store, [world]);
    await subject.store.command('DROP TABLE simulated_publications SYNC');
    await subject.store.command('ALTER TABLE waggle_migrations DELETE WHERE version = 2', {
      settings: { mutations_sync: 2 },
    });
    await migrate(subject.store);
    expect(await release(subject)).toMatchObject({ sample: true });
  });
});
