import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Store } from '@waggle/store';
import { type Static, Type } from 'typebox';
import { Check } from 'typebox/value';

/** What of a world's manifest says that the simulator made a file. */
const World = Type.Object({
  simulatorVersion: Type.Number(),
  tables: Type.Record(Type.String(), Type.Object({ path: Type.String(), sha256: Type.String() })),
});

/** Whether the simulator made a file: the manifest that it leaves beside its tables names the file by its hash. */
export async function madeBySimulator(path: string, sha256: string): Promise<boolean> {
  let world: unknown;
  try {
    world = JSON.parse(await readFile(join(dirname(path), 'world.json'), 'utf8'));
  } catch {
    return false;
  }
  if (!Check(World, world)) return false;
  return Object.values((world as Static<typeof World>).tables).some(
    (file) => file.path === basename(path) && file.sha256 === sha256,
  );
}

/** Whether a tenant's network is a sample: the simulator made all of its publications. */
export async function isSimulated(
  store: Store,
  tenantId: string,
  signal?: AbortSignal,
): Promise<boolean> {
  const [row] = await store.query<{ n: number; simulated: number }>(
    `SELECT uniqExact(publication_id) AS n, uniqExactIf(publication_id, publication_id IN (
       SELECT publication_id FROM simulated_publications WHERE tenant_id = {tenant:String}
     )) AS simulated FROM publications WHERE tenant_id = {tenant:String}`,
    { params: { tenant: tenantId }, ...(signal === undefined ? {} : { signal }) },
  );
  return Number(row?.n) > 0 && Number(row?.simulated) === Number(row?.n);
}
