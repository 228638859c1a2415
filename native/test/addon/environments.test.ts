import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { queueDepth, topk } from '../../ts/index.js';
import { addonFile, randomFloats } from './arrays.js';

const execFileAsync = promisify(execFile);

// Workers and children run plain JavaScript, so they use the addon itself.
const PRELUDE = `
  const addon = require(${JSON.stringify(addonFile)});
  addon.start();
  const nRows = 200000, dim = 32, k = 5, nQueries = 64;
  const matrix = new Float32Array(nRows * dim);
  for (let i = 0; i < matrix.length; i++) matrix[i] = ((i * 7919) % 1009) / 1009 - 0.5;
  const job = (n = nQueries) => addon.topk(matrix.subarray(0, n * dim), n, matrix, nRows, dim, k, 0, undefined, undefined, undefined,
    new Float32Array(n * k), new Int32Array(n * k));
`;

async function runChild(
  script: string,
): Promise<{ code: number | null; stdout: string; signal: string | null }> {
  try {
    const { stdout } = await execFileAsync(process.execPath, ['-e', PRELUDE + script]);
    return { code: 0, stdout, signal: null };
  } catch (error) {
    const failure = error as { code: number | null; signal: string | null; stdout: string };
    return { code: failure.code, stdout: failure.stdout, signal: failure.signal };
  }
}

describe('worker threads', () => {
  it('each have their own jobs and settle them', async () => {
    const script = `${PRELUDE}
      const { parentPort } = require('node:worker_threads');
      Promise.all(Array.from({ length: 5 }, () => job(4).promise)).then(() => parentPort.postMessage(addon.queueDepth()));
      if (addon.queueDepth() !== 5) throw new Error('jobs of another environment are counted');
    `;
    const workers = Array.from({ length: 4 }, () => new Worker(script, { eval: true }));
    const exits = workers.map((worker) => once(worker, 'exit'));
    const depths = await Promise.all(
      workers.map(async (worker) => (await once(worker, 'message'))[0]),
    );
    expect(depths).toEqual([0, 0, 0, 0]);
    await Promise.all(exits);
    expect(queueDepth()).toBe(0);
  });

  it('can be terminated while jobs run and wait, without hurting the others', async () => {
    const matrix = randomFloats(50_000 * 32, 1);
    for (let round = 0; round < 4; round++) {
      const worker = new Worker(
        `${PRELUDE}
        for (let i = 0; i < 30; i++) job().promise.catch(() => {});
        require('node:worker_threads').parentPort.postMessage('running');`,
        { eval: true },
      );
      await once(worker, 'message');
      const mine = topk({
        queries: matrix,
        nQueries: 16,
        matrix,
        nRows: 50_000,
        dim: 32,
        k: 3,
        metric: 'l2',
      });
      await worker.terminate();
      const { rows } = await mine;
      // Every row is nearest to itself.
      expect(Array.from({ length: 16 }, (_, q) => rows[q * 3])).toEqual([...Array(16).keys()]);
    }
  });

  it('exit with jobs in flight', async () => {
    const worker = new Worker(`${PRELUDE} job().promise.catch(() => {}); process.exit(3);`, {
      eval: true,
    });
    const [code] = await once(worker, 'exit');
    expect(code).toBe(3);
  });
});

describe('the process', () => {
  it('stays alive until its jobs settle, and then ends by itself', async () => {
    const { code, stdout } = await runChild(`job(8).promise.then(() => console.log('settled'));`);
    expect(code).toBe(0);
    expect(stdout).toContain('settled');
  });

  it('ends at once with process.exit() in the middle of jobs', async () => {
    for (let round = 0; round < 3; round++) {
      const { code, signal } = await runChild(`
        for (let i = 0; i < 20; i++) job().promise.catch(() => {});
        setTimeout(() => process.exit(7), ${round * 3});
      `);
      expect({ code, signal }).toEqual({ code: 7, signal: null });
    }
  });

  it('dies of an uncaught exception as any other does', async () => {
    const { code, signal } = await runChild(
      `job().promise.catch(() => {}); throw new Error('expected');`,
    );
    expect({ code, signal }).toEqual({ code: 1, signal: null });
  });

  it('survives a cancelled job, an unknown id and a job cancelled twice', async () => {
    const { code, stdout } = await runChild(`
      const { id, promise } = job();
      addon.cancel(id); addon.cancel(id); addon.cancel(12345); addon.cancel(-1);
      promise.catch((e) => console.log(e.code));
    `);
    expect(code).toBe(0);
    expect(stdout).toContain('WAGGLE_ABORTED');
  });

  it('keeps borrowed memory alive when nobody else does', async () => {
    const script = `
      const pending = [];
      for (let i = 0; i < 20; i++) {
        const m = new Float32Array(20000 * 16).fill(i + 1);
        const s = new Float32Array(1), r = new Int32Array(1);
        pending.push(addon.topk(m.slice(0, 16), 1, m, 20000, 16, 1, 0, undefined, undefined, undefined, s, r).promise.then(() => s[0]));
      }
      gc(); gc();
      Promise.all(pending).then((v) => { gc(); console.log(v.every((x, i) => x === 16 * (i + 1) ** 2)); });
    `;
    const { stdout } = await execFileAsync(process.execPath, [
      '--expose-gc',
      '-e',
      PRELUDE + script,
    ]);
    expect(stdout.trim()).toBe('true');
  });

  it('leaves libuv its threads: a file is read while every engine thread is busy', async () => {
    const { stdout, code } = await runChild(`
      const fs = require('node:fs/promises');
      let settled = 0;
      const jobs = Array.from({ length: 8 }, () => job(256).promise.then(() => { settled += 1; }));
      fs.readFile(${JSON.stringify(addonFile)}).then(() => console.log('read before', settled < 8));
      Promise.all(jobs).catch(() => {});
    `);
    expect(code).toBe(0);
    expect(stdout).toContain('read before true');
  });
});

describe('the raw addon', () => {
  it('refuses nonsense with a code instead of crashing', async () => {
    const { code, stdout } = await runChild(`
      const f = new Float32Array(8), i = new Int32Array(8), d = new Float64Array(99);
      const tries = [
        () => addon.topk(), () => addon.topk(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
        () => addon.topk(f, 1, f, -5, 8, 1, 0, undefined, undefined, undefined, f, i), () => addon.topk(f, 1, f, 1e300, 8, 1, 0, undefined, undefined, undefined, f, i),
        () => addon.topkSync(f, 1, f, 1, 8, 1, 99, undefined, undefined, undefined, new Float32Array(1), i),
        () => addon.topkSync(f, 1, f, 1, 8, 1e9, 0, undefined, undefined, undefined, f, i),
        () => addon.topk(f, NaN, f, NaN, NaN, NaN, NaN, undefined, undefined, undefined, f, i),
        () => addon.scoreRankSync(), () => addon.scoreRankSync(d), () => addon.scoreRankSync(f, f, f, f, f),
        () => addon.scoreRankSync(d.fill(NaN), f, f, f, f), () => addon.scoreRank(d.fill(1e12), f, f, f, f),
        () => addon.glmFit(), () => addon.glmFit(f, 1e300, 1e300, d, d), () => addon.glmFit({}, [], null, 'x'),
      ];
      for (const attempt of tries) {
        try { attempt(); console.log('accepted', attempt); } catch (e) { if (!/^WAGGLE_/.test(e.code)) console.log('no code', e, String(attempt)); }
      }
      console.log('done');
    `);
    expect(stdout.trim()).toBe('done');
    expect(code).toBe(0);
  });
});
