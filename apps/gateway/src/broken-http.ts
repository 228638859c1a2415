import type { Socket } from 'node:net';
import { gatewayError, statusOf } from './errors.js';

const REASONS: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  413: 'Payload Too Large',
};

/** Answers what is not HTTP, or never ends, with our error body, where the socket still takes one. */
export function answerBrokenHttp(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const coded =
    error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
      ? gatewayError('WAGGLE_REQUEST_TIMEOUT', 'the request did not arrive in time')
      : error.code === 'HPE_HEADER_OVERFLOW'
        ? gatewayError('WAGGLE_REQUEST_TOO_LARGE', 'the headers are too large')
        : gatewayError('WAGGLE_REQUEST_MALFORMED', 'the request is not valid HTTP');
  const status = statusOf(coded.code);
  const body = JSON.stringify({
    error: { code: coded.code, message: coded.message, remedy: coded.remedy },
  });
  socket.end(
    `HTTP/1.1 ${status} ${REASONS[status]}\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
