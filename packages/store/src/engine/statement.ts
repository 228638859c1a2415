/** Splitting SQL text where the engine needs it split; no full parser: ClickHouse stays the judge of syntax. */

export interface InsertStatement {
  /** `INSERT INTO t (cols)` */
  readonly head: string;
  /** `SETTINGS …` between head and format, or ''. */
  readonly settings: string;
  readonly format: string;
  /** Where inline data begins in the text; equals its length when there is none. */
  readonly dataStart: number;
}

/** Index after whitespace and comments. */
export function skipBlank(sql: string, from: number): number {
  let i = from;
  for (;;) {
    while (i < sql.length && /\s/.test(sql[i]!)) i++;
    if (sql.startsWith('--', i) || sql.startsWith('#!', i) || sql.startsWith('# ', i)) {
      const end = sql.indexOf('\n', i);
      i = end < 0 ? sql.length : end + 1;
    } else if (sql.startsWith('/*', i)) {
      const end = sql.indexOf('*/', i + 2);
      i = end < 0 ? sql.length : end + 2;
    } else {
      return i;
    }
  }
}

/** Index after the quoted text that starts at `from` with one of ' " `. */
function skipQuoted(sql: string, from: number): number {
  const quote = sql[from]!;
  let i = from + 1;
  while (i < sql.length) {
    if (sql[i] === '\\') i += 2;
    else if (sql[i] === quote) {
      if (sql[i + 1] === quote) i += 2;
      else return i + 1;
    } else i++;
  }
  return sql.length;
}

export function firstWord(sql: string): string {
  const at = skipBlank(sql, 0);
  return /^[A-Za-z]+/.exec(sql.slice(at, at + 32))?.[0]?.toUpperCase() ?? '';
}

/**
 * Recognises `INSERT INTO t [(cols)] [SETTINGS …] FORMAT F [data]` and `… VALUES [data]`, whose rows travel
 * apart from the statement. Undefined for INSERT … SELECT and for everything else. O(length of the head).
 */
export function parseInsert(sql: string): InsertStatement | undefined {
  let i = skipBlank(sql, 0);
  if (!/^insert\s/i.test(sql.slice(i, i + 7))) return undefined;
  const start = i;
  let headEnd = -1;
  let settingsStart = -1;
  while (i < sql.length) {
    i = skipBlank(sql, i);
    const c = sql[i];
    if (c === undefined) break;
    if (c === "'" || c === '"' || c === '`') {
      i = skipQuoted(sql, i);
    } else if (c === '(') {
      let depth = 0;
      while (i < sql.length) {
        const d = sql[i]!;
        if (d === "'" || d === '"' || d === '`') {
          i = skipQuoted(sql, i);
          continue;
        }
        if (d === '(') depth++;
        if (d === ')' && --depth === 0) break;
        i++;
      }
      i++;
    } else if (/[A-Za-z_]/.test(c)) {
      const word = /^[A-Za-z0-9_]+/.exec(sql.slice(i, i + 256))![0];
      switch (word.toUpperCase()) {
        case 'SELECT':
        case 'WITH':
        case 'INFILE':
          return undefined;
        case 'SETTINGS':
          if (settingsStart < 0) {
            settingsStart = i;
            if (headEnd < 0) headEnd = i;
          }
          break;
        case 'VALUES': {
          if (headEnd < 0) headEnd = i;
          return {
            head: sql.slice(start, headEnd).trim(),
            settings: settingsStart < 0 ? '' : sql.slice(settingsStart, i).trim(),
            format: 'Values',
            dataStart: i + word.length,
          };
        }
        case 'FORMAT': {
          const match = /^\s+([A-Za-z0-9_]+)/.exec(
            sql.slice(i + word.length, i + word.length + 128),
          );
          if (match === null) return undefined;
          if (headEnd < 0) headEnd = i;
          let dataStart = i + word.length + match[0].length;
          // One separator belongs to the statement: spaces and at most one line end, or a semicolon.
          const gap = /^[ \t]*;?[ \t]*(\r?\n)?/.exec(sql.slice(dataStart, dataStart + 64));
          dataStart += gap?.[0].length ?? 0;
          return {
            head: sql.slice(start, headEnd).trim(),
            settings: settingsStart < 0 ? '' : sql.slice(settingsStart, i).trim(),
            format: match[1]!,
            dataStart,
          };
        }
      }
      i += word.length;
    } else {
      i++;
    }
  }
  return undefined;
}

/** Splits a migration file into statements at semicolons that end a line. */
export function splitStatements(text: string): string[] {
  return text
    .split(/;[ \t]*(?:\r?\n|$)/)
    .map((part) => part.slice(skipBlank(part, 0)).trim())
    .filter((part) => part.length > 0);
}

/** A SQL string literal. */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

/** A quoted identifier; `database.table` is quoted in its parts. */
export function quoteIdentifier(name: string): string {
  return name
    .split('.')
    .map((part) => `\`${part.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``)
    .join('.');
}
