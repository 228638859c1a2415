import { setTimeout as sleep } from 'node:timers/promises';

/** One run of one contender; its milliseconds. */
export type Run = () => Promise<number>;

export interface InterleaveOptions {
  /** Rounds without a figure, first. */
  readonly warmups: number;
  readonly minRounds: number;
  readonly maxRounds: number;
  /** No round starts after it, once there are `minRounds`. */
  readonly budgetMs: number;
  /** Between two runs: thread pools that spin after their work fall asleep meanwhile. */
  readonly pauseMs: number;
}

/**
 * Runs all contenders in turn, round after round (A B C A B C …): whatever disturbs the machine for longer than a run
 * meets all of them. Every other round goes backwards, so that nobody always follows the same neighbour.
 * @returns milliseconds by contender, one per round
 */
export async function interleave<Key extends string>(
  runs: Readonly<Record<Key, Run>>,
  options: InterleaveOptions,
  now: () => number = () => performance.now(),
): Promise<Record<Key, number[]>> {
  const keys = Object.keys(runs) as Key[];
  const times = Object.fromEntries(keys.map((key) => [key, []])) as unknown as Record<
    Key,
    number[]
  >;
  const startedAt = now();
  for (let round = -options.warmups; round < options.maxRounds; round++) {
    if (round >= options.minRounds && now() - startedAt > options.budgetMs) break;
    for (const key of round % 2 === 0 ? keys : [...keys].reverse()) {
      if (options.pauseMs > 0) await sleep(options.pauseMs);
      const ms = await runs[key]();
      if (round >= 0) times[key].push(ms);
    }
  }
  return times;
}
