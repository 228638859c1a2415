import type { FeatureSet } from './definition.js';
import { dependenciesOf } from './definition.js';
import {
  BINARY,
  COMPARE,
  canonicalJson,
  childrenOf,
  type Dependency,
  type Expression,
  isLeaf,
  type Leaf,
  UNARY,
} from './expression.js';

/**
 * How often a node has to be computed: once; per publication; per campaign and creative (`item`); per
 * publication and item (`pair`); per request; per request and candidate.
 */
export type Rate = 'constant' | 'publication' | 'item' | 'pair' | 'request' | 'requestCandidate';

export interface ProgramNode {
  readonly expression: Expression;
  readonly args: readonly number[];
  readonly rate: Rate;
  readonly leaf: Leaf | undefined;
  /** `canonicalJson` of the leaf: its entry in `FeatureSet.leafKeys`. */
  readonly leafKey: string | undefined;
}

/** All features of a set as one list of operations without repetition, arguments before users. */
export interface Program {
  readonly nodes: readonly ProgramNode[];
  /** Node of each feature. */
  readonly outputs: readonly number[];
}

function rateOf(dependencies: ReadonlySet<Dependency>): Rate {
  const row =
    dependencies.has('campaign') || dependencies.has('creative') || dependencies.has('candidate');
  if (dependencies.has('request') || dependencies.has('candidate')) {
    return row ? 'requestCandidate' : 'request';
  }
  if (row) return dependencies.has('publication') ? 'pair' : 'item';
  return dependencies.has('publication') ? 'publication' : 'constant';
}

/** Flattens a set's expressions; equal sub-expressions become one node. */
export function buildProgram(set: FeatureSet): Program {
  const fits = new Map(set.fits.map((f) => [f.name, f]));
  const nodes: ProgramNode[] = [];
  const known = new Map<string, number>();
  const place = (expression: Expression): number => {
    const key = canonicalJson(expression);
    const at = known.get(key);
    if (at !== undefined) return at;
    const args = childrenOf(expression).map(place);
    nodes.push({
      expression,
      args,
      rate: rateOf(dependenciesOf(expression, fits)),
      leaf: isLeaf(expression) ? expression : undefined,
      leafKey: isLeaf(expression) ? key : undefined,
    });
    known.set(key, nodes.length - 1);
    return nodes.length - 1;
  };
  const outputs = set.features.map((f) => place(f.value));
  return { nodes, outputs };
}

/** The value of one operation from its arguments' values. */
export function applyScalar(
  expression: Expression,
  args: readonly number[],
  params: Readonly<Record<string, number>>,
): number {
  switch (expression.op) {
    case 'const':
      return expression.value;
    case 'param':
      return params[expression.name]!;
    case 'add':
    case 'sub':
    case 'mul':
    case 'div':
    case 'min':
    case 'max':
    case 'coalesce':
      return BINARY[expression.op](args[0]!, args[1]!);
    case 'if':
      return COMPARE[expression.compare](args[0]!, args[1]!) ? args[2]! : args[3]!;
    case 'aggregate':
    case 'effect':
    case 'attribute':
    case 'match':
    case 'similarity':
    case 'request':
    case 'candidate':
      throw new TypeError('a leaf is read, not computed');
    default:
      return UNARY[expression.op](args[0]!);
  }
}

/**
 * A loop that computes one operation for n rows: out[i] = op(args[…][i]). One closure per operation, each with
 * its own loop, so that every loop sees one operation only and is compiled to straight arithmetic.
 */
export function vectorLoop(
  expression: Expression,
  args: readonly Float64Array[],
  out: Float64Array,
): (n: number) => void {
  const [a, b, c, d] = args as [Float64Array, Float64Array, Float64Array, Float64Array];
  switch (expression.op) {
    case 'add':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = a[i]! + b[i]!;
      };
    case 'sub':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = a[i]! - b[i]!;
      };
    case 'mul':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = a[i]! * b[i]!;
      };
    case 'div':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = a[i]! / b[i]!;
      };
    case 'min':
      return (n) => {
        // biome-ignore lint/complexity/useMathMinMax: a missing first operand gives way to the second
        for (let i = 0; i < n; i++) out[i] = a[i]! < b[i]! ? a[i]! : b[i]!;
      };
    case 'max':
      return (n) => {
        // biome-ignore lint/complexity/useMathMinMax: a missing first operand gives way to the second
        for (let i = 0; i < n; i++) out[i] = a[i]! > b[i]! ? a[i]! : b[i]!;
      };
    case 'coalesce':
      return (n) => {
        for (let i = 0; i < n; i++) {
          const x = a[i]!;
          out[i] = x - x === 0 ? x : b[i]!;
        }
      };
    case 'if': {
      const { compare } = expression;
      if (compare === 'lt') {
        return (n) => {
          for (let i = 0; i < n; i++) out[i] = a[i]! < b[i]! ? c[i]! : d[i]!;
        };
      }
      if (compare === 'le') {
        return (n) => {
          for (let i = 0; i < n; i++) out[i] = a[i]! <= b[i]! ? c[i]! : d[i]!;
        };
      }
      if (compare === 'gt') {
        return (n) => {
          for (let i = 0; i < n; i++) out[i] = a[i]! > b[i]! ? c[i]! : d[i]!;
        };
      }
      if (compare === 'ge') {
        return (n) => {
          for (let i = 0; i < n; i++) out[i] = a[i]! >= b[i]! ? c[i]! : d[i]!;
        };
      }
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = a[i]! === b[i]! ? c[i]! : d[i]!;
      };
    }
    case 'log':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = Math.log(a[i]!);
      };
    case 'log1p':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = Math.log1p(a[i]!);
      };
    case 'exp':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = Math.exp(a[i]!);
      };
    case 'neg':
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = -a[i]!;
      };
    case 'sqrt':
    case 'abs':
    case 'sin':
    case 'cos':
    case 'floor':
    case 'logit':
    case 'sigmoid': {
      const apply = UNARY[expression.op];
      return (n) => {
        for (let i = 0; i < n; i++) out[i] = apply(a[i]!);
      };
    }
    default:
      throw new TypeError(`${expression.op} has no arguments to loop over`);
  }
}
