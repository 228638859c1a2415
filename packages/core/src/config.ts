import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { Clone, Convert, Default } from 'typebox/value';
import { coreError } from './errors.js';

/**
 * Parses configuration once at the edge: applies defaults, converts strings of environment variables,
 * rejects unknown keys, freezes the result. Without `convert` values must have their types already, as in a JSON file.
 * @throws WAGGLE_CONFIG_INVALID naming every wrong key
 */
export function parseConfig<T extends TSchema>(
  schema: T,
  input: unknown,
  source: string,
  { convert = true }: { readonly convert?: boolean } = {},
): Readonly<Static<T>> {
  const complete = Default(schema, Clone(input));
  const value = convert ? Convert(schema, complete) : complete;
  const validator = Compile(schema);
  if (!validator.Check(value)) {
    const problems = [...validator.Errors(value)]
      // Each unknown key is named by an error of its own.
      .filter((e) => e.keyword !== 'additionalProperties')
      .map(
        (e) => `${e.instancePath || '/'}: ${e.keyword === 'boolean' ? 'is not known' : e.message}`,
      );
    throw coreError('WAGGLE_CONFIG_INVALID', `${source}: ${problems.join('; ')}`, {
      details: { source, problems },
    });
  }
  return Object.freeze(value as Static<T>);
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
