import {
  type ColumnTable,
  isWaggleError,
  numericData,
  type StringColumn,
  stringAt,
  stringData,
  stringListData,
} from '@waggle/core';
import { type FeatureSet, leafKeysBy } from './definition.js';
import { centredRows } from './entity-vectors.js';
import { featuresError } from './errors.js';
import type { AttributeRef, EntityName, Key, Leaf } from './expression.js';
import { applyScalar, buildProgram, type Program, vectorLoop } from './online-program.js';
import { absentValue, type FeatureSnapshot, type Home, homeOf, leafColumn } from './snapshot.js';

/** Unit vectors by catalog row; an all-zero row means "no embedding". */
export interface EmbeddingMatrices {
  readonly dim: number;
  /** float32 [nPublications × dim], row-major. */
  readonly publication: Float32Array;
  /** float32 [nCampaigns × dim]. */
  readonly campaign: Float32Array;
  /** float32 [nCreatives × dim]. */
  readonly creative: Float32Array;
}

/** One request: what all its candidates share, and what each brings. */
export interface FeatureContext {
  /** Row of the publication in the snapshot; −1 for one it does not know. */
  readonly publicationRow: number;
  /** When the ad would run, UTC ms. */
  readonly tsMs: number;
  /** Place in the email, 1 = top. */
  readonly position: number;
  /** Ads in the same email, this one included. */
  readonly nAds: number;
  readonly menuSize?: number;
  /** From an acceptance to the planned send; missing where no issue was chosen yet. */
  readonly leadMs?: number;
  /** Per candidate, each [nCandidates]; missing ones count as unknown. */
  readonly priceMicros?: ArrayLike<number>;
  readonly estPayoutMicros?: ArrayLike<number>;
  readonly rank?: ArrayLike<number>;
}

export interface OnlineOptions {
  /** Bytes that the per-publication caches may hold together; the least recently used goes first. */
  readonly maxCacheBytes?: number;
}

/** Candidates are worked through in runs of this many, so that the working arrays stay in the L1/L2 cache. */
const RUN = 512;
const DEFAULT_CACHE_BYTES = 128 * 1024 * 1024;

/** What a weighted sum of features needs to compute per request; the rest is in the cached sums. */
interface WeightedPlan {
  readonly weights: Float64Array;
  /** Features that change with the request and count. */
  readonly terms: readonly {
    readonly weight: number;
    readonly fallback: number;
    readonly node: number;
    /** Undefined for what all candidates of a request share. */
    readonly register: Float64Array | undefined;
  }[];
  readonly loops: readonly ((n: number) => void)[];
  /** Carried values and candidate columns that the loops and terms read. */
  readonly carried: readonly { readonly index: number; readonly register: Float64Array }[];
}

interface PublicationCache {
  /** Weights of the sums kept instead of rows; undefined where rows are kept. */
  readonly weights: Float64Array | undefined;
  /** float64 [capacity]: weighted sums of static features. */
  sums: Float64Array;
  capacity: number;
  /** Slot of (creative row), or of (campaign row) for candidates without creative; −1 = not computed. */
  readonly slotOf: Int32Array;
  nSlots: number;
  /** float32 [capacity × nFeatures]: static features, 0 elsewhere. */
  rows: Float32Array;
  /** float64 [capacity × nCarried]: static values that request-time operations need. */
  carried: Float64Array;
  /** Value of each node that changes with the publication only. */
  readonly scalars: Float64Array;
  bytes: number;
}

/** Computes one node for the first n rows of a run. */
type FillStep = (publicationRow: number, n: number) => void;
type Reader = (publicationRow: number, campaignRow: number, creativeRow: number) => number;

/**
 * Evaluates a feature set for many candidates of one request from a snapshot, no store involved. What depends
 * on publication, campaign and creative alone is computed once and cached per publication; a request costs a
 * copy per candidate plus the operations that involve its time, position or prices.
 */
export class OnlineFeatures {
  readonly set: FeatureSet;
  readonly snapshot: FeatureSnapshot;
  readonly names: readonly string[];
  readonly nFeatures: number;
  /** Indices of features that change with the request, and of those that do not. */
  readonly requestFeatures: Int32Array;
  readonly staticFeatures: Int32Array;

  readonly #program: Program;
  readonly #params: Readonly<Record<string, number>>;
  readonly #defaults: Float64Array;
  readonly #readers: readonly (Reader | undefined)[];
  readonly #nCampaigns: number;
  readonly #nCreatives: number;
  readonly #nPublications: number;
  readonly #constants: Float64Array;
  readonly #publicationNodes: number[] = [];
  readonly #itemSteps: FillStep[] = [];
  readonly #pairSteps: FillStep[] = [];
  /** Publication-wide values that pair steps use, spread over a run. */
  readonly #pairSpread: { readonly node: number; readonly register: Float64Array }[] = [];
  /** Item values by cache key, float64 [nKeys × nSavedItems]: computed once, whatever the publication. */
  readonly #savedItems: { readonly index: number; readonly register: Float64Array }[] = [];
  readonly #itemValues: Float64Array;
  readonly #itemKnown: Uint8Array;
  /** Static features and carried values with the working array each comes from; undefined = a scalar. */
  readonly #staticOutputs: {
    readonly feature: number;
    readonly node: number;
    readonly register: Float64Array | undefined;
  }[] = [];
  readonly #carriedRegisters: Float64Array[] = [];
  readonly #fillCampaigns = new Int32Array(RUN);
  readonly #fillCreatives = new Int32Array(RUN);
  readonly #requestNodes: number[] = [];
  readonly #loops: { readonly node: number; readonly run: (n: number) => void }[] = [];
  /** Per node: working array of a run; shared constants are spread into theirs once per request or ahead. */
  readonly #registers: (Float64Array | undefined)[] = [];
  readonly #spread: { readonly node: number; readonly register: Float64Array }[] = [];
  readonly #carriedNodes: number[] = [];
  readonly #carriedUsed: { readonly index: number; readonly register: Float64Array }[] = [];
  readonly #candidateLeaves: {
    readonly leaf: Leaf & { op: 'candidate' };
    readonly register: Float64Array;
  }[] = [];
  readonly #scalars: Float64Array;
  readonly #cache = new Map<number, PublicationCache>();
  /** As `#cache`, with sums instead of rows. */
  readonly #sumCache = new Map<number, PublicationCache>();
  #plan: WeightedPlan | undefined;
  readonly #maxCacheBytes: number;
  #cacheBytes = 0;
  readonly #slots = new Int32Array(RUN);

  /**
   * @param embeddings matrices aligned with the snapshot's rows
   * @throws WAGGLE_FEATURES_FINGERPRINT when the snapshot was built from other declarations
   * @throws WAGGLE_FEATURES_SNAPSHOT when a table or column is missing
   * @throws WAGGLE_FEATURES_SHAPE when a matrix does not fit the snapshot's rows
   */
  constructor(
    set: FeatureSet,
    snapshot: FeatureSnapshot,
    embeddings: EmbeddingMatrices,
    options: OnlineOptions = {},
  ) {
    const recorded = snapshot.sets[set.name];
    if (recorded?.fingerprint !== set.fingerprint) {
      throw featuresError(
        'WAGGLE_FEATURES_FINGERPRINT',
        `the snapshot was built from ${recorded?.fingerprint ?? 'no such set'}, this build declares ${set.fingerprint}`,
        {
          details: {
            set: set.name,
            snapshot: recorded?.fingerprint ?? null,
            declared: set.fingerprint,
          },
        },
      );
    }
    this.set = set;
    this.snapshot = snapshot;
    this.names = set.names;
    this.nFeatures = set.features.length;
    this.#params = recorded.params;
    this.#maxCacheBytes = options.maxCacheBytes ?? DEFAULT_CACHE_BYTES;
    this.#program = buildProgram(set);
    this.#defaults = Float64Array.from(set.features, (f) => f.default);
    this.#nPublications = tableOf(snapshot, 'publication').nRows;
    this.#nCampaigns = tableOf(snapshot, 'campaign').nRows;
    this.#nCreatives = tableOf(snapshot, 'creative').nRows;
    checkEmbeddings(embeddings, {
      publication: this.#nPublications,
      campaign: this.#nCampaigns,
      creative: this.#nCreatives,
    });
    const { nodes, outputs } = this.#program;
    this.#readers = nodes.map(({ leaf }) =>
      leaf === undefined ? undefined : checkedReader(set, snapshot, embeddings, leaf),
    );
    this.#constants = new Float64Array(nodes.length);
    this.#scalars = new Float64Array(nodes.length);
    const usedByRequest = new Set<number>();
    const usedByPair = new Set<number>();
    nodes.forEach((node, i) => {
      if (node.rate === 'constant') this.#constants[i] = this.#scalar(i, this.#constants, -1);
      else if (node.rate === 'publication') this.#publicationNodes.push(i);
      else if (node.rate === 'request') this.#requestNodes.push(i);
      else if (node.rate === 'pair') for (const arg of node.args) usedByPair.add(arg);
      else if (node.rate === 'requestCandidate')
        for (const arg of node.args) usedByRequest.add(arg);
    });
    this.#prepareFill(usedByPair, usedByRequest);
    this.#prepareRequest(usedByRequest);
    this.#itemValues = new Float64Array(this.#nKeys * this.#savedItems.length);
    this.#itemKnown = new Uint8Array(this.#nKeys);
    const isRequest = (f: number) => nodes[outputs[f]!]!.rate.startsWith('request');
    const all = set.features.map((_, f) => f);
    this.requestFeatures = Int32Array.from(all.filter(isRequest));
    this.staticFeatures = Int32Array.from(all.filter((f) => !isRequest(f)));
  }

  /** One cache key per creative, one per campaign without creative, one for a candidate that is unknown altogether. */
  get #nKeys(): number {
    return this.#nCreatives + this.#nCampaigns + 1;
  }

  /** Steps and working arrays for what is cached per item and per publication. */
  #prepareFill(usedByPair: ReadonlySet<number>, usedByRequest: ReadonlySet<number>): void {
    const { nodes, outputs } = this.#program;
    const features = new Set(outputs);
    const registers: (Float64Array | undefined)[] = [];
    const registerOf = (i: number): Float64Array => {
      const found = registers[i];
      if (found !== undefined) return found;
      const register = new Float64Array(RUN);
      registers[i] = register;
      const { rate } = nodes[i]!;
      if (rate === 'constant') register.fill(this.#constants[i]!);
      if (rate === 'publication') this.#pairSpread.push({ node: i, register });
      return register;
    };
    nodes.forEach((node, i) => {
      if (node.rate !== 'item' && node.rate !== 'pair') return;
      const register = registerOf(i);
      const reader = this.#readers[i];
      const steps = node.rate === 'item' ? this.#itemSteps : this.#pairSteps;
      if (reader === undefined) {
        const run = vectorLoop(node.expression, node.args.map(registerOf), register);
        steps.push((_, n) => run(n));
      } else {
        const campaigns = this.#fillCampaigns;
        const creatives = this.#fillCreatives;
        steps.push((publicationRow, n) => {
          for (let j = 0; j < n; j++) {
            register[j] = reader(publicationRow, campaigns[j]!, creatives[j]!);
          }
        });
      }
      if (node.rate === 'item' && (usedByPair.has(i) || usedByRequest.has(i) || features.has(i))) {
        this.#savedItems.push({ index: this.#savedItems.length, register });
      }
      if (usedByRequest.has(i)) {
        this.#carriedNodes.push(i);
        this.#carriedRegisters.push(register);
      }
    });
    outputs.forEach((node, feature) => {
      if (!nodes[node]!.rate.startsWith('request')) {
        this.#staticOutputs.push({ feature, node, register: registers[node] });
      }
    });
  }

  /** Loops and working arrays for what changes with every request. */
  #prepareRequest(used: ReadonlySet<number>): void {
    const { nodes } = this.#program;
    nodes.forEach((node, i) => {
      if (node.rate === 'requestCandidate') {
        const register = new Float64Array(RUN);
        this.#registers[i] = register;
        if (node.leaf?.op === 'candidate') {
          this.#candidateLeaves.push({ leaf: node.leaf, register });
        } else if (node.leaf !== undefined) {
          throw featuresError(
            'WAGGLE_FEATURES_DECLARATION',
            `${this.set.name}: a fact cannot be looked up by position and by campaign at once`,
          );
        } else {
          const args = node.args.map((arg) => this.#registers[arg]!);
          this.#loops.push({ node: i, run: vectorLoop(node.expression, args, register) });
        }
        return;
      }
      if (!used.has(i)) return;
      const register = new Float64Array(RUN);
      this.#registers[i] = register;
      if (node.rate === 'constant') register.fill(this.#constants[i]!);
      else if (node.rate === 'item' || node.rate === 'pair') {
        this.#carriedUsed.push({ index: this.#carriedNodes.indexOf(i), register });
      } else this.#spread.push({ node: i, register });
    });
  }

  /**
   * Features of every candidate.
   * @param campaignRows,creativeRows int32 [n], rows of the snapshot; −1 = unknown or none. A creative must
   *   belong to the campaign beside it.
   * @param out float32 [n × nFeatures], row-major, overwritten
   * Cost: O(n · nFeatures); the first sight of a (publication, creative) also its similarities, O(dim).
   * @throws WAGGLE_FEATURES_SHAPE
   */
  evaluate(
    context: FeatureContext,
    campaignRows: Int32Array,
    creativeRows: Int32Array,
    out: Float32Array,
  ): void {
    const n = campaignRows.length;
    const width = this.nFeatures;
    this.#checkShapes(context, n, creativeRows, out.length, n * width);
    const cache = this.#publication(context.publicationRow);
    this.#requestScalars(context, cache);
    for (let from = 0; from < n; from += RUN) {
      const count = Math.min(RUN, n - from);
      this.#fillSlots(context.publicationRow, cache, campaignRows, creativeRows, from, count);
      this.#run(context, cache, from, count, out);
    }
  }

  /**
   * Σ weight·feature of every candidate, without the features: what a linear model needs. The part of features that do not
   * change with the request is summed once per publication and creative, so a request costs its own features only, and
   * of those only the ones that count. Sums of the same candidate in the same context are the same to the last bit
   * whatever is asked beside it. Use one array of weights: another one starts over.
   * @param campaignRows,creativeRows as in `evaluate`
   * @param weights float64 [nFeatures], not changed afterwards
   * @param out float64 [≥ n]
   * Cost: O(n · request features with a weight); the first sight of a candidate O(nFeatures + dim) once.
   * @throws WAGGLE_FEATURES_SHAPE
   */
  evaluateSums(
    context: FeatureContext,
    campaignRows: Int32Array,
    creativeRows: Int32Array,
    weights: Float64Array,
    out: Float64Array,
  ): void {
    const n = campaignRows.length;
    this.#checkShapes(context, n, creativeRows, out.length, n);
    if (weights.length !== this.nFeatures) {
      throw featuresError(
        'WAGGLE_FEATURES_SHAPE',
        `${weights.length} weights for ${this.nFeatures} features`,
      );
    }
    if (this.#plan?.weights !== weights) this.#startOver(weights);
    const plan = this.#plan!;
    const cache = this.#publication(context.publicationRow, weights);
    this.#requestScalars(context, cache);
    for (let from = 0; from < n; from += RUN) {
      const count = Math.min(RUN, n - from);
      this.#fillSlots(context.publicationRow, cache, campaignRows, creativeRows, from, count);
      this.#runSums(plan, context, cache, from, count, out);
    }
  }

  #checkShapes(
    context: FeatureContext,
    n: number,
    creativeRows: Int32Array,
    nOut: number,
    needed: number,
  ): void {
    if (creativeRows.length !== n || nOut < needed) {
      throw featuresError(
        'WAGGLE_FEATURES_SHAPE',
        `${n} campaigns, ${creativeRows.length} creatives and an output of ${nOut} do not fit ${this.nFeatures} features`,
      );
    }
    for (const column of [context.priceMicros, context.estPayoutMicros, context.rank]) {
      if (column !== undefined && column.length < n) {
        throw featuresError(
          'WAGGLE_FEATURES_SHAPE',
          `a candidate column has ${column.length} of ${n} values`,
        );
      }
    }
  }

  /** Computes the cacheable part for these candidates ahead of the first request. */
  warm(publicationRow: number, campaignRows: Int32Array, creativeRows: Int32Array): void {
    const cache = this.#publication(publicationRow);
    for (let from = 0; from < campaignRows.length; from += RUN) {
      const count = Math.min(RUN, campaignRows.length - from);
      this.#fillSlots(publicationRow, cache, campaignRows, creativeRows, from, count);
    }
  }

  #run(
    context: FeatureContext,
    cache: PublicationCache,
    from: number,
    count: number,
    out: Float32Array,
  ) {
    const width = this.nFeatures;
    const { rows, carried } = cache;
    const slots = this.#slots;
    for (let i = 0; i < count; i++) {
      let source = slots[i]! * width;
      let target = (from + i) * width;
      for (let f = 0; f < width; f++) out[target++] = rows[source++]!;
    }
    const nCarried = this.#carriedNodes.length;
    for (const { index, register } of this.#carriedUsed) {
      for (let i = 0; i < count; i++) register[i] = carried[slots[i]! * nCarried + index]!;
    }
    for (const { leaf, register } of this.#candidateLeaves) {
      const column = context[leaf.field];
      if (column === undefined) register.fill(Number.NaN, 0, count);
      else for (let i = 0; i < count; i++) register[i] = column[from + i]!;
    }
    for (const { run } of this.#loops) run(count);
    const { nodes, outputs } = this.#program;
    const features = this.requestFeatures;
    for (let k = 0; k < features.length; k++) {
      const f = features[k]!;
      const node = outputs[f]!;
      const fallback = Math.fround(this.#defaults[f]!);
      let target = from * width + f;
      if (nodes[node]!.rate === 'request') {
        const value = Math.fround(this.#scalars[node]!);
        const finite = value - value === 0 ? value : fallback;
        for (let i = 0; i < count; i++, target += width) out[target] = finite;
      } else {
        const register = this.#registers[node]!;
        for (let i = 0; i < count; i++, target += width) {
          const value = Math.fround(register[i]!);
          out[target] = value - value === 0 ? value : fallback;
        }
      }
    }
  }

  #startOver(weights: Float64Array): void {
    for (const cache of this.#sumCache.values()) this.#cacheBytes -= cache.bytes;
    this.#sumCache.clear();
    const { nodes, outputs } = this.#program;
    const needed = new Set<number>();
    const need = (node: number): void => {
      if (needed.has(node)) return;
      needed.add(node);
      for (const arg of nodes[node]!.args) need(arg);
    };
    const terms: WeightedPlan['terms'][number][] = [];
    for (const f of this.requestFeatures) {
      if (weights[f] === 0) continue;
      const node = outputs[f]!;
      need(node);
      terms.push({
        weight: weights[f]!,
        fallback: Math.fround(this.#defaults[f]!),
        node,
        register: nodes[node]!.rate === 'request' ? undefined : this.#registers[node]!,
      });
    }
    const loops = this.#loops.filter(({ node }) => needed.has(node)).map(({ run }) => run);
    const carried = this.#carriedUsed.filter(({ index }) => needed.has(this.#carriedNodes[index]!));
    this.#plan = { weights, terms, loops, carried };
  }

  #runSums(
    plan: WeightedPlan,
    context: FeatureContext,
    cache: PublicationCache,
    from: number,
    count: number,
    out: Float64Array,
  ): void {
    const { sums, carried } = cache;
    const slots = this.#slots;
    for (let i = 0; i < count; i++) out[from + i] = sums[slots[i]!]!;
    const nCarried = this.#carriedNodes.length;
    for (const { index, register } of plan.carried) {
      for (let i = 0; i < count; i++) register[i] = carried[slots[i]! * nCarried + index]!;
    }
    for (const { leaf, register } of this.#candidateLeaves) {
      const column = context[leaf.field];
      if (column === undefined) register.fill(Number.NaN, 0, count);
      else for (let i = 0; i < count; i++) register[i] = column[from + i]!;
    }
    for (const loop of plan.loops) loop(count);
    for (const { weight, fallback, node, register } of plan.terms) {
      if (register === undefined) {
        const value = Math.fround(this.#scalars[node]!);
        const term = weight * (value - value === 0 ? value : fallback);
        for (let i = 0; i < count; i++) out[from + i]! += term;
      } else {
        for (let i = 0; i < count; i++) {
          const value = Math.fround(register[i]!);
          out[from + i]! += weight * (value - value === 0 ? value : fallback);
        }
      }
    }
  }

  #requestScalars(context: FeatureContext, cache: PublicationCache): void {
    const scalars = this.#scalars;
    scalars.set(cache.scalars);
    const { nodes } = this.#program;
    const position =
      context.position >= 0 && context.position < tableOf(this.snapshot, 'position').nRows
        ? context.position
        : -1;
    for (const i of this.#requestNodes) {
      const { leaf } = nodes[i]!;
      if (leaf === undefined) scalars[i] = this.#apply(i, scalars);
      else if (leaf.op === 'request') scalars[i] = context[leaf.field] ?? Number.NaN;
      // Facts by position are rows of their own table.
      else scalars[i] = this.#readers[i]!(position, -1, -1);
    }
    for (const { node, register } of this.#spread) register.fill(scalars[node]!);
  }

  #publication(row: number, weights?: Float64Array): PublicationCache {
    const publicationRow = row >= 0 && row < this.#nPublications ? row : -1;
    const kept = weights === undefined ? this.#cache : this.#sumCache;
    const found = kept.get(publicationRow);
    if (found !== undefined) {
      // Re-inserting keeps the map in order of last use.
      if (kept.size > 1) {
        kept.delete(publicationRow);
        kept.set(publicationRow, found);
      }
      return found;
    }
    const { nodes } = this.#program;
    const scalars = Float64Array.from(this.#constants);
    for (const i of this.#publicationNodes) scalars[i] = this.#scalar(i, scalars, publicationRow);
    const cache: PublicationCache = {
      weights,
      sums: new Float64Array(0),
      capacity: 0,
      slotOf: new Int32Array(this.#nKeys).fill(-1),
      nSlots: 0,
      rows: new Float32Array(0),
      carried: new Float64Array(0),
      scalars,
      bytes: 0,
    };
    cache.bytes = this.#nKeys * 4 + nodes.length * 8;
    kept.set(publicationRow, cache);
    this.#cacheBytes += cache.bytes;
    this.#evict();
    return cache;
  }

  /** The least recently used publications go first, those with rows before those with sums, which are smaller. */
  #evict(): void {
    for (const kept of [this.#cache, this.#sumCache]) {
      for (const [row, cache] of kept) {
        if (this.#cacheBytes <= this.#maxCacheBytes) return;
        if (kept.size === 1) break;
        kept.delete(row);
        this.#cacheBytes -= cache.bytes;
      }
    }
  }

  #fillSlots(
    publicationRow: number,
    cache: PublicationCache,
    campaignRows: Int32Array,
    creativeRows: Int32Array,
    from: number,
    count: number,
  ): void {
    const { slotOf } = cache;
    const slots = this.#slots;
    const missing: number[] = [];
    for (let i = 0; i < count; i++) {
      const creative = creativeRows[from + i]!;
      const campaign = campaignRows[from + i]!;
      const key = this.#key(
        this.#known(campaign, this.#nCampaigns),
        this.#known(creative, this.#nCreatives),
      );
      let slot = slotOf[key]!;
      if (slot < 0) {
        slot = cache.nSlots + missing.length;
        slotOf[key] = slot;
        missing.push(from + i);
      }
      slots[i] = slot;
    }
    if (missing.length > 0) this.#fill(publicationRow, cache, campaignRows, creativeRows, missing);
  }

  /** Static nodes for candidates that this publication meets for the first time; at most one run of them. */
  #fill(
    row: number,
    cache: PublicationCache,
    campaignRows: Int32Array,
    creativeRows: Int32Array,
    missing: readonly number[],
  ): void {
    const publicationRow = row >= 0 && row < this.#nPublications ? row : -1;
    const width = this.nFeatures;
    const nCarried = this.#carriedNodes.length;
    const needed = cache.nSlots + missing.length;
    const { weights } = cache;
    if (needed > cache.capacity) {
      const capacity = Math.max(needed, Math.ceil(cache.nSlots * 1.5), 64);
      const before = cache.rows.byteLength + cache.sums.byteLength + cache.carried.byteLength;
      if (weights === undefined) cache.rows = widened(cache.rows, capacity * width);
      else cache.sums = widened(cache.sums, capacity);
      cache.carried = widened(cache.carried, capacity * nCarried);
      cache.capacity = capacity;
      const grown =
        cache.rows.byteLength + cache.sums.byteLength + cache.carried.byteLength - before;
      cache.bytes += grown;
      this.#cacheBytes += grown;
      this.#evict();
    }
    this.#fillItems(campaignRows, creativeRows, missing);
    const n = missing.length;
    const campaigns = this.#fillCampaigns;
    const creatives = this.#fillCreatives;
    const nSaved = this.#savedItems.length;
    for (let j = 0; j < n; j++) {
      campaigns[j] = this.#known(campaignRows[missing[j]!]!, this.#nCampaigns);
      creatives[j] = this.#known(creativeRows[missing[j]!]!, this.#nCreatives);
    }
    for (const { index, register } of this.#savedItems) {
      for (let j = 0; j < n; j++) {
        register[j] = this.#itemValues[this.#key(campaigns[j]!, creatives[j]!) * nSaved + index]!;
      }
    }
    for (const { node, register } of this.#pairSpread) register.fill(cache.scalars[node]!, 0, n);
    for (const step of this.#pairSteps) step(publicationRow, n);
    const { rows, sums, carried } = cache;
    const first = cache.nSlots;
    for (const { feature, node, register } of this.#staticOutputs) {
      const fallback = Math.fround(this.#defaults[feature]!);
      const weight = weights === undefined ? 0 : weights[feature]!;
      if (weights !== undefined && weight === 0) continue;
      for (let j = 0; j < n; j++) {
        const value = Math.fround(register === undefined ? cache.scalars[node]! : register[j]!);
        const known = value - value === 0 ? value : fallback;
        if (weights === undefined) rows[(first + j) * width + feature] = known;
        else sums[first + j]! += weight * known;
      }
    }
    this.#carriedRegisters.forEach((register, k) => {
      for (let j = 0; j < n; j++) carried[(first + j) * nCarried + k] = register[j]!;
    });
    cache.nSlots += n;
  }

  /** Item nodes for candidates that no publication has met yet. */
  #fillItems(
    campaignRows: Int32Array,
    creativeRows: Int32Array,
    candidates: readonly number[],
  ): void {
    const campaigns = this.#fillCampaigns;
    const creatives = this.#fillCreatives;
    const keys: number[] = [];
    for (const at of candidates) {
      const campaign = this.#known(campaignRows[at]!, this.#nCampaigns);
      const creative = this.#known(creativeRows[at]!, this.#nCreatives);
      const key = this.#key(campaign, creative);
      if (this.#itemKnown[key] === 1) continue;
      this.#itemKnown[key] = 1;
      campaigns[keys.length] = campaign;
      creatives[keys.length] = creative;
      keys.push(key);
    }
    if (keys.length === 0) return;
    for (const step of this.#itemSteps) step(-1, keys.length);
    const nSaved = this.#savedItems.length;
    for (const { index, register } of this.#savedItems) {
      keys.forEach((key, j) => {
        this.#itemValues[key * nSaved + index] = register[j]!;
      });
    }
  }

  #known(row: number, nRows: number): number {
    return row >= 0 && row < nRows ? row : -1;
  }

  #key(campaign: number, creative: number): number {
    if (creative >= 0) return creative;
    return this.#nCreatives + (campaign >= 0 ? campaign : this.#nCampaigns);
  }

  #scalar(i: number, values: Float64Array, publicationRow: number): number {
    const reader = this.#readers[i];
    return reader === undefined ? this.#apply(i, values) : reader(publicationRow, -1, -1);
  }

  #apply(i: number, values: Float64Array): number {
    const { expression, args } = this.#program.nodes[i]!;
    return applyScalar(
      expression,
      args.map((arg) => values[arg]!),
      this.#params,
    );
  }
}

function widened<T extends Float32Array | Float64Array>(values: T, length: number): T {
  const wider = new (values.constructor as new (n: number) => T)(length);
  wider.set(values);
  return wider;
}

function tableOf(snapshot: FeatureSnapshot, name: string): ColumnTable {
  const table = snapshot.tables[name];
  if (table === undefined) {
    throw featuresError('WAGGLE_FEATURES_SNAPSHOT', `the snapshot has no table ${name}`);
  }
  return table;
}

function checkEmbeddings(m: EmbeddingMatrices, rows: Readonly<Record<EntityName, number>>): void {
  for (const entity of ['publication', 'campaign', 'creative'] as const) {
    if (m[entity].length !== rows[entity] * m.dim) {
      throw featuresError(
        'WAGGLE_FEATURES_SHAPE',
        `${entity} embeddings hold ${m[entity].length} numbers for ${rows[entity]} rows of ${m.dim}`,
      );
    }
  }
}

/** @throws WAGGLE_FEATURES_SNAPSHOT when the snapshot lacks what the leaf needs */
function checkedReader(
  set: FeatureSet,
  snapshot: FeatureSnapshot,
  embeddings: EmbeddingMatrices,
  leaf: Leaf,
): Reader | undefined {
  try {
    return storedReader(set, snapshot, embeddings, leaf);
  } catch (cause) {
    if (!isWaggleError(cause) || cause.code !== 'WAGGLE_COLUMNS_CORRUPT') throw cause;
    throw featuresError(
      'WAGGLE_FEATURES_SNAPSHOT',
      `the snapshot is incomplete: ${cause.message}`,
      {
        cause,
      },
    );
  }
}

/** How a leaf's value is found for a row of each entity; undefined for what only a request knows. */
function storedReader(
  set: FeatureSet,
  snapshot: FeatureSnapshot,
  embeddings: EmbeddingMatrices,
  leaf: Leaf,
): Reader | undefined {
  switch (leaf.op) {
    case 'request':
    case 'candidate':
      return undefined;
    case 'similarity':
      return similarityReader(
        leaf.centered ? centered(snapshot, embeddings) : embeddings,
        leaf.left,
        leaf.right,
      );
    case 'match':
      return matchReader(snapshot, leaf);
    default:
      break;
  }
  const home = homeOf(set, leaf)!;
  const table = tableOf(snapshot, home);
  const name = leafColumn(set, leaf);
  const data = numericData(table, name, 'f64');
  const absent = absentValue(leaf);
  const read = (row: number) => (row >= 0 ? data[row]! : absent);
  switch (home) {
    case 'global':
      return () => data[0]!;
    case 'publication':
    case 'position':
      return (p) => read(p);
    case 'campaign':
      return (_, c) => read(c);
    case 'creative':
      return (_, __, k) => read(k);
    default:
      return pairReader(set, snapshot, home, leaf, read);
  }
}

const KEY_ENTITY: Readonly<Record<Key, EntityName | 'position'>> = {
  publication: 'publication',
  pubCategory: 'publication',
  pubAudience: 'publication',
  pubSize: 'publication',
  pubLanguage: 'publication',
  campaign: 'campaign',
  advertiser: 'campaign',
  campCategory: 'campaign',
  campPricing: 'campaign',
  creative: 'creative',
  position: 'position',
};

/** Looks combinations up by the codes of their keys. */
function pairReader(
  set: FeatureSet,
  snapshot: FeatureSnapshot,
  home: Home,
  leaf: Leaf,
  read: (row: number) => number,
): Reader {
  const by = [...leafKeysBy(leaf, new Map(set.fits.map((f) => [f.name, f])))!].sort();
  const table = tableOf(snapshot, home);
  const parts = by.map((key) => {
    const entity = KEY_ENTITY[key];
    if (entity === 'position') {
      throw featuresError(
        'WAGGLE_FEATURES_DECLARATION',
        `${set.name}: facts cannot be looked up by position and ${by.join(', ')}`,
      );
    }
    const column = stringData(table, `key:${key}`);
    const codeOf = new Map(column.dictionary.map((value, code) => [value, code]));
    const entityTable = tableOf(snapshot, entity);
    const values = stringData(entityTable, key === entity ? 'id' : `key:${key}`);
    // Entity row → code of its key in the pair table; −1 where the pair table never saw it.
    const codes = Int32Array.from({ length: entityTable.nRows }, (_, row) => {
      const value = stringAt(values, row);
      return value === '' ? -1 : (codeOf.get(value) ?? -1);
    });
    return { entity, column, codes, size: Math.max(1, column.dictionary.length) };
  });
  const rowOf = new Map<number, number>();
  for (let row = 0; row < table.nRows; row++) {
    rowOf.set(
      parts.reduce((sum, part) => sum * part.size + part.column.codes[row]!, 0),
      row,
    );
  }
  return (p, c, k) => {
    let code = 0;
    for (const part of parts) {
      const row = part.entity === 'publication' ? p : part.entity === 'campaign' ? c : k;
      const own = row >= 0 ? part.codes[row]! : -1;
      if (own < 0) return read(-1);
      code = code * part.size + own;
    }
    return read(rowOf.get(code) ?? -1);
  };
}

const CENTERED = new WeakMap<
  EmbeddingMatrices,
  { snapshot: FeatureSnapshot; matrices: EmbeddingMatrices }
>();

/** Unit rows after taking away the snapshot's mean vector of each kind; made once per snapshot. */
function centered(snapshot: FeatureSnapshot, m: EmbeddingMatrices): EmbeddingMatrices {
  const known = CENTERED.get(m);
  if (known?.snapshot === snapshot) return known.matrices;
  const { dim } = m;
  const one = (entity: EntityName): Float32Array => {
    const source = m[entity];
    const column = tableOf(snapshot, 'global').columns[`mean:${entity}`];
    // Without any vectors when the snapshot was built there is no mean, and nothing to compare either.
    if (column?.kind !== 'numeric' || column.width !== dim) return new Float32Array(source.length);
    return centredRows(source, column.data as Float64Array);
  };
  const matrices = {
    dim,
    publication: one('publication'),
    campaign: one('campaign'),
    creative: one('creative'),
  };
  CENTERED.set(m, { snapshot, matrices });
  return matrices;
}

function similarityReader(m: EmbeddingMatrices, left: EntityName, right: EntityName): Reader {
  const { dim } = m;
  const a = m[left];
  const b = m[right];
  const present = (matrix: Float32Array, row: number): boolean => {
    if (row < 0) return false;
    for (let j = row * dim; j < (row + 1) * dim; j++) if (matrix[j] !== 0) return true;
    return false;
  };
  const presentA = rowFlags(a, dim, present);
  const presentB = rowFlags(b, dim, present);
  const rowFor = (entity: EntityName, p: number, c: number, k: number) =>
    entity === 'publication' ? p : entity === 'campaign' ? c : k;
  // Creatives of one campaign follow each other, so its similarity is asked for several times in a row.
  let lastI = -1;
  let lastJ = -1;
  let last = Number.NaN;
  return (p, c, k) => {
    const i = rowFor(left, p, c, k);
    const j = rowFor(right, p, c, k);
    if (i === lastI && j === lastJ) return last;
    if (i < 0 || j < 0 || presentA[i] === 0 || presentB[j] === 0) return Number.NaN;
    lastI = i;
    lastJ = j;
    last = dot(a, i * dim, b, j * dim, dim);
    return last;
  };
}

/**
 * Inner product in double precision, in four sums that need not wait for each other. The order of additions is part of
 * the result: a decision is replayed bit for bit on any machine, which sums in SIMD registers of some width are not.
 */
function dot(a: Float32Array, x: number, b: Float32Array, y: number, dim: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let d = 0;
  for (; d + 3 < dim; d += 4) {
    s0 += a[x + d]! * b[y + d]!;
    s1 += a[x + d + 1]! * b[y + d + 1]!;
    s2 += a[x + d + 2]! * b[y + d + 2]!;
    s3 += a[x + d + 3]! * b[y + d + 3]!;
  }
  for (; d < dim; d++) s0 += a[x + d]! * b[y + d]!;
  return s0 + s1 + (s2 + s3);
}

function rowFlags(
  matrix: Float32Array,
  dim: number,
  present: (matrix: Float32Array, row: number) => boolean,
): Uint8Array {
  const n = dim === 0 ? 0 : matrix.length / dim;
  return Uint8Array.from({ length: n }, (_, row) => (present(matrix, row) ? 1 : 0));
}

function matchReader(snapshot: FeatureSnapshot, leaf: Leaf & { op: 'match' }): Reader {
  const rowFor = (entity: EntityName, p: number, c: number, k: number) =>
    entity === 'publication' ? p : entity === 'campaign' ? c : k;
  const known = (ref: AttributeRef) => numericData(tableOf(snapshot, ref.entity), 'known', 'f64');
  const knownLeft = known(leaf.left);
  const knownRight = known(leaf.right);
  const right: StringColumn = stringData(
    tableOf(snapshot, leaf.right.entity),
    `text:${leaf.right.column}`,
  );
  const leftTable = tableOf(snapshot, leaf.left.entity);
  const name = `text:${leaf.left.column}`;
  let test: (i: number, value: string) => boolean;
  if (leaf.how === 'equal') {
    const left = stringData(leftTable, name);
    test = (i, value) => stringAt(left, i) === value;
  } else {
    const left = stringListData(leftTable, name);
    const orEmpty = leaf.how === 'containsOrEmpty';
    test = (i, value) => {
      const begin = left.offsets[i]!;
      const end = left.offsets[i + 1]!;
      if (begin === end) return orEmpty;
      for (let j = begin; j < end; j++) if (left.dictionary[left.codes[j]!] === value) return true;
      return false;
    };
  }
  return (p, c, k) => {
    const i = rowFor(leaf.left.entity, p, c, k);
    const j = rowFor(leaf.right.entity, p, c, k);
    if (i < 0 || j < 0 || knownLeft[i] === 0 || knownRight[j] === 0) return Number.NaN;
    return test(i, stringAt(right, j)) ? 1 : 0;
  };
}
