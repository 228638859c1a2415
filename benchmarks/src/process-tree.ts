import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** What a finished command used, its children included. */
export interface Usage {
  readonly seconds: number;
  /** Highest sum of resident memory over the whole process tree, MiB; NaN where /proc is absent. */
  readonly peakMib: number;
  readonly stdout: string;
}

function residentMib(rootPid: number): number {
  const parents = new Map<number, number>();
  const resident = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      parents.set(pid, Number(fields[1]));
      resident.set(pid, (Number(fields[21]) * 4096) / 2 ** 20);
    } catch {
      // The process ended between the listing and the reading.
    }
  }
  let total = 0;
  for (const [pid, mib] of resident) {
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = parents.get(at)) {
      if (at === rootPid) {
        total += mib;
        break;
      }
    }
  }
  return total;
}

/** Runs a command to its end, sampling its process tree's memory every 50 ms. @throws when it fails */
export async function measureCommand(
  command: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<Usage> {
  const startedMs = performance.now();
  const child: ChildProcess = spawn(command, args, {
    ...options,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-20_000);
  });
  let peakMib = process.platform === 'linux' ? 0 : Number.NaN;
  const timer = setInterval(() => {
    if (child.pid !== undefined && process.platform === 'linux') {
      peakMib = Math.max(peakMib, residentMib(child.pid));
    }
  }, 50);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} exited with ${code}\n${stderr}`);
    return { seconds: (performance.now() - startedMs) / 1000, peakMib, stdout };
  } finally {
    clearInterval(timer);
  }
}
