import { createHash } from 'node:crypto';
import { isWaggleError, manualClock, silentLogger, systemClock } from '@waggle/core';
import { type RankRequestBody, type RankResponseBody, SCORE_TERMS } from '@waggle/core/contract';
import { acceptFeatures, ctrFeatures } from '@waggle/features';
import { InlineRunner, OnnxRunner } from '@waggle/models';
import { OnnxScorer } from '@waggle/ranking';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { centredModel, doublingModel } from '../../models/test/fixtures/onnx-model.js';
import {
  type EngineOptions,
  type ImportedModel,
  loadRankingRelease,
  parsePolicy,
  type RankingRelease,
  type RankingReleaseInput,
  rankingReleaseFiles,
  replay,
} from '../src/index.js';
import { HeldRunner, networkFor } from './support/network.js';
import { engineOn } from './support/ports.js';
import { openTestWorld, TENANT, type TestWorld } from './support/world.js';

let world: TestWorld;
let pctr: ImportedModel;
const opened: RankingRelease[] = [];

beforeAll(async () => {
  world = await openTestWorld({ scale: 'tiny', seed: 3, overrides: { campaigns: 80 } });
  pctr = await networkFor();
});
afterEach(async () => {
  for (const release of opened.splice(0)) await release.networks?.close();
});
afterAll(() => world?.close());

async function released(
  imported: RankingReleaseInput['models']['imported'],
  runner: OnnxRunner | HeldRunner = new OnnxRunner({ workers: 1, threads: 1, maxBatchRows: 2_048 }),
  policy: object = { epsilon: 0 },
): Promise<RankingRelease> {
  const { models, ...rest } = world.input;
  const input = rankingReleaseFiles({
    ...rest,
    policy: parsePolicy(policy),
    models: { ...models, imported },
  });
  const { id } = await world.releases.create(input);
  const release = await loadRankingRelease(await world.releases.open(id), {
    logger: silentLogger,
    networkRunner: () => runner,
  });
  opened.push(release);
  return release;
}

/** An engine on a release, with the system's clock for deadlines and the release's date. */
function serve(release: RankingRelease, over: Partial<EngineOptions> = {}) {
  const clock = { ...manualClock(release.asOfMs), monotonicMs: () => systemClock.monotonicMs() };
  const { engine, ledger, decisions } = engineOn(release, clock, over);
  let asked = 0;
  const rank = async (request: Partial<RankRequestBody>): Promise<RankResponseBody> =>
    engine.rank(
      {
        ...{ mode: 'offers', explain: 'summary', deadline_ms: 10_000, k: 5 },
        ...request,
        publication_id: request.publication_id ?? release.publications.ids[publicationRow]!,
      } as RankRequestBody,
      { tenantId: TENANT, requestId: `req_${asked++}`, receivedAtMs: clock.monotonicMs() },
    );
  const publicationRow = release.publications.deliveredPerSend.findIndex((d) => d > 0);
  return { engine, ledger, decisions, rank, publicationRow };
}

const sumOfTerms = (item: RankResponseBody['items'][number]) =>
  SCORE_TERMS.reduce((sum, term) => sum + item.explain!.terms[term], 0);

/** What the graph says of one item, asked by itself on another runner. */
async function askedAlone(
  release: RankingRelease,
  { version, contract, bytes }: ImportedModel,
  publicationRow: number,
  item: { campaign_id: string; creative_id: string },
  position = 1,
  nAds = 1,
): Promise<number> {
  const { features } = release.pctr;
  const x = new Float32Array(features.nFeatures);
  features.evaluate(
    { publicationRow, tsMs: release.asOfMs, position, nAds },
    Int32Array.of(release.campaigns.ids.indexOf(item.campaign_id)),
    Int32Array.of(release.creativeIds.indexOf(item.creative_id)),
    x,
  );
  const runner = new InlineRunner();
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const scorer = await OnnxScorer.openForeign(runner, { version, contract, bytes, sha256 });
  const [p] = await scorer.score(x, 1);
  await runner.close();
  return p!;
}

describe('a release whose clicks a network predicts', () => {
  test.each([
    ['a graph that answers with probabilities', {}],
    ['a graph that answers with a logit around the prior', { logit: true }],
  ])('offers what %s says, explained to the last micro, logged and replayed', async (_, form) => {
    const imported = await networkFor(ctrFeatures, form);
    const release = await released({ pctr: imported }, undefined, { epsilon: 0.5 });
    expect(release.versions.model).toMatch(/^pctr_network@0123456789ab\+accept/);
    expect(release.versions.calibration).toMatch(/^(identity|platt)\+/);
    expect(release.degraded).toEqual(['prior_only_model']);
    const { rank, decisions, publicationRow } = serve(release);
    for (let i = 0; i < 6; i++) {
      const answer = await rank({ k: 4 + i });
      expect(answer.degraded).toEqual(['prior_only_model']);
      expect(answer.items.length).toBeGreaterThan(0);
      for (const item of answer.items) {
        expect(sumOfTerms(item)).toBe(item.score);
        const p = await askedAlone(release, imported, publicationRow, item);
        expect(item.explain!.p_click).toBeCloseTo(p, 6);
      }
    }
    for (const row of decisions.rows) expect((await replay(row, release)).differences).toEqual([]);
  });

  test('fills slots with it and holds the money', async () => {
    const release = await released({ pctr });
    const { rank, decisions, ledger, publicationRow } = serve(release);
    const answer = await rank({ mode: 'fill', slots: [{ id: 'a' }, { id: 'b' }] });
    expect(answer.items.length).toBeGreaterThan(0);
    for (const item of answer.items) {
      expect(sumOfTerms(item)).toBe(item.score);
      expect(ledger.references.get(item.placement_id!)?.amount).toBe(item.reserved_micros);
      const position = item.slot_id === 'a' ? 1 : 2;
      const p = await askedAlone(release, pctr, publicationRow, item, position, 2);
      expect(item.explain!.p_click).toBeCloseTo(p, 6);
    }
    expect((await replay(decisions.last, release)).differences).toEqual([]);
  });

  test('answers acceptances by a network of their own, after the clicks that payouts follow from', async () => {
    const accept = await networkFor(acceptFeatures, { name: 'accept_network', bias: -0.2 });
    const release = await released({ pctr, accept });
    expect(release.degraded).toEqual([]);
    const { rank, decisions } = serve(release);
    const answer = await rank({});
    expect(new Set(answer.items.map((item) => item.explain!.p_accept)).size).toBeGreaterThan(1);
    for (const item of answer.items) expect(sumOfTerms(item)).toBe(item.score);
    expect((await replay(decisions.last, release)).differences).toEqual([]);
    // A linear pCTR beside it is summed on the calling thread, as ever.
    const half = await released({ accept });
    expect((await serve(half).rank({})).degraded).toEqual(['prior_only_model']);
  });

  test('requests with one question share its answer, and others a run', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner);
    const { rank } = serve(release);
    await rank({});
    runner.hold();
    const before = { ...runner.stats(), asked: runner.runs };
    const rows = release.publications.ids.slice(0, 8);
    const answers = Promise.all(
      rows.flatMap((publication_id) => [0, 1, 2].map(() => rank({ publication_id }))),
    );
    await new Promise((resolve) => setImmediate(resolve));
    runner.open();
    const found = await answers;
    for (let i = 0; i < found.length; i += 3) {
      expect(found[i]!.items).toEqual(found[i + 1]!.items);
      expect(found[i]!.degraded).toEqual(['prior_only_model']);
    }
    // At most creatives and scores of each publication, and fewer runs than questions.
    const asked = runner.runs - before.asked;
    expect(asked).toBeLessThanOrEqual(2 * rows.length);
    expect(runner.stats().batches - before.batches).toBeLessThan(asked);
  });

  test('a campaign whose money goes while the network thinks is not chosen', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner);
    const { rank, ledger, decisions } = serve(release);
    const best = (await rank({ k: 2 })).items.map((item) => item.campaign_id);
    for (const mode of ['offers', 'fill'] as const) {
      runner.hold();
      // Another position is another question.
      const asked = rank({
        ...{ mode, k: 5 },
        slots: [{ id: 'a', position: mode === 'fill' ? 3 : 2 }],
      });
      await new Promise((resolve) => setImmediate(resolve));
      for (const id of best) ledger.set(id, 0);
      runner.open();
      const answer = await asked;
      expect(answer.items.length).toBeGreaterThan(0);
      expect(answer.filtered.budget).toBeGreaterThanOrEqual(best.length);
      for (const item of answer.items) expect(best).not.toContain(item.campaign_id);
      expect((await replay(decisions.last, release)).differences).toEqual([]);
      ledger.setAll(1e15);
    }
  });

  test('money that moves the cut of the candidates has them asked about again', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner, { epsilon: 0, max_scored: 10 });
    const { rank, ledger, decisions } = serve(release);
    runner.hold();
    const asked = rank({ k: 10 });
    await new Promise((resolve) => setImmediate(resolve));
    for (const id of release.campaigns.ids.slice(0, 40)) ledger.set(id, 0);
    runner.open();
    const answer = await asked;
    expect(answer.degraded).toEqual(['prior_only_model']);
    expect(answer.items.length).toBeGreaterThan(0);
    expect((await replay(decisions.last, release)).differences).toEqual([]);
  });
});

describe('a network that does not answer', () => {
  test('in time: prior rates stand in, the answer is out by the deadline, and the scores are kept for who comes next', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner);
    const { rank, decisions } = serve(release);
    /** Asked again while this process stands still for longer than the deadline before it can begin. */
    const inTime = async (fields: Parameters<typeof rank>[0]): ReturnType<typeof rank> => {
      try {
        return await rank(fields);
      } catch (error) {
        if (!isWaggleError(error) || error.code !== 'WAGGLE_DEADLINE_EXCEEDED') throw error;
        return inTime(fields);
      }
    };
    runner.hold();
    const startedMs = systemClock.monotonicMs();
    const late = await rank({ deadline_ms: 60 });
    // The network never answers. The margin is for machines that do other things besides.
    expect(systemClock.monotonicMs() - startedMs).toBeLessThan(2_000);
    expect(late.latency_ms).toBeGreaterThan(40);
    expect(late.degraded).toEqual(['prior_only_model', 'deadline_prior']);
    expect(late.items.length).toBeGreaterThan(0);
    for (const item of late.items) {
      expect(sumOfTerms(item)).toBe(item.score);
      expect(item.explain!.p_accept).toBeCloseTo(0.3, 6);
    }
    // No time at all is no time to ask.
    const { runs } = runner;
    expect((await inTime({ deadline_ms: 1 })).degraded).toContain('deadline_prior');
    expect(runner.runs).toBe(runs);
    const waiting = rank({});
    runner.open();
    expect((await waiting).degraded).toEqual(['prior_only_model']);
    const asked = runner.runs;
    runner.hold();
    expect((await inTime({ deadline_ms: 10 })).degraded).toEqual(['prior_only_model']);
    expect(runner.runs).toBe(asked);
    runner.open();
    for (const row of decisions.rows) expect((await replay(row, release)).differences).toEqual([]);
  });

  test('in time for the second slot: the log tells the slots apart', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner);
    const { rank, ledger, decisions } = serve(release);
    ledger.commit = () => {
      runner.hold();
      return Promise.resolve();
    };
    const answer = await rank({
      ...{ mode: 'fill', slots: [{ id: 'a' }, { id: 'b' }], deadline_ms: 2_000 },
    });
    runner.open();
    expect(answer.items.map((item) => item.slot_id)).toEqual(['a', 'b']);
    expect(answer.degraded).toEqual(['prior_only_model', 'deadline_prior']);
    const { draws } = JSON.parse(decisions.last.items) as { draws: { prior?: true }[] };
    expect(draws.map(({ prior }) => prior)).toEqual([undefined, true]);
    expect((await replay(decisions.last, release)).differences).toEqual([]);
  });

  test('at all, or is overloaded: prior rates stand in and say so, until it answers again', async () => {
    const runner = new HeldRunner({ maxQueue: 1 });
    const release = await released({ pctr }, runner);
    const { rank, decisions } = serve(release);
    runner.failure = new Error('the thread died');
    const broken = await rank({});
    expect(broken.degraded).toEqual(['prior_only_model', 'onnx_unavailable']);
    expect(broken.items.length).toBeGreaterThan(0);
    for (const item of broken.items) expect(sumOfTerms(item)).toBe(item.score);
    const fill = await rank({ mode: 'fill', slots: [{ id: 'a' }] });
    expect(fill.degraded).toEqual(['prior_only_model', 'onnx_unavailable']);
    expect(fill.items).toHaveLength(1);
    runner.failure = undefined;
    for (const row of decisions.rows) expect((await replay(row, release)).differences).toEqual([]);
    expect((await rank({})).degraded).toEqual(['prior_only_model']);
    // More questions at once than the queue holds: each is answered, some by prior rates.
    const answers = await Promise.all(
      release.publications.ids.slice(0, 12).map((publication_id) => rank({ publication_id })),
    );
    const without = answers.filter((answer) => answer.degraded.includes('onnx_unavailable'));
    expect(without.length).toBeGreaterThan(0);
    expect(without.length).toBeLessThan(answers.length);
  });

  test('because nobody waits for it any more: the decision is not made', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner);
    const { engine, decisions } = serve(release);
    const abort = new AbortController();
    runner.hold();
    const asked = Promise.resolve(
      engine.rank(
        { mode: 'offers', publication_id: release.publications.ids[0]!, deadline_ms: 10_000 },
        {
          ...{ tenantId: TENANT, requestId: 'req_1', signal: abort.signal },
          receivedAtMs: systemClock.monotonicMs(),
        },
      ),
    );
    await new Promise((resolve) => setImmediate(resolve));
    abort.abort();
    runner.open();
    await expect(asked).rejects.toMatchObject({ code: 'WAGGLE_ABORTED' });
    expect(decisions.rows).toEqual([]);
  });
});

describe('the threads of a release', () => {
  test('outlive its retirement until the last decision is made, and then end', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner);
    const { rank, engine } = serve(release);
    runner.hold();
    const asked = [
      ...release.publications.ids.slice(0, 4).map((publication_id) => rank({ publication_id })),
      rank({ mode: 'fill', slots: [{ id: 'a' }, { id: 'b' }] }),
    ];
    await new Promise((resolve) => setImmediate(resolve));
    const closed = release.networks!.close();
    await engine.prepare(release);
    expect(runner.closed).toBe(false);
    runner.open();
    for (const answer of await Promise.all(asked)) {
      expect(answer.degraded).not.toContain('onnx_unavailable');
    }
    await closed;
    expect(runner.closed).toBe(true);
    // Whoever comes later still is answered.
    const publication_id = release.publications.ids[4]!;
    expect((await rank({ publication_id })).degraded).toContain('onnx_unavailable');
  });

  test('are asked for creatives before anybody needs them', async () => {
    const runner = new HeldRunner();
    const release = await released({ pctr }, runner);
    const { engine, rank } = serve(release);
    await engine.prepare(release);
    const before = runner.runs;
    await rank({});
    expect(runner.runs).toBe(before + 1);
  });

  test.each([
    ['a file that is no graph', async () => ({ ...pctr, bytes: pctr.bytes.slice(0, 40) })],
    ['a graph of other tensors', async () => ({ ...pctr, bytes: doublingModel(3) })],
    [
      'another feature set',
      async () => ({ ...pctr, contract: { ...pctr.contract, featureSetFingerprint: 'ctr_old' } }),
    ],
    [
      'examples that it answers otherwise',
      async () => {
        const { examples } = pctr.contract;
        const outputs = examples!.outputs.map((p) => p + 0.01);
        return { ...pctr, contract: { ...pctr.contract, examples: { ...examples!, outputs } } };
      },
    ],
    [
      'an answer that is no probability',
      async () => ({
        ...pctr,
        contract: { ...pctr.contract, output: { meaning: 'count' as const } },
      }),
    ],
  ])('end when the release is refused: %s', async (_, made) => {
    const runner = new HeldRunner();
    const code = { code: 'WAGGLE_RELEASE_UNSERVABLE' };
    await expect(released({ pctr: await made() }, runner)).rejects.toMatchObject(code);
    if (_ !== 'an answer that is no probability') {
      await expect.poll(() => runner.closed).toBe(true);
    }
  });

  test('are required, and must answer in time', async () => {
    const { models, ...rest } = world.input;
    const input = rankingReleaseFiles({ ...rest, models: { ...models, imported: { pctr } } });
    const { id } = await world.releases.create(input);
    const open = () => world.releases.open(id);
    const code = { code: 'WAGGLE_RELEASE_UNSERVABLE' };
    await expect(loadRankingRelease(await open(), { logger: silentLogger })).rejects.toMatchObject(
      code,
    );
    const runner = new HeldRunner();
    runner.hold();
    await expect(
      loadRankingRelease(await open(), {
        ...{ logger: silentLogger, networkRunner: () => runner, networkTimeoutMs: 50 },
      }),
    ).rejects.toMatchObject(code);
    runner.open();
  });

  test('run rows of several requests together only where examples show that rows mind no company', async () => {
    const nFeatures = ctrFeatures.names.length;
    const bytes = centredModel(nFeatures);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const runner = new OnnxRunner({ workers: 1, threads: 1, maxBatchRows: 64 });
    const rows = [0, 1].map((r) => ctrFeatures.names.map((_, f) => Math.sin(f + r)));
    const contract = { ...pctr.contract, examples: { rows, outputs: [0.5, 0.5], tolerance: 1 } };
    const model = { version: 'centred@1', contract, bytes, sha256 };
    const scorer = await OnnxScorer.openForeign(runner, model);
    const x = Float32Array.from(rows.flat());
    const alone = await scorer.score(x.slice(0, nFeatures), 1);
    const together = await Promise.all([
      scorer.score(x.slice(0, nFeatures), 1),
      ...Array.from({ length: 20 }, () => scorer.score(x.slice(nFeatures), 1)),
    ]);
    expect(together[0]).toEqual(alone);
    await runner.close();
  });
});

test('a model that was released on one’s word says so in every answer', async () => {
  const release = await released({ pctr: { ...pctr, gated: false } });
  expect(release.degraded).toEqual(['prior_only_model', 'ungated_model']);
  expect((await serve(release).rank({})).degraded).toContain('ungated_model');
});
