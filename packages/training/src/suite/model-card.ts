import type { Limits, SliceOfModel } from './slice-table.js';

/** What people who use or answer for a model should know about it; plain JSON. */
export interface ModelCard {
  readonly name: string;
  /** One sentence each. */
  readonly predicts: string;
  readonly unit: string;
  readonly label: string;
  /** When a label counts, and what happens with rows that are younger. */
  readonly maturity: string;
  readonly baseline: string;
  readonly form: string;
  readonly data: {
    readonly fromTs: string | null;
    readonly toTs: string | null;
    readonly rows: Readonly<Record<string, number>>;
  };
  readonly features: readonly { readonly name: string; readonly description: string }[];
  readonly featureSetFingerprint: string;
  readonly slices: readonly SliceOfModel[];
  /** Further numbers on the judged rows. */
  readonly metrics: Readonly<Record<string, number | null>>;
  readonly calibration: string;
  readonly gate: {
    readonly passed: boolean;
    readonly summary: string;
    readonly checks: readonly {
      readonly name: string;
      readonly passed: boolean;
      readonly explanation: string;
    }[];
  };
  readonly limits: readonly string[];
}

/**
 * A model card as Markdown (after Mitchell et al. 2019). Depends on its input alone, so that the same model has the same
 * card; the moment of registration stands in the manifest.
 */
export function renderModelCard(card: ModelCard): string {
  const { data, gate } = card;
  const lines = [
    `# ${card.name}`,
    '',
    `${card.predicts}`,
    '',
    '| | |',
    '|---|---|',
    row('unit', card.unit),
    row('label', card.label),
    row('maturity', card.maturity),
    row('baseline', card.baseline),
    row('form', card.form),
    row('learned from', `${data.fromTs ?? '?'} to ${data.toTs ?? '?'}`),
    row(
      'rows',
      Object.entries(data.rows)
        .map(([name, n]) => `${name} ${count(n)}`)
        .join(', '),
    ),
    row('calibration', card.calibration),
    row('gate', `${gate.passed ? 'passed' : '**failed**'}: ${gate.summary}`),
    '',
    '## Measured on later rows',
    '',
    'Log-loss in nats per trial; limits are 95 %, by bootstrap over publications. A slice too small to be measured shows its size only.',
    '',
    '| slice | rows | trials | publications | log-loss | baseline | relative | expected / observed |',
    '|---|---:|---:|---:|---|---:|---|---|',
    ...card.slices.map(
      (s) =>
        `| ${s.name} | ${count(s.rows)} | ${count(Math.round(s.mass))} | ${count(s.publications)} | ${limits(s.logLoss, short)} | ${s.baselineLogLoss === null ? '–' : short(s.baselineLogLoss)} | ${limits(s.relative, percent)} | ${limits(s.calibration, (v) => v.toFixed(3))} |`,
    ),
    '',
    ...(Object.keys(card.metrics).length === 0
      ? []
      : [
          '| metric | value |',
          '|---|---:|',
          ...Object.entries(card.metrics).map(
            ([name, value]) => `| ${name} | ${value === null ? '–' : short(value)} |`,
          ),
          '',
        ]),
    '## Gate',
    '',
    ...gate.checks.map(
      (c) => `- ${c.passed ? 'passed' : '**failed**'} ${c.name}: ${c.explanation}`,
    ),
    '',
    '## Limits',
    '',
    ...card.limits.map((limit) => `- ${limit}`),
    '',
    `## Features (${card.features.length})`,
    '',
    `Fingerprint \`${card.featureSetFingerprint}\`.`,
    '',
    '| feature | what it is |',
    '|---|---|',
    ...card.features.map(({ name, description }) => `| \`${name}\` | ${cell(description)} |`),
    '',
  ];
  return lines.join('\n');
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');
const row = (name: string, text: string): string => `| ${name} | ${cell(text)} |`;
const count = (n: number): string => n.toLocaleString('en');
const short = (v: number): string => String(Number(v.toPrecision(5)));
const percent = (v: number): string => `${v < 0 ? '−' : '+'}${Math.abs(100 * v).toFixed(2)} %`;

function limits(value: Limits | null, say: (v: number) => string): string {
  if (value === null) return '–';
  return `${say(value.estimate)} (${say(value.lower)} … ${say(value.upper)})`;
}
