/**
 * The language in which a feature's value is written. An expression is plain data: it is hashed into the
 * set's fingerprint, compiled to ClickHouse SQL (`compile-sql.ts`) and to loops over typed arrays
 * (`online-program.ts`). Everything is a double; NaN means "missing" and travels through arithmetic in both
 * worlds by IEEE 754, so the two compilers cannot disagree about it.
 */

/** What a fact, a rate or a level effect can be grouped by. */
export const KEYS = [
  'publication',
  'pubCategory',
  'pubAudience',
  'pubSize',
  'pubLanguage',
  'campaign',
  'advertiser',
  'campCategory',
  'campPricing',
  'creative',
  'position',
] as const;
export type Key = (typeof KEYS)[number];

export type EntityName = 'publication' | 'campaign' | 'creative';
/** What a value depends on; `request` and `candidate` change with every call, the rest with the snapshot. */
export type Dependency = EntityName | 'request' | 'candidate';

/** Known per request: when the ad runs, where, beside how many others, on how long a menu, how long before its issue. */
export const REQUEST_FIELDS = ['tsMs', 'position', 'nAds', 'menuSize', 'leadMs'] as const;
/** Known per candidate of a request. */
export const CANDIDATE_FIELDS = ['priceMicros', 'estPayoutMicros', 'rank'] as const;
export type RequestField = (typeof REQUEST_FIELDS)[number];
export type CandidateField = (typeof CANDIDATE_FIELDS)[number];

/** How a column of an entity becomes a number. */
export type AttributeRead =
  | { readonly as: 'number' | 'timeMs' | 'length' | 'size' | 'flag' }
  | { readonly as: 'is'; readonly literal: string };

export interface AttributeRef {
  readonly entity: EntityName;
  readonly column: string;
}

export type UnaryOp =
  | 'log'
  | 'log1p'
  | 'exp'
  | 'sqrt'
  | 'abs'
  | 'neg'
  | 'sin'
  | 'cos'
  | 'floor'
  | 'logit'
  | 'sigmoid';
export type BinaryOp = 'add' | 'sub' | 'mul' | 'div' | 'min' | 'max';
export type CompareOp = 'lt' | 'le' | 'gt' | 'ge' | 'eq';

export type Leaf =
  | {
      readonly op: 'aggregate';
      readonly source: string;
      readonly measure: string;
      readonly stat: 'sum' | 'last';
      readonly by: readonly Key[];
      /** Facts that became known within so many days before the decision; null = all of them. */
      readonly windowDays: number | null;
    }
  | {
      readonly op: 'effect';
      readonly fit: string;
      /** A level of the fit, or `base` for its overall log rate. */
      readonly level: string;
      readonly output: 'effect' | 'evidence' | 'neighbours';
    }
  | { readonly op: 'attribute'; readonly ref: AttributeRef; readonly read: AttributeRead }
  | {
      readonly op: 'match';
      /** equal: same string; contains: the left list holds the right string (an empty list: 0, or 1 with OrEmpty). */
      readonly how: 'equal' | 'contains' | 'containsOrEmpty';
      readonly left: AttributeRef;
      readonly right: AttributeRef;
    }
  /** Inner product of two unit embeddings, their cosine; missing where either has no embedding. */
  | {
      readonly op: 'similarity';
      readonly left: EntityName;
      readonly right: EntityName;
      /** With the mean vector of each kind taken away first. */
      readonly centered: boolean;
    }
  | { readonly op: 'request'; readonly field: RequestField }
  | { readonly op: 'candidate'; readonly field: CandidateField };

export type Expression =
  | Leaf
  | { readonly op: 'const'; readonly value: number }
  | { readonly op: 'param'; readonly name: string }
  | { readonly op: UnaryOp; readonly arg: Expression }
  | { readonly op: BinaryOp; readonly left: Expression; readonly right: Expression }
  /** The first value, or the second where the first is missing or infinite. */
  | { readonly op: 'coalesce'; readonly left: Expression; readonly right: Expression }
  | {
      readonly op: 'if';
      readonly compare: CompareOp;
      readonly left: Expression;
      readonly right: Expression;
      readonly yes: Expression;
      readonly no: Expression;
    };

export type Operand = Expression | number;

const wrap = (value: Operand): Expression =>
  typeof value === 'number' ? { op: 'const', value } : value;
const unary =
  (op: UnaryOp) =>
  (arg: Operand): Expression => ({ op, arg: wrap(arg) });
const binary =
  (op: BinaryOp) =>
  (left: Operand, right: Operand, ...more: Operand[]): Expression =>
    more.reduce<Expression>((sum, next) => ({ op, left: sum, right: wrap(next) }), {
      op,
      left: wrap(left),
      right: wrap(right),
    });

export const constant = (value: number): Expression => ({ op: 'const', value });
/** A number that training may re-estimate; its default is declared by the feature set. */
export const param = (name: string): Expression => ({ op: 'param', name });
export const log = unary('log');
export const log1p = unary('log1p');
export const exp = unary('exp');
export const sqrt = unary('sqrt');
export const abs = unary('abs');
export const neg = unary('neg');
export const sin = unary('sin');
export const cos = unary('cos');
export const floor = unary('floor');
export const logit = unary('logit');
export const sigmoid = unary('sigmoid');
export const add = binary('add');
export const sub = binary('sub');
export const mul = binary('mul');
export const div = binary('div');
export const min = binary('min');
export const max = binary('max');
export const coalesce = (left: Operand, right: Operand): Expression => ({
  op: 'coalesce',
  left: wrap(left),
  right: wrap(right),
});
export const when = (
  left: Operand,
  compare: CompareOp,
  right: Operand,
  then: Operand,
  otherwise: Operand,
): Expression => ({
  op: 'if',
  compare,
  left: wrap(left),
  right: wrap(right),
  yes: wrap(then),
  no: wrap(otherwise),
});
/** Keeps a missing value missing: `min` and `max` answer their second operand then. */
export const clamp = (value: Operand, low: number, high: number): Expression =>
  min(high, max(low, value));

/** Sum of a measure over the facts of a source that share the given keys with the decision. */
export const total = (
  source: string,
  measure: string,
  by: readonly Key[],
  windowDays: number | null = null,
): Expression => ({ op: 'aggregate', source, measure, stat: 'sum', by, windowDays });
/** When the latest such fact became known, UTC milliseconds; missing where there is none. */
export const lastTime = (source: string, by: readonly Key[]): Expression => ({
  op: 'aggregate',
  source,
  measure: 'count',
  stat: 'last',
  by,
  windowDays: null,
});
export const effect = (fit: string, level: string): Expression => ({
  op: 'effect',
  fit,
  level,
  output: 'effect',
});
export const evidence = (fit: string, level: string): Expression => ({
  op: 'effect',
  fit,
  level,
  output: 'evidence',
});
/**
 * What the effects of the entities nearest by text suggest of this one's: for levels of one publication, campaign or creative. 0 where no
 * neighbour has a history.
 */
export const neighbours = (fit: string, level: string): Expression => ({
  op: 'effect',
  fit,
  level,
  output: 'neighbours',
});
export const attribute = (
  entity: EntityName,
  column: string,
  as: 'number' | 'timeMs' | 'length' | 'size' | 'flag' = 'number',
): Expression => ({ op: 'attribute', ref: { entity, column }, read: { as } });
export const attributeIs = (entity: EntityName, column: string, literal: string): Expression => ({
  op: 'attribute',
  ref: { entity, column },
  read: { as: 'is', literal },
});
export const match = (
  how: 'equal' | 'contains' | 'containsOrEmpty',
  left: AttributeRef,
  right: AttributeRef,
): Expression => ({ op: 'match', how, left, right });
export const similarity = (left: EntityName, right: EntityName): Expression => ({
  op: 'similarity',
  left,
  right,
  centered: false,
});
/** Similarity after taking away what all texts of a kind have in common. */
export const centeredSimilarity = (left: EntityName, right: EntityName): Expression => ({
  op: 'similarity',
  left,
  right,
  centered: true,
});
export const request = (field: RequestField): Expression => ({ op: 'request', field });
export const candidate = (field: CandidateField): Expression => ({ op: 'candidate', field });

/** Direct sub-expressions, in evaluation order. */
export function childrenOf(expression: Expression): readonly Expression[] {
  if ('arg' in expression) return [expression.arg];
  switch (expression.op) {
    case 'add':
    case 'sub':
    case 'mul':
    case 'div':
    case 'min':
    case 'max':
    case 'coalesce':
      return [expression.left, expression.right];
    case 'if':
      return [expression.left, expression.right, expression.yes, expression.no];
    default:
      return [];
  }
}

export function isLeaf(expression: Expression): expression is Leaf {
  switch (expression.op) {
    case 'aggregate':
    case 'effect':
    case 'attribute':
    case 'match':
    case 'similarity':
    case 'request':
    case 'candidate':
      return true;
    default:
      return false;
  }
}

/** JSON with sorted keys: equal expressions have equal text. */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  const entries = Object.entries(value as Record<string, unknown>)
    .filter(([, v]) => v !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([k, v]) => `${JSON.stringify(k)}:${canonicalJson(v)}`);
  return `{${entries.join(',')}}`;
}

/** One operation on doubles; the online evaluator and the tests share it. Division and logarithms follow IEEE 754. */
export const UNARY: Readonly<Record<UnaryOp, (x: number) => number>> = {
  log: Math.log,
  log1p: Math.log1p,
  exp: Math.exp,
  sqrt: Math.sqrt,
  abs: Math.abs,
  neg: (x) => -x,
  sin: Math.sin,
  cos: Math.cos,
  floor: Math.floor,
  logit: (x) => Math.log(x / (1 - x)),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};
/** `min` and `max` answer their second operand when either is missing, in SQL as here. */
export const BINARY: Readonly<Record<BinaryOp | 'coalesce', (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  // biome-ignore lint/complexity/useMathMinMax: Math.min would answer NaN for a missing first operand
  min: (a, b) => (a < b ? a : b),
  // biome-ignore lint/complexity/useMathMinMax: as above
  max: (a, b) => (a > b ? a : b),
  coalesce: (a, b) => (Number.isFinite(a) ? a : b),
};
export const COMPARE: Readonly<Record<CompareOp, (a: number, b: number) => boolean>> = {
  lt: (a, b) => a < b,
  le: (a, b) => a <= b,
  gt: (a, b) => a > b,
  ge: (a, b) => a >= b,
  eq: (a, b) => a === b,
};
