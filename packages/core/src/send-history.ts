/**
 * Sends of a network as forecasting learns from them and predicts them: what is known when a send is planned, and what came of
 * it once it is over. Rows in order of `plannedMs`. Columns have one entry per send; NaN = not known yet.
 */
export interface SendHistory {
  readonly nSends: number;
  /** Dense number of the publication, below `nPublications`. */
  readonly publication: Uint32Array;
  readonly nPublications: number;
  /** When the send was, or is, planned for; UTC ms. */
  readonly plannedMs: Float64Array;
  readonly sentMs: Float64Array;
  /** Local time of `plannedMs` where the publication is. 0 = Sunday. */
  readonly localWeekday: Uint8Array;
  readonly localHour: Uint8Array;
  /** Ad places of the send as planned. */
  readonly nSlots: Float64Array;
  /** Issues a week that the publication had announced when the send was planned. */
  readonly cadencePerWeek: Float64Array;
  readonly recipients: Float64Array;
  readonly delivered: Float64Array;
  /** Eligible opens: unique opens by people within the outcome window. */
  readonly opens: Float64Array;
  /** Unique verified ad clicks within the outcome window. */
  readonly clicks: Float64Array;
  /** How long after sending opens and clicks are final, ms: whole hours. */
  readonly outcomeMs: number;
  readonly hourly: HourlyOutcomes;
  /** List sizes that publications reported, in order of `atMs`. */
  readonly lists: {
    readonly publication: Uint32Array;
    readonly atMs: Float64Array;
    readonly subscribers: Float64Array;
  };
}

/**
 * Opens and clicks of the outcome window by hour: what tells of a send before its outcome is final. Float64
 * [nSends × outcomeMs / 1 h] each, row-major; NaN = the hour is not over yet, or nothing was sent.
 */
export interface HourlyOutcomes {
  /** Clock hours, the hour of sending first. */
  readonly opens: Float64Array;
  /** Hours since sending. */
  readonly clicks: Float64Array;
}
