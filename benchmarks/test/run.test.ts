import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseRecords } from '../src/record.js';

const main = fileURLToPath(new URL('../dist/index.js', import.meta.url));
let dir: string;
/** Where suites keep their data. */
let scratch: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'waggle-bench-run-'));
  scratch = join(dir, 'scratch');
  mkdirSync(scratch);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Runs `npm run bench`, as built; `stopAt` sends it Ctrl-C's signal once it has said that. */
function bench(
  args: readonly string[],
  stopAt?: string,
): Promise<{ status: number; said: string }> {
  const child = spawn(process.execPath, [main, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, WAGGLE_BACKEND: 'cpu', WAGGLE_BENCH_TMPDIR: scratch },
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    const before = said;
    said += text;
    if (stopAt !== undefined && said.includes(stopAt) && !before.includes(stopAt)) {
      child.kill('SIGINT');
    }
  });
  return new Promise((resolve) => {
    child.once('close', (code) => resolve({ status: code ?? -1, said }));
  });
}

it('writes the case that is named as a report names it, into a folder that is not there yet', async () => {
  const file = join(dir, '2026-01-31-box', 'trees.json');
  const { status, said } = await bench([
    'trees',
    '--quick',
    '--case',
    'trees/200x6',
    '--json',
    file,
  ]);
  expect(said).toContain('no GPU is used, so the cases …/cuda are left out: ');
  expect(status).toBe(0);
  const records = parseRecords(JSON.parse(readFileSync(file, 'utf8')), file);
  expect(new Set(records.map((one) => one.case))).toEqual(new Set(['200x6']));
  expect(readdirSync(scratch)).toEqual([]);
});

it('fails, and leaves an earlier file alone, where nothing is called that', async () => {
  const file = join(dir, 'trees.json');
  const { status, said } = await bench(['trees', '--quick', '--case', '200x6/n7', '--json', file]);
  expect(status).toBe(1);
  expect(said).toContain('nothing was measured for --case 200x6/n7');
  expect(existsSync(file)).toBe(false);
});

it('refuses a file that cannot be written before it measures', async () => {
  const { status, said } = await bench(['trees', '--json', join(main, 'trees.json')]);
  expect(status).toBe(1);
  expect(said).toContain('cannot be written');
  expect(said).not.toContain('no GPU');
});

it('keeps what was measured, and none of its data, when it is stopped', async () => {
  const file = join(dir, 'trees.json');
  const { status, said } = await bench(['trees', '--json', file], 'trees/200x6 rows_per_s');
  expect(status).toBe(130);
  expect(said).toContain('bench: stopped; ');
  const [first] = parseRecords(JSON.parse(readFileSync(file, 'utf8')), file);
  expect(first).toMatchObject({ suite: 'trees', case: '200x6' });
  expect(readdirSync(scratch)).toEqual([]);
});
