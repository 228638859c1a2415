import { writeFileSync } from 'node:fs';
import type { BenchContext } from '../bench-context.js';
import type { Contender } from '../contenders/protocol.js';
import { topkGraph } from './onnx-models.js';

/** onnxruntime-node with the search graph open and the data loaded; nothing when it cannot run here. */
export async function onnxTopkPeer(
  context: BenchContext,
  load: (contender: Contender) => Promise<void>,
  dim: number,
  k: number,
): Promise<{ peer: Contender; more: object } | undefined> {
  const peer = await context.peer('onnxruntime');
  if (peer === undefined) return undefined;
  const path = context.file('topk.onnx');
  writeFileSync(path, topkGraph(dim, k));
  await peer.call('open', { path });
  await load(peer);
  return { peer, more: { batch: 64 } };
}
