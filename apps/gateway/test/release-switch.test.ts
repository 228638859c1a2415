import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { manualClock, silentLogger, systemClock } from '@waggle/core';
import { ReleaseStore } from '@waggle/releases';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ReleaseSwitch } from '../src/release-switch.js';
import { PATIENCE } from './patience.js';
import { OFFERS, rankResponse, servedRelease, testGateway } from './rank-fixture.js';

const until = (holds: () => boolean): Promise<boolean> =>
  vi.waitUntil(holds, { ...PATIENCE, interval: 5 }).then(() => true);

describe('a release switch', () => {
  const make = (load: (id: string) => Promise<string>) =>
    new ReleaseSwitch<string>({
      load: async (id) => ({ served: servedRelease(id), ranking: await load(id) }),
      clock: manualClock(0),
      logger: silentLogger,
    });

  test('keeps the release in service when the next one does not load, and forgets it once that is gone', async () => {
    const releases = make(async (id) => {
      if (id === 'rel_bad') throw new Error('half written');
      return id;
    });
    await releases.request('rel_a');
    await releases.request('rel_bad');
    expect(releases.current()?.id).toBe('rel_a');
    expect(releases.status()).toMatchObject({
      release: 'rel_a',
      swaps: 1,
      rejected: { release: 'rel_bad', code: 'WAGGLE_INTERNAL' },
    });
    await releases.request('rel_a');
    expect(releases.status().rejected).toBeUndefined();
  });

  describe('whose wanted release was refused', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
    afterEach(() => void vi.useRealTimers());

    const refusing = () => {
      const loads: string[] = [];
      let refuses = true;
      const releases = make(async (id) => {
        loads.push(id);
        if (id === 'rel_b' && refuses) throw new Error('EMFILE: too many open files');
        return id;
      });
      return {
        releases,
        loads,
        pass: () => {
          refuses = false;
        },
      };
    };

    test('tries it again at growing pauses, until it loads', async () => {
      const { releases, loads, pass } = refusing();
      await releases.request('rel_a');
      await releases.request('rel_b');
      let tries = 2;
      for (const pauseS of [5, 10, 20, 40, 80, 160, 300, 300]) {
        await vi.advanceTimersByTimeAsync(pauseS * 1_000 - 1);
        expect(loads).toHaveLength(tries);
        await vi.advanceTimersByTimeAsync(1);
        expect(loads).toHaveLength(++tries);
      }
      expect(releases.status().rejected?.release).toBe('rel_b');
      pass();
      await vi.advanceTimersByTimeAsync(300_000);
      expect(releases.status()).toMatchObject({ release: 'rel_b', swaps: 2 });
      expect(releases.status().rejected).toBeUndefined();
      expect(vi.getTimerCount()).toBe(0);
    });

    test('tries it at once when it is asked for again, and begins with short pauses', async () => {
      const { releases, loads } = refusing();
      await releases.request('rel_b');
      await vi.advanceTimersByTimeAsync(5_000);
      await releases.request('rel_b');
      expect(loads).toHaveLength(3);
      await vi.advanceTimersByTimeAsync(5_000);
      expect(loads).toHaveLength(4);
    });

    test.each<[string, (releases: ReleaseSwitch<string>) => unknown]>([
      ['another one is asked for', (releases) => releases.request('rel_a')],
      ['it is closed', (releases) => releases.close()],
    ])('leaves it alone once %s', async (_what, then) => {
      const { releases, pass } = refusing();
      await releases.request('rel_a');
      await releases.request('rel_b');
      await then(releases);
      pass();
      await vi.advanceTimersByTimeAsync(3_600_000);
      expect(releases.current()?.id).not.toBe('rel_b');
    });
  });

  test('serves the old release until the new one is complete', async () => {
    let finish: (() => void) | undefined;
    const releases = make((id) =>
      id === 'rel_b'
        ? new Promise((resolve) => {
            finish = () => resolve(id);
          })
        : Promise.resolve(id),
    );
    await releases.request('rel_a');
    const swap = releases.request('rel_b');
    await until(() => finish !== undefined);
    expect(releases.current()?.id).toBe('rel_a');
    finish?.();
    await swap;
    expect(releases.current()?.id).toBe('rel_b');
    expect([releases.byId('rel_b'), releases.byId('rel_a'), releases.byId('rel_c')]).toEqual([
      'rel_b',
      'rel_a',
      undefined,
    ]);
  });

  test('skips releases that nobody wants any more, and rolls back without loading', async () => {
    const loads: string[] = [];
    const releases = make(async (id) => {
      loads.push(id);
      return id;
    });
    await releases.request('rel_a');
    await Promise.all(['rel_b', 'rel_c', 'rel_d'].map((id) => releases.request(id)));
    expect(releases.current()?.id).toBe('rel_d');
    expect(loads).toEqual(['rel_a', 'rel_d']);
    await releases.request('rel_a');
    expect([releases.current()?.id, loads.length]).toEqual(['rel_a', 2]);
  });

  test('that is closed retires what it holds at once, and what was being loaded when it comes', async () => {
    let finish = (_id: string): void => {};
    const retired: string[] = [];
    const releases = new ReleaseSwitch<string>({
      load: async (id) => {
        const ranking =
          id === 'rel_a' ? id : await new Promise<string>((resolve) => (finish = resolve));
        return { served: servedRelease(id), ranking };
      },
      onRetire: ({ ranking }) => retired.push(ranking),
      clock: manualClock(0),
      logger: silentLogger,
    });
    await releases.request('rel_a');
    const loading = releases.request('rel_b');
    await new Promise((resolve) => setImmediate(resolve));
    releases.close();
    expect([releases.current(), retired]).toEqual([undefined, ['rel_a']]);
    finish('rel_b');
    await loading;
    expect([releases.current(), retired]).toEqual([undefined, ['rel_a', 'rel_b']]);
  });

  test('is not taken in by a failing last step before the swap', async () => {
    const releases = new ReleaseSwitch<string>({
      load: async (id) => ({ served: servedRelease(id), ranking: id }),
      onSwap: ({ ranking }) => {
        if (ranking === 'rel_b') throw new Error('ledger refused the budgets');
      },
      clock: manualClock(0),
      logger: silentLogger,
    });
    await releases.request('rel_a');
    await releases.request('rel_b');
    expect(releases.current()?.id).toBe('rel_a');
  });
});

describe('a gateway on a release store', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'waggle-gateway-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  const openAll = async () => {
    const store = new ReleaseStore({ dir, clock: systemClock, logger: silentLogger, pollMs: 20 });
    const ids: string[] = [];
    for (const name of ['one', 'two']) {
      const manifest = await store.create({
        sections: { engine: { 'policy.json': Buffer.from(JSON.stringify({ name })) } },
        lineage: { name },
      });
      ids.push(manifest.id);
    }
    const releases = new ReleaseSwitch<string>({
      load: async (id) => {
        const release = await store.open(id);
        return {
          served: servedRelease(release.id),
          ranking: release.json<{ name: string }>('engine', 'policy.json').name,
        };
      },
      clock: systemClock,
      logger: silentLogger,
    });
    const { app } = testGateway({
      engine: {
        // Asynchronous and synchronous answers, each from the one release that the request began with.
        rank(request, context) {
          const id = releases.current()!.id;
          const answer = rankResponse(request, context, id);
          return request.k === 1
            ? answer
            : new Promise((resolve) => setImmediate(() => resolve(answer)));
        },
      },
      parts: { releases },
    });
    return { store, ids: ids as [string, string], releases, app };
  };

  test('answers every request during twenty swaps, each from one release', async () => {
    const { store, ids, releases, app } = await openAll();
    await store.activate(ids[0]);
    const watcher = store.watch((id) => void releases.request(id));
    await until(() => releases.current() !== undefined);
    const url = await app.listen({ host: '127.0.0.1', port: 0 });
    let running = true;
    const seen = new Map<string, number>();
    const clients = Array.from({ length: 8 }, async (_, client) => {
      while (running) {
        const response = await fetch(`${url}/v1/rank`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ ...OFFERS, k: 1 + (client % 2) }),
        });
        expect(response.status).toBe(200);
        const { versions } = (await response.json()) as { versions: { release: string } };
        seen.set(versions.release, (seen.get(versions.release) ?? 0) + 1);
      }
    });
    for (let swap = 1; swap <= 20; swap++) {
      const next = ids[swap % 2]!;
      if (swap % 5 === 0) await store.rollback();
      else await store.activate(next);
      const active = await store.active();
      await until(() => releases.current()?.id === active);
    }
    running = false;
    await Promise.all(clients);
    watcher.close();
    await app.close();
    expect([...seen.keys()].sort()).toEqual([...ids].sort());
    expect(releases.status().swaps).toBeGreaterThanOrEqual(15);
  });

  test('takes a release that was refused as soon as it is whole and activated again', async () => {
    const { store, ids, releases } = await openAll();
    await store.activate(ids[0]);
    const file = join(dir, ids[0], 'engine', 'policy.json');
    await writeFile(file, '{"name":"o');
    const watcher = store.watch((id) => void releases.request(id));
    await until(() => releases.status().rejected !== undefined);
    await writeFile(file, '{"name":"one"}');
    const startedMs = performance.now();
    await store.activate(ids[0]);
    await until(() => releases.current() !== undefined);
    // Told, rather than tried again after a pause.
    expect(performance.now() - startedMs).toBeLessThan(4_000);
    expect(releases.ranking()).toBe('one');
    watcher.close();
  });

  test('refuses a damaged release, says so, and takes it once it is whole', async () => {
    const { store, ids, releases, app } = await openAll();
    await releases.request(ids[0]);
    const file = join(dir, ids[1], 'engine', 'policy.json');
    await writeFile(file, '{"name":"t');
    await releases.request(ids[1]);
    const ready = (await app.inject('/readyz')).json();
    expect([ready.status, ready.release]).toEqual(['ready', ids[0]]);
    expect(ready.checks.candidate.detail).toContain('WAGGLE_RELEASE_CORRUPT');
    await writeFile(file, '{"name":"two"}');
    await store.activate(ids[1]);
    await releases.request(ids[1]);
    expect((await app.inject('/readyz')).json()).toMatchObject({ release: ids[1] });
    await app.close();
  });
});
