import type { CommandContext } from '../context.js';
import { policyOption } from '../policy-file.js';
import { embed } from './embed.js';
import { buildRelease, releasedText, releaseTimes } from './release.js';
import { seedOption } from './simulate.js';
import { gateTable, train } from './train.js';

/** `waggle run`: embed, features, train, release — everything between events and serving. */
export async function runCommand(
  context: CommandContext,
  options: Record<string, unknown>,
): Promise<undefined> {
  const seed = seedOption(options['seed']);
  const policy = await policyOption(options['policy']);
  const startedMs = context.clock.monotonicMs();
  const report = await context.withStore(async (store) => {
    const times = await releaseTimes(context, store, options['asOf']);
    const embedded = await embed(context, store);
    const trained = await train(context, store, { range: times.range, seed });
    const release = await buildRelease(context, store, {
      ...times,
      models: trained,
      policy,
      activate: true,
    });
    return { embedded, trained, release };
  });
  const answer = {
    release: report.release,
    gates: Object.fromEntries(Object.entries(report.trained).map(([name, t]) => [name, t.gate])),
    embedding: report.embedded,
    timings: context.steps.timings,
    totalMs: Math.round(context.clock.monotonicMs() - startedMs),
  };
  context.output.result(
    answer,
    () => `${gateTable(report.trained)}\n${releasedText(report.release)}`,
  );
  return undefined;
}
