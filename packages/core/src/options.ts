/** The fields of every member of a union. */
type NamesOf<Options> = Options extends unknown ? keyof Options : never;

/** The fields an options object may have; one that is forgotten here, or is none, does not compile. */
export function optionNames<Options>(
  names: Readonly<Record<NamesOf<Options> & string, true>>,
): ReadonlySet<string> {
  return new Set(Object.keys(names));
}

/** What is wrong with an options object that has that field. */
export function unknownOptionText(
  unknown: string,
  names: ReadonlySet<string>,
  what = 'options',
): string {
  return `${what}: there is no ${unknown}, but ${[...names].join(', ')}`;
}

/**
 * A field that an options object has and that is none of `names`: misspelt, it would be ignored, and the answer another
 * one. TypeScript refuses it in a literal; plain JavaScript does not. Undefined is as good as absent. O(fields), some 10 ns
 * each.
 *
 * @param spare columns (typed arrays) of other names are none of our business: data sets come with more than is asked for
 */
export function unknownOption(
  options: object,
  names: ReadonlySet<string>,
  spare?: 'columns',
): string | undefined {
  for (const name in options) {
    if (names.has(name)) continue;
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined || (spare === 'columns' && ArrayBuffer.isView(value))) continue;
    return name;
  }
  return undefined;
}
