import type { Progress } from '@waggle/core';

/**
 * Shows long steps on stderr: a bar that redraws itself on a terminal, otherwise one line when a step
 * starts and one when it ends.
 */
export interface StepReporter {
  /** Runs `work` as a named step, timing it. */
  step<T>(name: string, work: (progress: Progress) => Promise<T>): Promise<T>;
  /** Milliseconds per finished step. */
  readonly timings: Readonly<Record<string, number>>;
  note(text: string): void;
}

interface Sink {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

const BAR_WIDTH = 24;
const REDRAW_MS = 100;

export function stepReporter(sink: Sink, monotonicMs: () => number): StepReporter {
  const timings: Record<string, number> = {};
  const terminal = sink.isTTY === true;
  let depth = 0;
  return {
    timings,
    note(text) {
      sink.write(`${text}\n`);
    },
    async step(name, work) {
      const startedMs = monotonicMs();
      const nested = depth++ > 0;
      let drawnMs = -Infinity;
      let lastLineMs = startedMs;
      if (!nested && !terminal) sink.write(`${name} …\n`);
      const progress: Progress = ({ step, done, total, unit }) => {
        const nowMs = monotonicMs();
        if (terminal) {
          if (nowMs - drawnMs < REDRAW_MS && done !== total) return;
          drawnMs = nowMs;
          const share = total === undefined || total === 0 ? undefined : Math.min(1, done / total);
          const bar =
            share === undefined
              ? ''
              : `[${'='.repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH)}] `;
          const count = `${done.toLocaleString('en')}${total === undefined ? '' : `/${total.toLocaleString('en')}`} ${unit}`;
          const label = step === name ? name : `${name}: ${step}`;
          const width = (sink.columns ?? 80) - 1;
          sink.write(`\r\x1b[K${`${label} ${bar}${count}`.slice(0, width)}`);
        } else if (nowMs - lastLineMs >= 10_000) {
          // Not a terminal: a sign of life every ten seconds is enough for a log.
          lastLineMs = nowMs;
          sink.write(
            `  ${name}: ${step} ${done.toLocaleString('en')}${total === undefined ? '' : `/${total.toLocaleString('en')}`} ${unit}\n`,
          );
        }
      };
      if (terminal && !nested) sink.write(`${name} …`);
      try {
        const result = await work(progress);
        const ms = monotonicMs() - startedMs;
        timings[name] = Math.round(ms);
        if (!nested)
          sink.write(`${terminal ? '\r\x1b[K' : ''}${name}: ${(ms / 1000).toFixed(1)} s\n`);
        return result;
      } catch (error) {
        if (!nested) sink.write(`${terminal ? '\r\x1b[K' : ''}${name}: failed\n`);
        throw error;
      } finally {
        depth--;
      }
    },
  };
}
