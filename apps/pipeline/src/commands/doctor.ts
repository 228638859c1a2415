import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, statfsSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { toWaggleError } from '@waggle/core';
import { backendInfo } from '@waggle/native';
import type { CommandContext } from '../context.js';
import { openRegistry } from '../model-registry.js';
import { table } from '../output.js';
import { releaseStore } from '../release-store.js';

interface Finding {
  readonly what: string;
  readonly state: 'ok' | 'warning' | 'problem';
  readonly found: string;
  readonly remedy?: string;
}

const toolVersion = (command: string): string | undefined => {
  const run = spawnSync(command, ['--version'], { encoding: 'utf8' });
  return run.status === 0 ? run.stdout.split('\n')[0] : undefined;
};

/** Whether what the next release would be made of is whole. */
async function models(context: CommandContext): Promise<Finding> {
  const what = 'Models';
  const none: Finding = { what, state: 'ok', found: 'none trained yet' };
  if (!existsSync(join(context.dir, 'models'))) return none;
  try {
    const { pctr, accept } = await (await openRegistry(context)).latest();
    return { what, state: 'ok', found: `${pctr.model.version}, ${accept.model.version}` };
  } catch (thrown) {
    const { code, message, remedy = 'See docs/errors.md.' } = toWaggleError(thrown);
    return code === 'WAGGLE_NO_MODEL' ? none : { what, state: 'problem', found: message, remedy };
  }
}

/** Whether what is served is whole. */
async function release(context: CommandContext): Promise<Finding> {
  const what = 'Release';
  const releases = releaseStore(context);
  try {
    const active = await releases.active();
    if (active === undefined) {
      const remedy = 'Run `npm start`, or `waggle run` on your own data.';
      return { what, state: 'warning', found: 'none active', remedy };
    }
    await releases.open(active);
    return { what, state: 'ok', found: active };
  } catch (thrown) {
    const { message, remedy = 'Run `waggle release rollback`.' } = toWaggleError(thrown);
    return { what, state: 'problem', found: message, remedy };
  }
}

/** `waggle doctor`: what this machine and this installation have, and what to do about what is missing. */
export async function doctorCommand(context: CommandContext): Promise<number> {
  const findings: Finding[] = [];
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  findings.push(
    major > 20
      ? { what: 'Node', state: 'ok', found: process.versions.node }
      : major === 20 && minor >= 19
        ? {
            what: 'Node',
            state: 'warning',
            found: process.versions.node,
            remedy: 'Works; Node 20 is past its end of life, prefer 22 or 24.',
          }
        : {
            what: 'Node',
            state: 'problem',
            found: process.versions.node,
            remedy: 'Install Node 20.19 or later.',
          },
  );
  for (const [what, command] of [
    ['CMake', 'cmake'],
    ['C++ compiler', 'c++'],
  ] as const) {
    const version = toolVersion(command);
    findings.push(
      version === undefined
        ? {
            what,
            state: 'warning',
            found: 'not found',
            remedy: 'Needed only to build from source.',
          }
        : { what, state: 'ok', found: version },
    );
  }
  const info = backendInfo();
  findings.push({
    what: 'Native engine',
    state: 'ok',
    found: `${info.chosen.backend}, ${info.chosen.simd}${info.rejected.length === 0 ? '' : ` (not: ${info.rejected.map((r) => `${r.name}: ${r.reason}`).join('; ')})`}`,
  });
  findings.push({
    what: 'Cores and memory',
    state: 'ok',
    found: `${availableParallelism()} cores, ${(totalmem() / 2 ** 30).toFixed(1)} GiB`,
  });
  try {
    mkdirSync(context.dir, { recursive: true });
    accessSync(context.dir, constants.W_OK);
    const disk = statfsSync(context.dir);
    const freeGiB = (disk.bavail * disk.bsize) / 2 ** 30;
    findings.push(
      freeGiB < 2
        ? {
            what: 'Data folder',
            state: 'warning',
            found: `${context.dir}: ${freeGiB.toFixed(1)} GiB free`,
            remedy: 'Free some space: a demo network needs about 2 GiB.',
          }
        : {
            what: 'Data folder',
            state: 'ok',
            found: `${context.dir}: ${freeGiB.toFixed(1)} GiB free`,
          },
    );
  } catch (error) {
    findings.push({
      what: 'Data folder',
      state: 'problem',
      found: `${context.dir}: ${(error as Error).message}`,
      remedy: 'Choose a writable folder with --dir or WAGGLE_DIR.',
    });
  }
  try {
    await context.withStore(async (store) => {
      const [row] = await store.query<{ version: string }>('SELECT version() AS version');
      findings.push({
        what: 'Store',
        state: 'ok',
        found: `${store.kind}, ClickHouse ${row?.version ?? '?'}`,
      });
    });
  } catch (error) {
    findings.push({
      what: 'Store',
      state: 'problem',
      found: (error as Error).message,
      remedy: (error as { remedy?: string }).remedy ?? 'See docs/errors.md.',
    });
  }
  findings.push(await models(context));
  findings.push(await release(context));
  findings.push(
    existsSync(context.config.dataDir)
      ? { what: 'Public datasets', state: 'ok', found: context.config.dataDir }
      : {
          what: 'Public datasets',
          state: 'warning',
          found: 'absent',
          remedy: 'Only some tests and benches read them; set WAGGLE_DATA_DIR where you have them.',
        },
  );
  const ok = findings.every((f) => f.state !== 'problem');
  context.output.result({ ok, findings }, () =>
    table(
      ['', 'what', 'found', ''],
      findings.map((f) => [
        { ok: '✔', warning: '!', problem: '✘' }[f.state],
        f.what,
        f.found,
        f.remedy ?? '',
      ]),
    ),
  );
  return ok ? 0 : 1;
}
