import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const open = new Set<string>();

/** A new folder for a suite's data, where `WAGGLE_BENCH_TMPDIR` says; gone when the process ends, however it ends by itself. */
export function openScratch(prefix: string): string {
  const dir = mkdtempSync(join(process.env['WAGGLE_BENCH_TMPDIR'] || tmpdir(), prefix));
  if (open.size === 0) process.on('exit', removeAll);
  open.add(dir);
  return dir;
}

export function removeScratch(dir: string): void {
  rmSync(dir, { recursive: true, force: true });
  open.delete(dir);
  if (open.size === 0) process.off('exit', removeAll);
}

function removeAll(): void {
  for (const dir of open) removeScratch(dir);
}
