/**
 * Text of a query parameter as ClickHouse's HTTP interface expects it (`param_x=…`): strings escaped like
 * TabSeparated at the top level, quoted inside arrays and maps, dates as UNIX seconds.
 * Source: https://clickhouse.com/docs/interfaces/http#cli-queries-with-parameters
 */
export function parameterText(value: unknown): string {
  return format(value, false);
}

function format(value: unknown, nested: boolean): string {
  if (value === null || value === undefined) return nested ? 'NULL' : '\\N';
  switch (typeof value) {
    case 'bigint':
      return String(value);
    case 'number':
      if (Number.isNaN(value)) return 'nan';
      if (value === Number.POSITIVE_INFINITY) return '+inf';
      if (value === Number.NEGATIVE_INFINITY) return '-inf';
      return String(value);
    case 'boolean':
      return nested ? (value ? 'TRUE' : 'FALSE') : value ? '1' : '0';
    case 'string':
      return nested ? `'${escapeText(value)}'` : escapeText(value);
    default:
      break;
  }
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    return `[${Array.from(value as unknown as Iterable<unknown>, (v) => format(v, true)).join(',')}]`;
  }
  if (value instanceof Date) {
    const seconds = Math.floor(value.getTime() / 1000)
      .toString()
      .padStart(10, '0');
    const ms = value.getUTCMilliseconds();
    return ms === 0 ? seconds : `${seconds}.${ms.toString().padStart(3, '0')}`;
  }
  if (typeof value === 'object') {
    const entries = value instanceof Map ? [...value] : Object.entries(value);
    return `{${entries.map(([k, v]) => `${format(k, true)}:${format(v, true)}`).join(',')}}`;
  }
  throw new TypeError(`a ${typeof value} cannot be a query parameter`);
}

function escapeText(text: string): string {
  return text.replace(/[\\'\t\n\r]/g, (c) => {
    switch (c) {
      case '\t':
        return '\\t';
      case '\n':
        return '\\n';
      case '\r':
        return '\\r';
      default:
        return `\\${c}`;
    }
  });
}
