import { createHash } from 'node:crypto';
import {
  type ColumnTable,
  encodeColumns,
  numericColumn,
  silentLogger,
  stringColumn,
  stringData,
} from '@waggle/core';
import { acceptFeatures, ctrFeatures } from '@waggle/features';
import { InlineRunner } from '@waggle/models';
import { type LinearModel, priorOnlyModel, sealLinearModel } from '@waggle/ranking';
import type { ReleaseInput } from '@waggle/releases';
import { exportLinearOnnx } from '@waggle/training';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  buildCatalog,
  ledgerBudgets,
  loadRankingRelease,
  rankingReleaseFiles,
  readEmbeddings,
} from '../src/index.js';
import { openTestWorld, TENANT, type TestWorld, texts } from './support/world.js';

let world: TestWorld;
beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny' });
});
afterAll(() => world?.close());

const code = (expected: string) => expect.objectContaining({ code: expected });
const deps = { logger: silentLogger };

/** Stores a release after changing its files, and loads it. */
async function loadChanged(change: (files: Record<string, Record<string, Uint8Array>>) => void) {
  const input = rankingReleaseFiles(world.input);
  const sections = Object.fromEntries(
    Object.entries(input.sections).map(([name, files]) => [name, { ...files }]),
  );
  change(sections);
  const { id } = await world.releases.create({ ...input, sections } as ReleaseInput);
  return loadRankingRelease(await world.releases.open(id), deps);
}
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

describe('loading', () => {
  test('a whole release becomes columns that agree with the catalog', async () => {
    const release = await world.release();
    expect(release.tenantId).toBe(TENANT);
    expect(release.asOfMs).toBe(world.asOfMs);
    expect(release.degraded).toEqual(['prior_only_model']);
    expect(release.campaigns.ids).toEqual(
      texts(stringData(world.catalog.campaigns, 'campaign_id')),
    );
    const creativeCampaign = stringData(world.catalog.creatives, 'campaign_id');
    for (let c = 0; c < release.campaigns.n; c++) {
      const rows = release.campaigns.creativeRows.subarray(
        release.campaigns.creativeOffsets[c],
        release.campaigns.creativeOffsets[c + 1],
      );
      expect(rows.length).toBeGreaterThan(0);
      for (const row of rows) {
        expect(creativeCampaign.dictionary[creativeCampaign.codes[row]!]).toBe(
          release.campaigns.ids[c],
        );
      }
      const p = 1 / (1 + Math.exp(-release.campaigns.priorLogit[c]!));
      expect(p).toBeGreaterThan(1e-5);
      expect(p).toBeLessThan(0.1);
    }
    expect([...ledgerBudgets(release)]).toHaveLength(release.campaigns.n);
  });

  test('any missing file names itself', async () => {
    for (const [section, file] of [
      ['catalog', 'campaigns.col'],
      ['features', 'snapshot.json'],
      ['embeddings', 'creative.col'],
      ['models', 'pctr.json'],
      ['models', 'accept.json'],
      ['duals', 'duals.json'],
      ['engine', 'policy.json'],
    ] as const) {
      await expect(
        loadChanged((files) => {
          delete files[section]![file];
        }),
        `${section}/${file}`,
      ).rejects.toThrow(/WAGGLE_RELEASE_|has no|cannot be read/);
    }
  });

  const unservable: [string, (files: Record<string, Record<string, Uint8Array>>) => void][] = [
    [
      'a model of another feature set',
      (f) => {
        const model = sealLinearModel({
          ...priorOnlyModel(ctrFeatures),
          featureSetFingerprint: 'ctr_old',
        });
        f['models']!['pctr.json'] = json(model);
      },
    ],
    [
      'models in each other’s place',
      (f) =>
        ([f['models']!['pctr.json'], f['models']!['accept.json']] = [
          f['models']!['accept.json']!,
          f['models']!['pctr.json']!,
        ]),
    ],
    [
      'a model edited by hand',
      (f) => {
        f['models']!['pctr.json'] = json({ ...priorOnlyModel(ctrFeatures), intercept: 1 });
      },
    ],
    [
      'features in another order',
      (f) => {
        const { version: _, ...prior } = priorOnlyModel(ctrFeatures);
        f['models']!['pctr.json'] = json(
          sealLinearModel({ ...prior, featureNames: [...prior.featureNames].reverse() }),
        );
      },
    ],
    [
      'a policy with an unknown key',
      (f) => {
        f['engine']!['policy.json'] = json({ epsilom: 0.1 });
      },
    ],
    [
      'a policy out of range',
      (f) => {
        f['engine']!['policy.json'] = json({ epsilon: 2 });
      },
    ],
    [
      'duals that are not numbers',
      (f) => {
        f['duals']!['duals.json'] = json({
          version: 'd',
          mu: { a: 'x' },
          omega: {},
          rho: {},
        });
      },
    ],
    [
      'duals without a version',
      (f) => {
        f['duals']!['duals.json'] = json({ mu: {}, omega: {}, rho: {} });
      },
    ],
    [
      'embeddings of fewer rows than the catalog',
      (f) => {
        f['embeddings']!['campaign.col'] = vectors(3, 32);
      },
    ],
    [
      'embeddings of two lengths',
      (f) => {
        f['embeddings']!['creative.col'] = vectors(world.catalog.creatives.nRows, 16);
      },
    ],
    [
      'an embedding that is not a number',
      (f) => {
        f['embeddings']!['campaign.col'] = vectors(world.catalog.campaigns.nRows, 32, Number.NaN);
      },
    ],
    [
      'a catalog whose rows are not the snapshot’s',
      (f) => {
        const { campaigns } = world.catalog;
        const ids = texts(stringData(campaigns, 'campaign_id')).reverse();
        f['catalog']!['campaigns.col'] = encodeColumns(
          withColumn(campaigns, 'campaign_id', stringColumn(ids)),
        );
      },
    ],
    [
      'a catalog of nobody',
      (f) => {
        f['catalog']!['campaigns.col'] = encodeColumns({
          ...world.catalog.campaigns,
          meta: {},
        });
      },
    ],
    [
      'a catalog without a column',
      (f) => {
        const { bid_micros: _, ...columns } = world.catalog.campaigns.columns;
        f['catalog']!['campaigns.col'] = encodeColumns({ ...world.catalog.campaigns, columns });
      },
    ],
  ];
  test.each(unservable)('%s is refused', async (_, change) => {
    await expect(loadChanged(change)).rejects.toThrow(code('WAGGLE_RELEASE_UNSERVABLE'));
  });

  test('a file that is no column file or no JSON is corrupt', async () => {
    for (const [section, file] of [
      ['catalog', 'publications.col'],
      ['models', 'pctr.json'],
      ['embeddings', 'publication.col'],
    ] as const) {
      await expect(
        loadChanged((files) => {
          files[section]![file] = new Uint8Array([1, 2, 3]);
        }),
      ).rejects.toThrow(code('WAGGLE_RELEASE_CORRUPT'));
    }
  });

  test('stand-in embeddings are admitted', async () => {
    const release = await world.release({
      embeddings: {
        ...world.input.embeddings,
        model: 'hashed-ngram-384',
        degraded: 'hashed_embedder',
      },
    });
    expect(release.degraded).toEqual(['prior_only_model', 'hashed_embedder']);
  });
});

describe('ONNX twins', () => {
  const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
  const withTwin = (bytes: Uint8Array): LinearModel => {
    const { version: _, ...prior } = priorOnlyModel(ctrFeatures);
    return sealLinearModel({ ...prior, onnxSha256: sha(bytes) });
  };
  const junk = new TextEncoder().encode('not a model');

  test('a twin that is missing or another one is refused without running it', async () => {
    const models = { pctr: withTwin(junk), accept: priorOnlyModel(acceptFeatures) };
    await expect(world.release({ models })).rejects.toThrow(code('WAGGLE_RELEASE_INCOMPLETE'));
    const other = { ...models, pctrOnnx: new Uint8Array([1]) };
    await expect(world.release({ models: other })).rejects.toThrow(
      code('WAGGLE_RELEASE_TWIN_MISMATCH'),
    );
    await world.release({ models: { ...models, pctrOnnx: junk } });
  });

  test('a twin that cannot be loaded is refused by whoever can run it', async () => {
    const runner = new InlineRunner();
    const models = { pctr: withTwin(junk), accept: priorOnlyModel(acceptFeatures), pctrOnnx: junk };
    const stored = await world.stored({ models });
    await expect(loadRankingRelease(stored, { ...deps, runner })).rejects.toThrow(
      code('WAGGLE_RELEASE_TWIN_MISMATCH'),
    );
    await runner.close();
    const closed = await loadRankingRelease(stored, { ...deps, runner });
    expect(closed.degraded).toEqual(['prior_only_model', 'onnx_unavailable']);
  });

  test('a twin that answers like its model is let through, one that does not is refused', async () => {
    const { version: _, ...prior } = priorOnlyModel(ctrFeatures);
    const written = (intercept: number) => exportLinearOnnx({ ...prior, intercept });
    const load = async (bytes: Uint8Array) => {
      const pctr = sealLinearModel({ ...prior, onnxSha256: sha(bytes) });
      const models = { pctr, accept: priorOnlyModel(acceptFeatures), pctrOnnx: bytes };
      let runner: InlineRunner | undefined;
      const loaded = loadRankingRelease(await world.stored({ models }), {
        ...deps,
        runner: () => {
          runner = new InlineRunner();
          return runner;
        },
      });
      const outcome = await loaded.then(
        ({ degraded }) => degraded,
        (error: { code: string }) => error.code,
      );
      // What was opened for the check is closed after it.
      await expect(runner!.load({ id: 'x', bytes: junk })).rejects.toThrow(
        code('WAGGLE_RUNNER_CLOSED'),
      );
      return outcome;
    };
    expect(await load(written(prior.intercept).bytes)).toEqual(['prior_only_model']);
    expect(await load(written(prior.intercept + 0.5).bytes)).toBe('WAGGLE_RELEASE_TWIN_MISMATCH');
  });

  test('a runner that does not answer in time is done without, and models without twins need none', async () => {
    const silent = new InlineRunner();
    silent.load = () => new Promise(() => {});
    const models = { pctr: withTwin(junk), accept: priorOnlyModel(acceptFeatures), pctrOnnx: junk };
    const late = await loadRankingRelease(await world.stored({ models }), {
      ...deps,
      runner: silent,
      twinTimeoutMs: 20,
    });
    expect(late.degraded).toEqual(['prior_only_model', 'onnx_unavailable']);
    const prior = await loadRankingRelease(await world.stored({}), {
      ...deps,
      runner: () => {
        throw new Error('nobody should ask for a runner');
      },
    });
    expect(prior.degraded).toEqual(['prior_only_model']);
    await silent.close();
  });
});

describe('catalog', () => {
  test('entities are in the version that was valid, in id order', async () => {
    const early = await buildCatalog(world.store, {
      tenantId: TENANT,
      asOfMs: world.asOfMs - 6 * 86_400_000,
    });
    const ids = texts(stringData(early.campaigns, 'campaign_id'));
    expect(ids).toEqual([...ids].sort());
    const status = (catalog: typeof early, id: string) => {
      const table = catalog.campaigns;
      return texts(stringData(table, 'status'))[
        texts(stringData(table, 'campaign_id')).indexOf(id)
      ];
    };
    const rows = await world.store.query<{
      campaign_id: string;
      version: number;
      status: string;
      ms: number;
    }>(
      'SELECT campaign_id, version, status, toUnixTimestamp64Milli(updated_at) AS ms FROM campaigns ORDER BY version',
    );
    for (const [catalog, atMs] of [
      [early, world.asOfMs - 6 * 86_400_000],
      [world.catalog, world.asOfMs],
    ] as const) {
      const expected = new Map<string, string>();
      for (const row of rows) if (row.ms <= atMs) expected.set(row.campaign_id, row.status);
      expect(texts(stringData(catalog.campaigns, 'campaign_id'))).toHaveLength(expected.size);
      for (const [id, word] of expected) expect(status(catalog, id)).toBe(word);
    }
  });

  test('money that is charged or still held counts as spent, the own ledger’s entries do not', async () => {
    const rows = await world.store.query<{
      campaign_id: string;
      reference_id: string;
      type: string;
      amount_micros: number;
    }>('SELECT campaign_id, reference_id, type, amount_micros FROM ledger_entries FINAL');
    expect(rows.length).toBeGreaterThan(50);
    const references = new Map<string, Map<string, number[]>>();
    for (const row of rows) {
      const of = references.get(row.campaign_id) ?? new Map<string, number[]>();
      references.set(row.campaign_id, of);
      const [reserved = 0, released = 0, charged = 0] = of.get(row.reference_id) ?? [];
      const amount = Math.abs(row.amount_micros);
      of.set(row.reference_id, [
        reserved + (row.type === 'ledger.reserve' ? amount : 0),
        released + (row.type === 'ledger.release' ? amount : 0),
        charged + (row.type === 'ledger.charge' ? amount : 0),
      ]);
    }
    const ids = texts(stringData(world.catalog.campaigns, 'campaign_id'));
    const spent = (catalog: { campaigns: ColumnTable }) => [
      ...(catalog.campaigns.columns['spent_micros'] as { data: Float64Array }).data,
    ];
    const expected = ids.map((id) =>
      [...(references.get(id)?.values() ?? [])].reduce(
        (total, [reserved, released, charged]) => total + charged! + reserved! - released!,
        0,
      ),
    );
    expect(spent(world.catalog)).toEqual(expected);
    expect(Math.max(...expected)).toBeGreaterThan(0);

    await world.store.insert('ledger_entries', [
      {
        tenant_id: TENANT,
        event_id: 'wl_reserve_plc_x',
        type: 'ledger.reserve',
        ts: new Date(world.asOfMs - 1000).toISOString(),
        campaign_id: ids[0],
        reference_id: 'plc_x',
        amount_micros: 123,
        decision_id: '',
      },
    ]);
    const again = async () =>
      spent(await buildCatalog(world.store, { tenantId: TENANT, asOfMs: world.asOfMs }));
    expect(await again()).toEqual(expected);

    // The platform's books have a reference too that the live ledger came to know later.
    const entry = (event_id: string, reference_id: string, ms: number) => ({
      tenant_id: TENANT,
      event_id,
      type: 'ledger.reserve',
      ts: new Date(ms).toISOString(),
      campaign_id: ids[0],
      reference_id,
      amount_micros: 700,
      decision_id: '',
    });
    await world.store.insert('ledger_entries', [
      entry('led_1', 'plc_both', world.asOfMs - 1000),
      entry('led_2', 'plc_theirs', world.asOfMs - 1000),
    ]);
    expect(await again()).toEqual(expected.map((micros, i) => micros + (i === 0 ? 1_400 : 0)));
    await world.store.insert('ledger_entries', [
      entry('wl_reserve_plc_both', 'plc_both', world.asOfMs + 1000),
    ]);
    expect(await again()).toEqual(expected.map((micros, i) => micros + (i === 0 ? 700 : 0)));
  });

  test('open rates are shrunk towards the network’s, sends deliver what they delivered lately', async () => {
    const { columns, nRows } = world.catalog.publications;
    const rate = (columns['eligible_open_rate'] as { data: Float64Array }).data;
    const delivered = (columns['delivered_per_send'] as { data: Float64Array }).data;
    const subscribers = (columns['active_subscribers'] as { data: Float64Array }).data;
    for (let r = 0; r < nRows; r++) {
      expect(rate[r]).toBeGreaterThan(0.05);
      expect(rate[r]).toBeLessThan(0.8);
      expect(delivered[r]! / subscribers[r]!).toBeGreaterThan(0.5);
      expect(delivered[r]! / subscribers[r]!).toBeLessThan(1.5);
    }
  });

  test('a tenant without entities has no catalog', async () => {
    await expect(
      buildCatalog(world.store, { tenantId: 'ten_nobody', asOfMs: world.asOfMs }),
    ).rejects.toThrow(code('WAGGLE_CATALOG_EMPTY'));
  });

  test('embeddings come back in catalog order, zeros where there is none', async () => {
    const row = (entity_id: string, vector: number[]) => ({
      tenant_id: TENANT,
      entity_kind: 'campaign',
      entity_id,
      model: 'm',
      text_sha256: '0'.repeat(64),
      vector,
      updated_at: '2026-03-01T00:00:00.000Z',
    });
    await world.store.insert('embeddings', [row('b', [0, 1]), row('a', [1, 0])]);
    const request = {
      tenantId: TENANT,
      kind: 'campaign',
      model: 'm',
      ids: ['x', 'b', 'a'],
      dim: 384,
    } as const;
    const found = await readEmbeddings(world.store, request);
    expect(found).toMatchObject({ dim: 2, missing: 1 });
    expect([...found.vectors]).toEqual([0, 0, 0, 1, 1, 0]);
    expect(await readEmbeddings(world.store, { ...request, model: 'none' })).toMatchObject({
      dim: 384,
      missing: 3,
    });
  });
});

function withColumn(
  table: ColumnTable,
  name: string,
  column: ColumnTable['columns'][string],
): ColumnTable {
  return { ...table, columns: { ...table.columns, [name]: column } };
}

function vectors(nRows: number, dim: number, fill = 0): Uint8Array {
  return encodeColumns({
    nRows,
    meta: { model: 'test' },
    columns: { vector: numericColumn('f32', new Float32Array(nRows * dim).fill(fill), dim) },
  });
}
