import type { CampaignRow, CreativeRow, PublicationRow } from '@waggle/core/contract';

/**
 * The text that stands for an item. Fields go from the telling to the incidental, because the model reads only
 * the beginning of a long text. Ids, prices and dates say nothing about a topic and stay out.
 */
type Text<Row, Fields extends keyof Row> = Readonly<Pick<Row, Fields>>;

export function publicationText(
  row: Text<PublicationRow, 'name' | 'description' | 'tags' | 'category'>,
): string {
  return joinParts([row.name, labels([row.category, ...row.tags]), row.description]);
}

export function campaignText(row: Text<CampaignRow, 'name' | 'description' | 'category'>): string {
  return joinParts([row.name, labels([row.category]), row.description]);
}

export function creativeText(row: Text<CreativeRow, 'headline' | 'body'>): string {
  return joinParts([row.headline, row.body]);
}

/** `personal_finance`, `personal-finance` → personal finance; repeated words once. */
function labels(words: readonly string[]): string {
  return [
    ...new Set(
      words.map((word) => word.replace(/[_-]+/g, ' ').trim()).filter((word) => word !== ''),
    ),
  ].join(', ');
}

/** Sentences of one text; white space runs to one blank. */
function joinParts(parts: readonly string[]): string {
  return parts
    .map((part) => part.replace(/\s+/g, ' ').trim())
    .filter((part) => part !== '')
    .map((part) => (/[.!?…:]$/.test(part) ? part : `${part}.`))
    .join(' ');
}
