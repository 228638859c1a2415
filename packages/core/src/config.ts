import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { Clone, Convert, Default } from 'typebox/value';
import { coreError } from './errors.js';

export interface ParseConfigOptions {
  /** Without it values must have their types already, as in a JSON file. @default true */
  readonly convert?: boolean;
  /** What whoever wrote a key calls it, such as its environment variable; its path in the document unless told. */
  readonly nameOf?: (key: string) => string;
}

/**
 * Parses configuration once at the edge: applies defaults, converts strings of environment variables,
 * rejects unknown keys, freezes the result.
 * @throws WAGGLE_CONFIG_INVALID naming every wrong key
 */
export function parseConfig<T extends TSchema>(
  schema: T,
  input: unknown,
  source: string,
  { convert = true, nameOf }: ParseConfigOptions = {},
): Readonly<Static<T>> {
  const complete = Default(schema, Clone(input));
  const value = convert ? withoutLoss(complete, Convert(schema, Clone(complete))) : complete;
  const validator = Compile(schema);
  if (!validator.Check(value)) {
    const errors = [...validator.Errors(value)]
      // Each unknown key is named by an error of its own.
      .filter((e) => e.keyword !== 'additionalProperties');
    const problems = [...new Set(errors.map((e) => e.instancePath))].map((path) => {
      const name = nameOf === undefined ? path || '/' : nameOf(path.slice(1));
      return `${name}: ${problemOf(errors.filter((e) => e.instancePath === path))}`;
    });
    throw coreError('WAGGLE_CONFIG_INVALID', `${source}: ${problems.join('; ')}`, {
      details: { source, problems },
    });
  }
  return Object.freeze(value as Static<T>);
}

/** A number that its text does not say, such as 8 for "8.5" or 1 for "true", stays the text, and is refused. */
function withoutLoss(given: unknown, converted: unknown): unknown {
  if (typeof converted === 'number') return Number(given) === converted ? converted : given;
  if (typeof given !== 'object' || given === null) return converted;
  if (Array.isArray(given)) {
    return Array.isArray(converted) ? given.map((v, i) => withoutLoss(v, converted[i])) : converted;
  }
  const to = converted as Record<string, unknown>;
  return Object.fromEntries(Object.entries(given).map(([k, v]) => [k, withoutLoss(v, to[k])]));
}

type SchemaError = ReturnType<ReturnType<typeof Compile>['Errors']>[number];

/** One sentence for everything that is wrong with one value. */
function problemOf(errors: readonly SchemaError[]): string {
  const words = errors.flatMap((e) => (e.keyword === 'const' ? [e.params.allowedValue] : []));
  if (words.length > 0) return `must be ${words.length > 1 ? 'one of ' : ''}${words.join(', ')}`;
  return errors.map((e) => (e.keyword === 'boolean' ? 'is not known' : e.message)).join(', ');
}

/** A copy of a configuration for the log at boot: values under secret-looking keys are hidden. */
export function redactConfig(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [
      key,
      /key|secret|password|token|url$/i.test(key) && value ? '[redacted]' : value,
    ]),
  );
}
