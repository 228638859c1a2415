import { execFile } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { silentLogger, WaggleError } from '@waggle/core';
import { describe, expect, it } from 'vitest';
import { fromAddon } from '../../ts/errors.js';
import { backendInfo, logBackend, nativeErrors, probeInChild } from '../../ts/index.js';
import { loadAddon } from '../../ts/loader.js';
import { addonFile } from './arrays.js';

const execFileAsync = promisify(execFile);

async function withEnvironment(env: Record<string, string>, script: string): Promise<string> {
  const { stdout } = await execFileAsync(
    process.execPath,
    ['-e', `const addon = require(${JSON.stringify(addonFile)});\n${script}`],
    { env: { ...process.env, WAGGLE_BACKEND: 'auto', WAGGLE_SIMD: 'auto', ...env } },
  );
  return stdout.trim();
}

const START = `try { addon.start(); console.log(JSON.stringify(addon.backendInfo())); }
  catch (e) { console.log(JSON.stringify({ code: e.code, message: e.message })); }`;

describe('backendInfo', () => {
  it('says what was chosen, what could be and what was rejected with a reason', () => {
    const info = backendInfo();
    expect(info.available).toContain('scalar');
    expect(info.available).toContain(info.chosen.simd);
    expect(info.threads).toBeGreaterThanOrEqual(1);
    for (const { name, reason } of info.rejected) {
      expect(name).not.toBe('');
      expect(reason).not.toBe('');
    }
    if (info.chosen.backend === 'cpu') expect(info.rejected.map((r) => r.name)).toContain('cuda');
  });

  it('fits one log line', () => {
    const lines: string[] = [];
    logBackend({ ...silentLogger, info: (_fields, message) => lines.push(message ?? '') });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(backendInfo().chosen.simd);
  });

  it('follows WAGGLE_SIMD to every level the machine has, and all give the same ranking bits', async () => {
    const script = `
      addon.start();
      const n = 333, col = (s) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * s + s));
      const rows = new Int32Array(50), scores = new Float64Array(50), terms = new Float64Array(450), counts = new Int32Array(2);
      addon.scoreRankSync(Float64Array.from([n, 50, 0, 0.3, 1.7, 0.9, 0.01, 2.5]), col(1), col(2), col(3), col(4), col(5),
        col(6), col(7), col(8), col(9), col(10), col(11), undefined, undefined, undefined, rows, scores, terms, counts);
      console.log(addon.backendInfo().simd, Buffer.from(terms.buffer).toString('base64'), rows.join());`;
    const answers = new Set<string>();
    for (const level of backendInfo().available.filter((name) => name !== 'cuda')) {
      const [simd, ...answer] = (
        await withEnvironment({ WAGGLE_SIMD: level, WAGGLE_BACKEND: 'cpu' }, script)
      ).split(' ');
      expect(simd).toBe(level);
      answers.add(answer.join(' '));
    }
    expect(answers.size).toBe(1);
  });

  it.each([
    [{ WAGGLE_SIMD: 'sse9' }, 'WAGGLE_SIMD=sse9'],
    process.arch === 'arm64'
      ? [{ WAGGLE_SIMD: 'avx2' }, 'WAGGLE_SIMD=avx2']
      : [{ WAGGLE_SIMD: 'neon' }, 'WAGGLE_SIMD=neon'],
    [{ WAGGLE_BACKEND: 'opencl' }, 'WAGGLE_BACKEND=opencl'],
  ])('fails on a forced choice that cannot be had: %o', async (env, text) => {
    const answer = JSON.parse(await withEnvironment(env, START)) as {
      code: string;
      message: string;
    };
    expect(answer.code).toBe('WAGGLE_NATIVE_BACKEND');
    expect(answer.message).toContain(text);
  });

  it('fails on WAGGLE_BACKEND=cuda without a plugin and falls back without being forced', async () => {
    const empty = await mkdtemp(join(tmpdir(), 'waggle-native-'));
    writeFileSync(join(empty, 'libwaggle_backend_cuda.so'), 'not a library');
    const auto = JSON.parse(await withEnvironment({ WAGGLE_BACKEND_DIR: empty }, START));
    expect(
      auto.rejected.some((r: { reason: string }) => r.reason.includes(empty)) ||
        auto.backend === 'cuda',
    ).toBe(true);
    const relative = JSON.parse(await withEnvironment({ WAGGLE_BACKEND_DIR: 'plugins' }, START));
    if (relative.backend === 'cpu') {
      expect(JSON.stringify(relative.rejected)).toContain('not an absolute path');
    }
  });

  it('probes an accelerator in a child and never rejects', async () => {
    const probe = await probeInChild('cuda');
    if (probe.ok) expect(probe.device).not.toBe('');
    else expect(probe.reason).toContain('cuda');
    const late = await probeInChild('cuda', { timeoutMs: 1 });
    expect(late.ok).toBe(false);
    const wrong = await probeInChild('cuda', { timeoutMs: -1 });
    expect(wrong).toMatchObject({ ok: false, reason: expect.stringContaining('timeout') });
  });

  it('finds the answer of a probe among what else the child prints', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'waggle-native-'));
    const talk = join(folder, 'talk.cjs');
    writeFileSync(
      talk,
      `process.stdout.write('driver: hello'); process.on('exit', () => process.stdout.write('bye'));`,
    );
    const quit = join(folder, 'quit.cjs');
    writeFileSync(quit, 'process.exit(0);');
    const before = process.env.NODE_OPTIONS;
    try {
      // The CPU stands for a device that works.
      process.env.NODE_OPTIONS = `--require=${talk}`;
      expect(await probeInChild('cpu' as 'cuda')).toEqual({ ok: true, device: '' });
      process.env.NODE_OPTIONS = `--require=${quit}`;
      expect(await probeInChild('cpu' as 'cuda')).toMatchObject({ ok: false });
    } finally {
      if (before === undefined) delete process.env.NODE_OPTIONS;
      else process.env.NODE_OPTIONS = before;
    }
  });
});

describe('loading', () => {
  it('says what to do when the addon is missing or broken', async () => {
    const file = join(await mkdtemp(join(tmpdir(), 'waggle-native-')), 'broken.node');
    writeFileSync(file, 'not an addon');
    for (const path of ['/nowhere/waggle_native.node', file]) {
      try {
        loadAddon(path);
        expect.unreachable();
      } catch (error) {
        expect(error).toBeInstanceOf(WaggleError);
        expect((error as WaggleError).code).toBe('WAGGLE_NATIVE_LOAD');
        // The command as it is to be typed.
        const script = /: node (\S+build-addon\.mjs)/.exec(
          (error as WaggleError).remedy ?? '',
        )?.[1];
        expect(script !== undefined && existsSync(script), script).toBe(true);
      }
    }
  });

  it('gives the same addon on a second load', () => {
    expect(loadAddon(addonFile)).toBe(loadAddon(addonFile));
  });
});

describe('errors', () => {
  it('keep a known code and its remedy, and make anything else internal', () => {
    const known = fromAddon(Object.assign(new Error('boom'), { code: 'WAGGLE_NATIVE_SHAPE' }));
    expect(known.code).toBe('WAGGLE_NATIVE_SHAPE');
    expect(known.remedy).toBe(nativeErrors.WAGGLE_NATIVE_SHAPE.remedy);
    expect(fromAddon(new Error('boom')).code).toBe('WAGGLE_INTERNAL');
    expect(fromAddon('boom').message).toBe('boom');
    expect(fromAddon(known)).toBe(known);
  });
});
