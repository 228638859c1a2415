import type { BenchRecord, MachineFacts } from '../record.js';

/** What a machine is known by; how a record was measured on it (instruction set, device) may differ. */
export function machineName({ cpu, cores, memGiB }: MachineFacts): string {
  return `${cpu}, ${cores} cores, ${memGiB} GiB`;
}

/** The machine that all records are of. @throws Error when they are of several, or there are none */
export function theMachine(records: readonly BenchRecord[], where: string): string {
  const names = [...new Set(records.map((record) => machineName(record.machine)))];
  if (names.length !== 1) {
    throw new Error(
      names.length === 0
        ? `${where}: no records`
        : `${where}: figures of different machines are not compared: ${names.join('; ')}`,
    );
  }
  return names[0]!;
}

export interface Change {
  readonly id: string;
  readonly metric: string;
  readonly unit: string;
  readonly before: number;
  readonly after: number;
  /** > 1 is better than before. */
  readonly ratio: number;
}

/**
 * What became of every figure that both have.
 * @throws Error when they are of different machines
 */
export function compare(before: readonly BenchRecord[], after: readonly BenchRecord[]): Change[] {
  theMachine([...before, ...after], 'compare');
  const key = (r: BenchRecord): string => `${r.suite}/${r.case} ${r.metric} ${r.seed}`;
  const known = new Map(before.map((record) => [key(record), record]));
  return after.flatMap((record) => {
    const old = known.get(key(record));
    if (old === undefined || old.unit !== record.unit) return [];
    return [
      {
        id: `${record.suite}/${record.case}`,
        metric: record.metric,
        unit: record.unit,
        before: old.value,
        after: record.value,
        ratio: record.better === 'higher' ? record.value / old.value : old.value / record.value,
      },
    ];
  });
}
