import { readInto } from '../data/files.js';

type Kind = 'f32' | 'i32' | 'u8';

const MAKE = {
  f32: (n: number) => new Float32Array(n),
  i32: (n: number) => new Int32Array(n),
  u8: (n: number) => new Uint8Array(n),
} as const;

interface Loaded {
  readonly data: Float32Array | Int32Array | Uint8Array;
  readonly rows: number;
  readonly cols: number;
}

export interface LoadRequest {
  readonly as: string;
  readonly path: string;
  readonly rows: number;
  readonly cols: number;
  readonly dtype?: Kind;
}

/** Arrays that a contender holds, by name. */
export class Arrays {
  readonly #byName = new Map<string, Loaded>();

  load(o: LoadRequest): void {
    const data = readInto(o.path, MAKE[o.dtype ?? 'f32'](o.rows * o.cols));
    this.#byName.set(o.as, { data, rows: o.rows, cols: o.cols });
  }

  drop(name: string): void {
    this.#byName.delete(name);
  }

  f32(name: string): { data: Float32Array; rows: number; cols: number } {
    const { data, rows, cols } = this.#get(name);
    if (!(data instanceof Float32Array)) throw new Error(`${name} is not float32`);
    return { data, rows, cols };
  }

  i32(name: string): Int32Array {
    const { data } = this.#get(name);
    if (!(data instanceof Int32Array)) throw new Error(`${name} is not int32`);
    return data;
  }

  u8(name: string): Uint8Array {
    const { data } = this.#get(name);
    if (!(data instanceof Uint8Array)) throw new Error(`${name} is not bytes`);
    return data;
  }

  #get(name: string): Loaded {
    const loaded = this.#byName.get(name);
    if (loaded === undefined) throw new Error(`nothing was loaded as ${name}`);
    return loaded;
  }
}
