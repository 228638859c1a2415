import { join, resolve } from 'node:path';
import { SCALE_NAMES, type ScaleName, writeWorld } from '@waggle/simulator';
import type { CommandContext } from '../context.js';
import { pipelineError } from '../errors.js';
import { count, table } from '../output.js';

export interface SimulatedWorld {
  readonly dir: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly reused: boolean;
}

export function scaleOption(value: unknown): ScaleName {
  const scale = SCALE_NAMES.find((name) => name === value);
  if (scale === undefined) {
    throw pipelineError(
      'WAGGLE_USAGE',
      `--scale must be one of ${SCALE_NAMES.join(', ')}, got "${String(value)}"`,
    );
  }
  return scale;
}

export function seedOption(value: unknown): number {
  const seed = Number(value);
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw pipelineError(
      'WAGGLE_USAGE',
      `--seed must be a whole number ≥ 0, got "${String(value)}"`,
    );
  }
  return seed;
}

/** Creates a sample network on disk, or finds the same one already there. */
export async function simulate(
  context: Pick<CommandContext, 'steps' | 'dir' | 'config'>,
  options: { scale: ScaleName; seed: number; out?: string },
): Promise<SimulatedWorld> {
  const dir = options.out ?? join(context.dir, 'worlds', `${options.scale}-${options.seed}`);
  return context.steps.step('Creating the sample network', async (progress) => {
    const { manifest, reused } = writeWorld(
      { scale: options.scale, seed: options.seed, tenantId: context.config.tenantId },
      dir,
      { progress },
    );
    const counts = Object.fromEntries(
      Object.entries(manifest.tables).map(([name, file]) => [name, file.rows]),
    );
    return { dir, counts, reused };
  });
}

export async function simulateCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const world = await simulate(context, {
    scale: scaleOption(options['scale']),
    seed: seedOption(options['seed']),
    ...(options['out'] === undefined ? {} : { out: resolve(String(options['out'])) }),
  });
  context.output.result(
    world,
    () =>
      `${table(
        ['table', 'rows'],
        Object.entries(world.counts).map(([name, rows]) => [name, count(rows)]),
      )}\n${world.reused ? 'Already there' : 'Written'}: ${world.dir}`,
  );
  return undefined;
}
