import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';

/**
 * A contender is a process that answers one line of JSON with one line of JSON: ours at one instruction set, or one
 * peer. It reads its data from raw little-endian files, does the work when asked, and times it itself, so neither the
 * pipe nor another contender's threads are in a figure. Its first line says who it is, or why it cannot run.
 */
export interface Hello {
  readonly name: string;
  readonly version: string;
  readonly threads: number;
  /** What it computes with, where it knows. */
  readonly simd?: string;
  readonly gpu?: string;
}

export type Answer = Readonly<Record<string, unknown>>;

export interface Contender {
  readonly hello: Hello;
  /** @throws Error with the contender's own words when it could not do it */
  call(op: string, args?: Readonly<Record<string, unknown>>): Promise<Answer>;
  /** Milliseconds of one run of an operation that was prepared before. */
  time(op: string, args?: Readonly<Record<string, unknown>>): Promise<number>;
  close(): Promise<void>;
}

export interface ContenderCommand {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Named in messages. */
  readonly label: string;
}

/** Why a contender does not take part. */
export class Absent extends Error {
  override readonly name = 'Absent';
}

/**
 * Starts a contender and waits for its first line.
 * @throws Absent when it says that it cannot run here, or does not start
 */
export async function startContender(spec: ContenderCommand): Promise<Contender> {
  const child = spawn(spec.command, [...spec.args], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...spec.env },
  });
  // A write to a process that died is reported by its end.
  child.stdin.on('error', () => undefined);
  const lines = new Lines(child, createInterface({ input: child.stdout }));
  const first = await lines.next(`${spec.label} did not start`);
  if (typeof first['skip'] === 'string') {
    await lines.stop();
    throw new Absent(first['skip']);
  }
  const hello = first as unknown as Hello;
  let last: Promise<unknown> = Promise.resolve();
  const call = async (op: string, args: Readonly<Record<string, unknown>> = {}) => {
    // One at a time: a contender that works for two at once times neither.
    const turn = last.then(async () => {
      child.stdin.write(`${JSON.stringify({ op, ...args })}\n`);
      const answer = await lines.next(`${spec.label} ended during ${op}`);
      if (typeof answer['error'] === 'string') {
        throw new Error(`${spec.label}: ${op}: ${answer['error']}`);
      }
      return answer;
    });
    last = turn.catch(() => undefined);
    return turn;
  };
  return {
    hello,
    call,
    time: async (op, args) => {
      const { ms } = await call(op, args);
      if (typeof ms !== 'number' || !(ms > 0)) {
        throw new Error(`${spec.label}: ${op} gave no time: ${String(ms)}`);
      }
      return ms;
    },
    close: () => lines.stop(),
  };
}

class Lines {
  readonly #child: ChildProcess;
  readonly #ready: Answer[] = [];
  #waiting: { resolve: (line: Answer) => void; reject: (why: Error) => void } | undefined;
  #ended: string | undefined;
  readonly #exit: Promise<void>;

  constructor(child: ChildProcess, lines: Interface) {
    this.#child = child;
    lines.on('line', (text) => {
      // Libraries print to stdout what they like; only objects are ours.
      if (!text.startsWith('{')) return;
      const line = JSON.parse(text) as Answer;
      if (this.#waiting === undefined) this.#ready.push(line);
      else this.#waiting.resolve(line);
      this.#waiting = undefined;
    });
    this.#exit = new Promise((resolve) => {
      const end = (why: string) => {
        this.#ended ??= why;
        this.#waiting?.reject(new Error(why));
        this.#waiting = undefined;
        resolve();
      };
      child.once('error', (error) => end(error.message));
      child.once('close', (code, signal) => end(`exit ${code ?? signal ?? 'unknown'}`));
    });
  }

  next(what: string): Promise<Answer> {
    const ready = this.#ready.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#ended !== undefined) return Promise.reject(new Absent(`${what}: ${this.#ended}`));
    return new Promise((resolve, reject) => {
      this.#waiting = {
        resolve,
        reject: (why) => reject(new Absent(`${what}: ${why.message}`)),
      };
    });
  }

  async stop(): Promise<void> {
    this.#child.stdin?.end();
    // It ends when its input does; one that is stuck in a long run is not waited for.
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 2_000);
    await this.#exit;
    clearTimeout(timer);
  }
}

/** What a request of that shape gets, by operation; the parent is trusted to send the shape. */
export type Handlers = Readonly<Record<string, (args: never) => unknown>>;

/** The contender's side, for those that run in Node: answers stdin until it ends. */
export async function serve(hello: Hello | { skip: string }, handlers: Handlers): Promise<void> {
  const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
  say(hello);
  if ('skip' in hello) return;
  for await (const text of createInterface({ input: process.stdin })) {
    try {
      const { op, ...args } = JSON.parse(text) as { op: string };
      const handler = handlers[op];
      if (handler === undefined) throw new Error('no such operation here');
      say(((await handler(args as never)) as object | undefined) ?? {});
    } catch (error) {
      say({ error: error instanceof Error ? error.message : String(error) });
    }
  }
}

/** Milliseconds that an action took, and what it gave. */
export async function timed<T>(action: () => T | Promise<T>): Promise<{ ms: number; value: T }> {
  const start = performance.now();
  const value = await action();
  return { ms: performance.now() - start, value };
}
