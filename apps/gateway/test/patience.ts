/** For `vi.waitUntil`, on a machine that does other things besides. */
export const PATIENCE = { timeout: 120_000 } as const;
