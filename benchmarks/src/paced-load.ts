import { connect, type Socket } from 'node:net';
import type { Load, LoadResult } from './load-contract.js';

/** Requests still unanswered this long after the last one was due count as failures. */
const PATIENCE_MS = 5_000;
/** Between two looks at the clock and the sockets. */
const NAP_MS = 0.5;
const HEAD_END = Buffer.from('\r\n\r\n');
const READ_BYTES = 1 << 16;

/** One keep-alive connection with at most one request on its way. */
class Connection {
  readonly #socket: Socket;
  readonly #onAnswer: (connection: Connection, status: number) => void;
  /** Beginning of an answer whose head has not arrived whole. */
  #head = Buffer.alloc(0);
  #status = 0;
  #bodyLeft = 0;

  private constructor(socket: Socket, onAnswer: (connection: Connection, status: number) => void) {
    this.#socket = socket;
    this.#onAnswer = onAnswer;
  }

  static open(
    url: URL,
    onAnswer: (connection: Connection, status: number) => void,
    onBroken: (connection: Connection, cause: Error) => void,
  ): Promise<Connection> {
    return new Promise((resolve, reject) => {
      let connection: Connection | undefined;
      const socket = connect({
        host: url.hostname,
        port: Number(url.port),
        noDelay: true,
        // One buffer for all reads: allocating one for each would cost more than looking at it.
        onread: {
          buffer: Buffer.allocUnsafe(READ_BYTES),
          callback: (n, buffer) => {
            connection!.#read((buffer as Buffer).subarray(0, n));
            return true;
          },
        },
      });
      const broken = (cause: Error) =>
        connection === undefined ? reject(cause) : onBroken(connection, cause);
      socket.once('error', broken);
      socket.once('close', () => broken(new Error('the server closed a connection')));
      socket.once('connect', () => {
        connection = new Connection(socket, onAnswer);
        resolve(connection);
      });
    });
  }

  send(request: Buffer): void {
    this.#socket.write(request);
  }

  close(): void {
    this.#socket.removeAllListeners('close').destroy();
  }

  #read(chunk: Buffer): void {
    let bytes = chunk;
    while (bytes.length > 0) {
      if (this.#bodyLeft > 0) {
        const taken = Math.min(this.#bodyLeft, bytes.length);
        this.#bodyLeft -= taken;
        bytes = bytes.subarray(taken);
      } else {
        if (this.#head.length > 0) bytes = Buffer.concat([this.#head, bytes]);
        const end = bytes.indexOf(HEAD_END);
        if (end < 0) {
          this.#head = Buffer.from(bytes);
          return;
        }
        this.#head = Buffer.alloc(0);
        const head = bytes.toString('latin1', 0, end);
        const length = /\r\ncontent-length: *(\d+)/i.exec(head);
        if (length === null) throw new Error(`an answer without content-length:\n${head}`);
        this.#status = Number(head.slice(9, 12));
        this.#bodyLeft = Number(length[1]);
        bytes = bytes.subarray(end + HEAD_END.length);
      }
      if (this.#bodyLeft === 0) this.#onAnswer(this, this.#status);
    }
  }
}

/**
 * Offers requests at a fixed rate, whatever the answers do: request i is due at i / rate, and its latency runs from that
 * moment to the last byte of its answer. A request that finds every connection busy waits for one, and its waiting counts;
 * so a server that stops for 50 ms is charged for all requests that fell due meanwhile, not just for those it had
 * (no coordinated omission).
 *
 * On two cores the generator's share is the server's loss, so it does little: it writes prepared bytes, looks at nothing
 * but status and length of an answer, and sleeps half a millisecond between two looks at its sockets, deaf to them, so
 * that no answer has to wake it. Both naps, before a request leaves and before its answer is seen, count as latency.
 */
export async function runPacedLoad(load: Load & { readonly rate: number }): Promise<LoadResult> {
  const { rate, seconds } = load;
  const url = new URL(`${load.url}/v1/rank`);
  const requests = load.bodies.map((body) =>
    Buffer.from(
      `POST ${url.pathname} HTTP/1.1\r\nhost: ${url.host}\r\ncontent-type: application/json\r\n` +
        `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    ),
  );
  const total = Math.floor(rate * seconds);
  const latencies = new Float64Array(total);
  const idle: Connection[] = [];
  const dueAt = new Map<Connection, number>();
  let failures = 0;
  let next = 0;
  let answered = 0;
  let lastMs = 0;
  let finish!: () => void;
  let fail!: (cause: Error) => void;
  const finished = new Promise<void>((resolve, reject) => {
    finish = resolve;
    fail = reject;
  });
  const connections = await Promise.all(
    Array.from({ length: load.connections }, () =>
      Connection.open(url, onAnswer, (_, cause) => fail(cause)),
    ),
  );
  idle.push(...connections);
  const startMs = performance.now();

  function sendDue(nowMs: number): void {
    while (next < total && idle.length > 0) {
      const due = startMs + (next * 1000) / rate;
      if (due > nowMs) return;
      const connection = idle.pop()!;
      dueAt.set(connection, due);
      connection.send(requests[next % requests.length]!);
      next++;
    }
  }

  function onAnswer(connection: Connection, status: number): void {
    const nowMs = performance.now();
    latencies[answered++] = nowMs - dueAt.get(connection)!;
    if (status !== 200) failures++;
    lastMs = nowMs;
    idle.push(connection);
    if (answered === total) finish();
    else sendDue(nowMs);
  }

  const nap = new Int32Array(new SharedArrayBuffer(4));
  let running = true;
  const look = () => {
    if (!running) return;
    sendDue(performance.now());
    Atomics.wait(nap, 0, 0, NAP_MS);
    // The sockets that became ready meanwhile are served before the next look.
    setImmediate(look);
  };
  look();
  const patience = setTimeout(finish, seconds * 1000 + PATIENCE_MS);
  try {
    await finished;
  } finally {
    running = false;
    clearTimeout(patience);
    for (const connection of connections) connection.close();
  }
  const sorted = latencies.subarray(0, answered).sort();
  const at = (q: number) => sorted[Math.max(0, Math.ceil(q * answered) - 1)] ?? Number.NaN;
  return {
    requests: answered,
    reqPerS: answered / ((lastMs - startMs) / 1000),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    failures: failures + (total - answered),
    generator: 'waggle paced',
  };
}
