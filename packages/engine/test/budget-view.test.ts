import { DAY_MS } from '@waggle/core';
import { expect, test } from 'vitest';
import { BudgetView } from '../src/budget-view.js';
import type { LedgerPort } from '../src/index.js';

const ids = ['a', 'b', 'c'];
const rowOf = (id: string) => (ids.indexOf(id) < 0 ? undefined : ids.indexOf(id));

/** A ledger whose news can be as good or bad as a test needs. */
function ledgerOf(news: 'none' | 'version' | 'names') {
  const money: Record<string, number> = { a: 5, b: 0, c: 7 };
  const listeners = new Set<(id: string) => void>();
  const state = { asked: 0, version: 1, listeners };
  const port: LedgerPort = {
    availableMicros(id) {
      state.asked++;
      return money[id]!;
    },
    reserve: () => Promise.resolve({ ok: true }),
    ...(news === 'names'
      ? {
          onChange(listener) {
            listeners.add(listener);
            return { close: () => void listeners.delete(listener) };
          },
        }
      : {}),
  };
  if (news === 'version') Object.defineProperty(port, 'version', { get: () => state.version });
  const set = (id: string, micros: number) => {
    money[id] = micros;
    state.version++;
    for (const listener of listeners) listener(id);
  };
  return { port, state, set };
}

test.each(['none', 'version', 'names'] as const)(
  'columns follow a ledger that gives news: %s',
  (news) => {
    const { port, set } = ledgerOf(news);
    const view = new BudgetView(ids, rowOf, port, () => 0);
    view.refresh(0);
    expect([...view.available]).toEqual([5, 0, 7]);
    expect([...view.pass.toRows()]).toEqual([0, 2]);
    const before = view.passVersion;
    set('a', 3);
    view.refresh(0);
    expect(view.available[0]).toBe(3);
    expect(view.passVersion).toBe(before);
    set('c', -1);
    set('b', 2);
    view.refresh(0);
    expect([...view.available]).toEqual([3, 2, -1]);
    expect([...view.pass.toRows()]).toEqual([0, 1]);
    expect(view.passVersion).toBeGreaterThan(before);
  },
);

test('a ledger that can tell is asked only for what changed, and for everything on a new day', () => {
  for (const news of ['version', 'names'] as const) {
    const { port, state, set } = ledgerOf(news);
    const view = new BudgetView(ids, rowOf, port, () => 0);
    view.refresh(0);
    view.refresh(1);
    expect(state.asked).toBe(3);
    set('a', 1);
    view.refresh(2);
    expect(state.asked).toBe(news === 'names' ? 4 : 6);
    const asked = state.asked;
    view.refresh(DAY_MS);
    expect(state.asked).toBe(asked + 3);
  }
});

test('what was last known counts until the ledger answers, and again when it stops answering', () => {
  const { port } = ledgerOf('none');
  const failing = {
    ...port,
    availableMicros: () => {
      throw new Error('disk');
    },
  };
  const view = new BudgetView(ids, rowOf, failing, (row) => row);
  expect(() => view.refresh(0)).toThrow('disk');
  expect([...view.available]).toEqual([0, 1, 2]);
  expect([...view.pass.toRows()]).toEqual([1, 2]);
});

test('news of campaigns that the release does not hold is ignored, and closing stops listening', () => {
  const { port, state, set } = ledgerOf('names');
  const view = new BudgetView(ids, rowOf, port, () => 0);
  view.refresh(0);
  set('stranger', 1);
  view.refresh(0);
  expect(state.asked).toBe(3);
  view.close();
  expect(state.listeners.size).toBe(0);
});

test('a closed view hears nothing and still shows what decisions on their way need to know', () => {
  const { port, state, set } = ledgerOf('names');
  const view = new BudgetView(ids, rowOf, port, () => 0);
  view.refresh(0);
  view.close();
  expect(state.listeners.size).toBe(0);
  set('a', 0);
  view.refresh(0);
  expect([...view.available]).toEqual([0, 0, 7]);
  expect(view.pass.has(0)).toBe(false);
});
