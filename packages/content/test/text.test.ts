import { describe, expect, it } from 'vitest';
import { campaignText, creativeText, publicationText } from '../src/index.js';

describe('texts of items', () => {
  it('say what a publication is about', () => {
    const row = {
      name: 'The Daily Crumb',
      category: 'food-drink',
      tags: ['baking', 'food_drink', 'home cooking'],
      description: 'Bread,\n  every   day!',
    };
    expect(publicationText(row)).toBe(
      'The Daily Crumb. food drink, baking, home cooking. Bread, every day!',
    );
  });

  it('say what a campaign and a creative are about', () => {
    expect(
      campaignText({ name: 'Spring push', category: 'finance', description: 'A budgeting app' }),
    ).toBe('Spring push. finance. A budgeting app.');
    expect(creativeText({ headline: 'Save more?', body: 'Start today' })).toBe(
      'Save more? Start today.',
    );
  });

  it('leave out what is empty', () => {
    expect(publicationText({ name: '', category: '', tags: [], description: '  ' })).toBe('');
    expect(creativeText({ headline: 'Only this', body: '' })).toBe('Only this.');
  });
});
