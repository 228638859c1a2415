import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import autocannon from 'autocannon';
import type { Load, LoadResult } from './load-contract.js';
import { runPacedLoad } from './paced-load.js';
import { openScratch, removeScratch } from './scratch.js';

function wrkVersion(): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn('wrk', ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    child.once('error', () => resolve(undefined));
    child.once('close', () => resolve(text.match(/wrk (\S+)/)?.[1] ?? 'wrk'));
  });
}

/** wrk costs the machine a tenth of what a generator in JavaScript does, so it leaves the server its core. */
async function wrk(load: Load, version: string): Promise<LoadResult> {
  const dir = openScratch('waggle-wrk-');
  try {
    const script = join(dir, 'load.lua');
    const bodies = join(dir, 'bodies.ndjson');
    writeFileSync(bodies, load.bodies.join('\n'));
    writeFileSync(
      script,
      `local bodies = {}
for line in io.lines(${JSON.stringify(bodies)}) do bodies[#bodies + 1] = line end
local at = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  at = at % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %.3f %.3f %d\\n", summary.requests, summary.duration, latency:percentile(50) / 1000, latency:percentile(99) / 1000, e.status + e.connect + e.read + e.write + e.timeout))
end
`,
    );
    const args = [
      '-t1',
      `-c${load.connections}`,
      `-d${load.seconds}s`,
      '-s',
      script,
      `${load.url}/v1/rank`,
    ];
    const output = await new Promise<string>((resolve, reject) => {
      const child = spawn('wrk', args);
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      child.once('error', reject);
      child.once('close', () => resolve(text));
    });
    const result = output.match(/RESULT (\d+) (\d+) (\S+) (\S+) (\d+)/);
    if (result === null) throw new Error(`wrk said nothing useful:\n${output}`);
    const [, requests, durationUs, p50Ms, p99Ms, failures] = result.map(Number);
    return {
      requests: requests!,
      reqPerS: requests! / (durationUs! / 1e6),
      p50Ms: p50Ms!,
      p99Ms: p99Ms!,
      failures: failures!,
      generator: `wrk ${version}`,
    };
  } finally {
    removeScratch(dir);
  }
}

async function cannon(load: Load): Promise<LoadResult> {
  const result = await autocannon({
    url: `${load.url}/v1/rank`,
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    connections: load.connections,
    duration: load.seconds,
    requests: load.bodies.map((body) => ({ method: 'POST' as const, path: '/v1/rank', body })),
  });
  return {
    requests: result.requests.total,
    reqPerS: result.requests.total / result.duration,
    p50Ms: result.latency.p50,
    p99Ms: result.latency.p99,
    failures: result.non2xx + result.errors + result.timeouts,
    generator: 'autocannon',
  };
}

/** Open throttle goes through wrk where it is installed; a fixed rate has a generator of its own. */
export async function runLoad(load: Load): Promise<LoadResult> {
  if (load.rate !== undefined) return runPacedLoad({ ...load, rate: load.rate });
  const version = await wrkVersion();
  return version === undefined ? cannon(load) : wrk(load, version);
}
