import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const waggle = fileURLToPath(new URL('../bin/waggle.mjs', import.meta.url));
const models = fileURLToPath(new URL('../../../native/test/trees/models/', import.meta.url));
const MODEL = join(models, 'binary-categorical.lightgbm.txt');

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'waggle-models-'));
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

function cli(...args: string[]): { code: number | null; answer: Record<string, unknown> } {
  const run = spawnSync(process.execPath, [waggle, ...args, '--json', '--dir', home], {
    encoding: 'utf8',
  });
  return { code: run.status, answer: JSON.parse(run.stdout) as Record<string, unknown> };
}

/** A contract with the first recorded rows of the model as examples. */
function contract(more: object = {}): string {
  const file = readFileSync(`${MODEL}.rows`);
  const bytes = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
  const [nRows = 0, nFeatures = 0] = new Int32Array(bytes, 0, 2);
  const x = new Float32Array(bytes, 12, nRows * nFeatures);
  const expected = new Float32Array(bytes, 12 + x.byteLength);
  const row = (r: number) =>
    Array.from(x.subarray(r * nFeatures, (r + 1) * nFeatures), (v) => (Number.isNaN(v) ? null : v));
  const path = join(home, 'contract.json');
  writeFileSync(
    path,
    JSON.stringify({
      contractVersion: 1,
      name: 'pctr_gbm',
      format: 'lightgbm',
      features: Array.from({ length: nFeatures }, (_, i) => ({ name: `f${i}`, dtype: 'float32' })),
      featureSetFingerprint: 'ctr_abc',
      missing: 'nan',
      output: { meaning: 'probability' },
      examples: { rows: [row(0), row(1), row(2)], outputs: Array.from(expected.subarray(0, 3)) },
      producer: 'lightgbm 4.6.0',
      dataRange: { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' },
      ...more,
    }),
  );
  return path;
}

const codeOf = (answer: Record<string, unknown>) => (answer['error'] as { code: string }).code;

describe('waggle models', () => {
  it('imports a model with its contract, lists and shows it, and refuses it once altered', () => {
    const { code, answer } = cli('models', 'import', MODEL, '--contract', contract());
    expect(code).toBe(0);
    const version = answer['version'] as string;
    expect(version).toMatch(/^pctr_gbm@[0-9a-f]{12}$/);
    expect(cli('models', 'import', MODEL, '--contract', contract()).answer['version']).toBe(
      version,
    );
    expect(cli('models').answer).toMatchObject([
      { version, made_by: 'lightgbm 4.6.0', gate: null, active: false },
    ]);
    expect(cli('models', 'show', 'pctr_gbm').answer['version']).toBe(version);
    for (const unknown of ['pctr_gbm@000000000000']) {
      expect(codeOf(cli('models', 'show', unknown).answer)).toBe('WAGGLE_MODEL_NOT_FOUND');
    }
    const shown = cli('models', 'show', version).answer;
    expect(shown['contract']).toMatchObject({
      format: 'lightgbm',
      featureSetFingerprint: 'ctr_abc',
    });
    const { sha256 } = (shown['artifacts'] as Record<string, { sha256: string }>)[
      'model.lightgbm.txt'
    ]!;
    const path = join(home, 'models', 'artifacts', sha256.slice(0, 2), sha256);
    writeFileSync(path, readFileSync(path, 'utf8').replace('leaf_value=', 'leaf_value=1'));
    const altered = cli('models', 'show', version);
    expect(altered.code).toBe(1);
    expect(codeOf(altered.answer)).toBe('WAGGLE_MODEL_CORRUPT');
  });

  it.each([
    ['WAGGLE_MODEL_FORMAT', { format: 'xgboost-json' }],
    [
      'WAGGLE_MODEL_CONTRACT_MISMATCH',
      { features: [{ name: 'a', dtype: 'float32' }], examples: undefined },
    ],
    ['WAGGLE_RANKING_EXAMPLES', { examples: { rows: [[0, 0, 0, 0, 0]], outputs: [1] } }],
    ['WAGGLE_CONFIG_INVALID', { missing: 'maybe' }],
    ['WAGGLE_MODEL_CONTRACT_MISMATCH', { output: { meaning: 'count' }, examples: undefined }],
  ])('answers %s for a contract that does not fit, and keeps nothing', (expected, more) => {
    const { code, answer } = cli('models', 'import', MODEL, '--contract', contract(more));
    expect(code).toBe(1);
    expect(codeOf(answer)).toBe(expected);
    expect(readdirSync(join(home, 'models')).filter((name) => name !== 'tmp')).toEqual([]);
  });

  it('says how it is used', () => {
    expect(codeOf(cli('models', 'import').answer)).toBe('WAGGLE_USAGE');
    expect(codeOf(cli('models', 'import', MODEL).answer)).toBe('WAGGLE_USAGE');
    expect(codeOf(cli('models', 'forget').answer)).toBe('WAGGLE_USAGE');
    const missing = cli('models', 'import', join(home, 'none'), '--contract', contract());
    expect(codeOf(missing.answer)).toBe('WAGGLE_MODEL_NOT_FOUND');
    writeFileSync(join(home, 'bad.json'), '{');
    const bad = cli('models', 'import', MODEL, '--contract', join(home, 'bad.json'));
    expect(codeOf(bad.answer)).toBe('WAGGLE_USAGE');
  });
});
