import { type ChildProcess, spawn } from 'node:child_process';
import type { RankRequestBody, RankResponseBody } from '@waggle/core/contract';

export const CONNECTIONS = 32;
/** More requests than any gateway here answers in a second. */
export const MOST_PER_S = 12_000;
/** Publications that unique questions are about: more of them reach less far into the future, where flights end. */
const UNIQUE_PUBLICATIONS = 64;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

export interface Server {
  readonly url: string;
  readonly child: ChildProcess;
}

/** Starts a server that prints `{"url":…}` as its first line. */
export function startServer(args: readonly string[], env: NodeJS.ProcessEnv): Promise<Server> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const line = text.split('\n')[0];
      if (text.includes('\n') && line !== undefined) {
        resolve({ url: (JSON.parse(line) as { url: string }).url, child });
      }
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`server ended with ${code} before it listened`)));
  });
}

export async function stopServer({ child }: Server): Promise<void> {
  if (child.exitCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
}

export async function rank(url: string, body: RankRequestBody): Promise<RankResponseBody> {
  const response = await fetch(`${url}/v1/rank`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`rank answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as RankResponseBody;
}

/**
 * Bodies for a run in which no (publication, minute) comes twice: the publications in turn, each time a minute later. What
 * the engine keeps of an answer, and the features it was made of, is of no use to the next; what it keeps of a publication
 * (its candidates, the cosines of texts) is, as in real traffic. Runs go on where the one before stopped.
 */
export class UniqueBodies {
  readonly #publications: readonly string[];
  #nextMs: number;

  constructor(publications: readonly string[], asOfMs: number) {
    this.#publications = publications.slice(0, UNIQUE_PUBLICATIONS);
    this.#nextMs = asOfMs + HOUR_MS;
  }

  take(count: number): string[] {
    const bodies: string[] = [];
    for (; bodies.length < count; this.#nextMs += MINUTE_MS) {
      const planned_at = new Date(this.#nextMs).toISOString();
      for (const publication_id of this.#publications) {
        const body: RankRequestBody = {
          mode: 'offers',
          publication_id,
          k: 10,
          explain: 'summary',
          context: { planned_at },
        };
        bodies.push(JSON.stringify(body));
      }
    }
    return bodies;
  }
}

export async function untilServed(url: string, release: string): Promise<void> {
  const endMs = performance.now() + 60_000;
  for (;;) {
    const served = (await (await fetch(`${url}/v1/release`)).json()) as { release: string };
    if (served.release === release) return;
    if (performance.now() > endMs) throw new Error(`the gateway did not take up ${release}`);
    await new Promise((wake) => setTimeout(wake, 50));
  }
}
