/** What a load generator is asked for, and what it answers. */
export interface Load {
  readonly url: string;
  /** Sent in turn; JSON without line breaks. */
  readonly bodies: readonly string[];
  readonly connections: number;
  readonly seconds: number;
  /** Requests per second offered; as many as possible when absent. */
  readonly rate?: number;
}

export interface LoadResult {
  readonly requests: number;
  readonly reqPerS: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Answers other than 200, and broken connections. */
  readonly failures: number;
  readonly generator: string;
}
