import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import type { RankResponseBody } from '@waggle/core/contract';
import { bareGateway } from './bare-gateway.js';

/** A process of its own that serves the canned answer of the file named first; prints its address as JSON. */
const answer = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as RankResponseBody;
const app = bareGateway(answer);
await app.listen({ host: '127.0.0.1', port: 0 });
process.stdout.write(
  `${JSON.stringify({ url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}` })}\n`,
);
process.on('SIGTERM', () => void app.close());
