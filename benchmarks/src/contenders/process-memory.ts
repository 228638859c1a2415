import { readFileSync, writeFileSync } from 'node:fs';

/** Resident memory of this process in bytes: now, and the most since {@link resetPeak} (Linux). */
export function residentBytes(): { now: number; peak: number } {
  const status = readFileSync('/proc/self/status', 'utf8');
  const kib = (name: string): number => {
    const match = status.match(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm'));
    if (match === null) throw new Error(`/proc/self/status has no ${name}`);
    return Number(match[1]);
  };
  return { now: kib('VmRSS') * 1024, peak: kib('VmHWM') * 1024 };
}

/** Forgets the peak so far: "5" to clear_refs resets the high water mark (proc(5)). */
export function resetPeak(): void {
  writeFileSync('/proc/self/clear_refs', '5');
}
