import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DeviceMatrix } from '../../ts/index.js';
import { built, emulated } from './emulated-plugin.js';

describe('DeviceMatrix', () => {
  test('refuses shapes and types before anything starts', async () => {
    const matrix = new Float32Array(6);
    await expect(DeviceMatrix.open({ matrix, nRows: 4, dim: 2 })).rejects.toMatchObject({
      code: 'WAGGLE_NATIVE_SHAPE',
    });
    await expect(
      DeviceMatrix.open({ matrix, nRows: 3, dim: 2, dtype: 'f64' as never }),
    ).rejects.toMatchObject({ code: 'WAGGLE_NATIVE_INVALID_ARGUMENT' });
  });

  test.skipIf(emulated === undefined || !existsSync(built))(
    'answers as brute force does, shares batches, and is closed for good',
    () => {
      const script = `
        import { DeviceMatrix, backendInfo } from ${JSON.stringify(built)};
        const n = 300, d = 20, q = 3, k = 5;
        let seed = 1;
        const next = () => ((seed = (seed * 48271) % 2147483647) / 2147483647) - 0.5;
        const matrix = Float32Array.from({ length: n * d }, next);
        const queries = Float32Array.from({ length: q * d }, next);
        const m = await DeviceMatrix.open({ matrix, nRows: n, dim: d, dtype: 'int8' });
        const many = await Promise.all([0, 1, 2, 3].map(() => m.topk({ queries, nQueries: q, k, metric: 'ip' })));
        const brute = [];
        for (let i = 0; i < q; i++) {
          const scored = [];
          for (let r = 0; r < n; r++) {
            let s = 0;
            for (let j = 0; j < d; j++) s += queries[i * d + j] * matrix[r * d + j];
            scored.push([s, r]);
          }
          scored.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
          brute.push(...scored.slice(0, k).map((x) => x[1]));
        }
        const one = await m.topk({ queries, nQueries: 1, k, metric: 'ip', allowRows: Int32Array.of(7, 9) });
        await m.close();
        await m.close();
        const closed = await m.topk({ queries, nQueries: q, k, metric: 'ip' }).catch((e) => e.code);
        matrix[25] = NaN;
        const bad = await DeviceMatrix.open({ matrix, nRows: n, dim: d }).catch((e) => e.code + ' ' + e.message);
        console.log(JSON.stringify({
          chosen: backendInfo().chosen.backend, brute, many: many.map((x) => [...x.rows]), certified: many[0].certified,
          one: [...one.rows], closed, bad, bytes: m.deviceBytes,
        }));
      `;
      const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
        encoding: 'utf8',
        env: { ...process.env, WAGGLE_BACKEND: 'cuda', WAGGLE_BACKEND_DIR: emulated },
      });
      expect(child.stderr).toBe('');
      const said = JSON.parse(child.stdout);
      expect(said.chosen).toBe('cuda');
      for (const rows of said.many) expect(rows).toEqual(said.brute);
      expect(said.certified).toBe(true);
      expect(said.one.slice(2)).toEqual([-1, -1, -1]);
      expect([...said.one.slice(0, 2)].sort()).toEqual([7, 9]);
      expect(said.closed).toBe('WAGGLE_NATIVE_CLOSED');
      expect(said.bad).toBe('WAGGLE_NATIVE_NAN matrix row 1 holds NaN or infinity');
      expect(said.bytes).toBeGreaterThan(300 * 20 * 5);
    },
  );

  test.skipIf(emulated === undefined || !existsSync(built))(
    'a device that is nearly full serves what fits: memory that searches left behind, filters without a copy of their rows',
    () => {
      const script = `
        import { DeviceMatrix } from ${JSON.stringify(built)};
        const random = (n, seed) => Float32Array.from({ length: n }, () => ((seed = (seed * 48271) % 2147483647) / 2147483647) - 0.5);
        const few = await DeviceMatrix.open({ matrix: random(300 * 64, 1), nRows: 300, dim: 64 });
        await few.topk({ queries: random(200 * 64, 2), nQueries: 200, k: 5, metric: 'ip' });  // 10 MB of lists stay for the next
        const n = 40000, d = 64, k = 4;
        const matrix = random(n * d, 3);
        const many = await DeviceMatrix.open({ matrix, nRows: n, dim: d });  // 21 of 24 MiB
        const query = random(d, 4);
        // A quarter of the rows, which would be gathered where there is room.
        const filter = Uint8Array.from({ length: n / 8 }, (_, i) => i % 4 === 0 ? 255 : 0);
        const scored = [];
        for (let r = 0; r < n; r++) {
          if ((filter[r >> 3] >> (r & 7) & 1) === 0) continue;
          let s = 0;
          for (let j = 0; j < d; j++) s += query[j] * matrix[r * d + j];
          scored.push([s, r]);
        }
        scored.sort((a, b) => b[0] - a[0]);
        const found = await many.topk({ queries: query, nQueries: 1, k, metric: 'ip', filter });
        console.log(JSON.stringify({ found: [...found.rows], wanted: scored.slice(0, k).map((x) => x[1]) }));
      `;
      const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
        encoding: 'utf8',
        env: {
          ...process.env,
          WAGGLE_BACKEND: 'cuda',
          WAGGLE_BACKEND_DIR: emulated,
          WAGGLE_EMULATOR_MEMORY_MIB: '24',
        },
      });
      expect(child.stderr).toBe('');
      const said = JSON.parse(child.stdout);
      expect(said.found).toEqual(said.wanted);
    },
  );
});
